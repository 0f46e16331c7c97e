"""A company at work: everything that the console has to show."""

from dataclasses import dataclass

from tests.pages.browser import add_user
from tests.pages.scene import Life, a_life, refused
from tests.settling import eur, redeemed
from tests.world import World

ROLES = ("viewer", "revoker", "operator", "owner")


@dataclass(frozen=True)
class Company:
    """Ada's life, an approval that waits, and one administrator of each role, named as the role."""

    life: Life
    waiting: str  # the delegation under which something waits


def a_company(world: World) -> Company:
    """Make it."""
    for role in ROLES:
        add_user(world, role, f"{role.title()} Vos", role=role, groups=("storefront", "orders"))
    life = a_life(world)
    other = world.granted(user="ada", agent="basket-helper", approval={"above": "20.00"})
    paid = world.exchange(
        other.grant,
        action=world.action(amount=eur("12.50"), merchant={"category": "5812", "country": "BE"}),
        task_id="basket-7",
    )
    redeemed(world, paid.json()["access_token"])
    answer = world.exchange(other.grant, action=world.action(), completion_mode="deferred")
    assert answer.json()["error"] == "authorization_pending", answer.text
    refused(world, other, amount=eur("500.00"))
    return Company(life, other.grant_id)


def pages_of(world: World, company: Company) -> dict[str, str]:
    """Every page of the console with something on it, by name."""
    events = world.events()
    numbered = {e["event"]: number + 1 for number, e in enumerate(events)}
    action = next(e["action_id"] for e in events if e["event"] == "redemption.permitted")
    ada = next(e["data"]["user"] for e in events if e["event"] == "delegation.created")
    return {
        "overview": "/admin",
        "decisions": "/admin/decisions?live=off",
        "decision": f"/admin/decisions/{numbered['exchange.refused']}",
        "search": "/admin/search?q=a",
        "agents": "/admin/agents",
        "agent": "/admin/agents/basket-helper",
        "users": "/admin/users",
        "user": f"/admin/users/{ada}",
        "servers": "/admin/resource-servers",
        "server": "/admin/resource-servers/rs_shop",
        "delegations": "/admin/delegations",
        "delegation": f"/admin/delegations/{company.life.groceries.grant_id}",
        "action": f"/admin/actions/{action}",
        "task": "/admin/tasks/basket-7",
        "revoke": "/admin/revoke",
        "revoke-agent": "/admin/revoke?kind=agent&target=basket-helper",
        "revoke-all": "/admin/revoke?kind=all",
        "figures": "/admin/figures",
        "catalogue": "/admin/catalogue",
        "domains": "/admin/trust-domains",
        "keys": "/admin/keys",
        "policies": "/admin/policies",
        "audit": "/admin/audit",
        "audit-filtered": "/admin/audit?event=exchange.refused&q=amount",
        "simulate": "/admin/policies/simulate?set=quiet-hours&state=enforce&period=week",
    }
