"""An agent and a resource server of the journeys: the same two kits that others install."""

import time
import zlib

import pytest

from authserver.agent import Agent, ExchangeRefused, IssuedToken
from authserver.resource_server import ActionToken, Introspection, Settlement, Verifier
from tests.conformance.tokens import claims_of, decoded
from tests.conformance.tokens import verified as verified_claims
from tests.world import BASKET_HELPER, MARKET, SHOP, World


def agent_of(world: World, subject: str = BASKET_HELPER) -> Agent:
    """The agent that runs as this workload."""
    return Agent(world.issuer, lambda: world.assertion(subject))


def verified(world: World, issued: IssuedToken, audience: str = MARKET) -> ActionToken:
    """What the resource server reads in the token, offline."""
    return Verifier(world.issuer, audience, clock=world.clock).verify(issued.access_token)


def stands(world: World, issued: IssuedToken) -> bool:
    """Whether the market is told that the token is active."""
    asking = Introspection(world.issuer, MARKET, world.market_id, world.market_secret, clock=world.clock)
    return asking.introspect(issued.access_token) is not None


def is_marked_ended(world: World, issued: IssuedToken) -> bool:
    """Whether the token's bit is set in the list that it names, as anyone gets it."""
    place = claims_of(issued.access_token)["status"]["status_list"]
    time.sleep(0.25)  # a list may be that old
    listed = verified_claims(world, world.client.get(place["uri"]).text)["status_list"]
    return bool(zlib.decompress(decoded(listed["lst"]))[place["idx"] // 8] >> place["idx"] % 8 & 1)


def settlement_of(world: World, audience: str = MARKET) -> Settlement:
    """The market, or the shop, settles."""
    names = {MARKET: (world.market_id, world.market_secret), SHOP: (world.shop_id, world.shop_secret)}
    return Settlement(world.issuer, *names[audience])


def refusal(
    client: Agent,
    grant: str,
    action: dict[str, object],
    *,
    error: str = "invalid_authorization_details",
) -> dict[str, tuple[object, object]]:
    """The limits that the request crossed, each with what was requested and what is allowed."""
    with pytest.raises(ExchangeRefused) as raised:
        client.exchange(grant, action)
    assert raised.value.error == error, raised.value
    return {
        violation.constraint: (violation.requested, violation.allowed)
        for violation in raised.value.violations
    }


def euros(value: str) -> dict[str, str]:
    """An amount in euros."""
    return {"currency": "EUR", "value": value}
