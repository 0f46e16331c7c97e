"""What the tests of the agent's kit share."""

from collections.abc import Iterator

import pytest

from tests.agents import Market, running_market
from tests.asking import LOOPBACK, register_redirect_uris
from tests.pages.browser import Visit, add_user, signed_in
from tests.world import World


@pytest.fixture(scope="module")
def market(shared_world: World) -> Iterator[Market]:
    """A shop with its kit, for all tests of a file."""
    with running_market(shared_world) as running:
        yield running


@pytest.fixture
def ada(market: Market) -> Iterator[Visit]:
    """Ada, who has just signed in; she is asked at the loopback address of any port."""
    add_user(market.world, "ada")
    register_redirect_uris(market.world, LOOPBACK)
    with signed_in(market.world) as visit:
        yield visit
