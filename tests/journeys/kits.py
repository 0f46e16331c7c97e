"""An agent and a resource server of the journeys: the same two kits that others install."""

import pytest

from authserver.agent import AgentClient, ExchangeRefused, IssuedToken
from authserver.resource_server import ActionToken, Verifier
from tests.world import BASKET_HELPER, MARKET, World


def agent_of(world: World, subject: str = BASKET_HELPER) -> AgentClient:
    """The agent that runs as this workload."""
    return AgentClient(world.issuer, lambda: world.assertion(subject))


def verified(world: World, issued: IssuedToken, audience: str = MARKET) -> ActionToken:
    """What the resource server reads in the token, offline."""
    return Verifier(world.issuer, audience, clock=world.clock).verify(issued.access_token)


def refusal(
    client: AgentClient,
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
