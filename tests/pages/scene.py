"""A life for Ada: two agents, of which one has spent, was refused, has seen her address, and handed something on."""

from dataclasses import dataclass
from typing import Any

from authserver.consent import Granted
from tests.attacks.making import handed_on
from tests.pages.browser import add_user
from tests.settling import eur, redeemed, token_of
from tests.world import MARKET, PRICE_SCOUT, SHOP, World


@dataclass(frozen=True)
class Life:
    """What Ada has allowed: groceries to one agent, searching to another; and the first handed on a little."""

    groceries: Granted
    searching: Granted
    below: Granted


def a_life(world: World, user: str = "ada") -> Life:
    """Make it, through the server's own doors wherever there is one."""
    add_user(world, user)
    limits = {
        "currency": "EUR",
        "per_action": "80.00",
        "total": "300.00",
        "per_period": [
            {"amount": "150.00", "period": "P7D"},
            {"amount": "40.00", "period": "P1D", "categories": ["5811-5814"]},
        ],
    }
    groceries = world.granted(
        user=user,
        actions=["catalog.search", "order.checkout", "payment.finalize", "profile.read"],
        limits=limits,
        approval={"above": "60.00"},
    )
    searching = world.granted(
        agent="price-scout",
        user=user,
        details={
            "type": "agent_delegation",
            "actions": ["catalog.search"],
            "locations": [SHOP, MARKET],
            "expires": world.delegation()["expires"],
        },
    )
    redeemed(world, token_of(world, groceries.grant, "42.50", reference="cart-889"))
    world.clock.advance(minutes=3)
    redeemed(world, token_of(world, groceries.grant, "38.20"), amount=eur("36.00"))
    token_of(world, groceries.grant, "12.00", datatypes=["shipping_address"])
    refused(world, groceries, amount=eur("92.00"))
    refused(world, groceries, merchant={"category": "5813", "country": "FR", "name": "Chez Léon"})
    world.exchange(
        searching.grant,
        action={"type": "agent_action", "actions": ["catalog.search"], "locations": [SHOP]},
        actor_token=world.assertion(PRICE_SCOUT),
    )
    below = handed_on(world, groceries, details=_less(world, limits))
    return Life(groceries, searching, below)


def refused(world: World, granted: Granted, **changes: Any) -> None:
    """A request that the delegation forbids."""
    assert world.exchange(granted.grant, action=world.action(**changes)).status_code == 400


def _less(world: World, limits: dict[str, Any]) -> dict[str, Any]:
    return world.delegation(
        actions=["payment.finalize"], limits=limits | {"total": "50.00", "per_action": "25.00"}
    )
