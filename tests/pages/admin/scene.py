"""A company at work: everything that the console has to show."""

from dataclasses import dataclass

from tests.pages.browser import add_user
from tests.pages.scene import Life, a_life, refused
from tests.settling import eur, redeemed, token_of
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
    token = token_of(world, other.grant, "12.50", merchant={"category": "5812", "country": "BE"})
    redeemed(world, token)
    answer = world.exchange(other.grant, action=world.action(), completion_mode="deferred")
    assert answer.json()["error"] == "authorization_pending", answer.text
    refused(world, other, amount=eur("500.00"))
    return Company(life, other.grant_id)
