"""Resource servers with the kit, for tests: the market of a world, and an agent that holds a key."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from werkzeug.serving import make_server

from authserver.dpop import ProofKey
from authserver.resource_server import (
    AsyncResourceServer,
    AsyncSettlement,
    ResourceServer,
    Settlement,
    Verifier,
)
from tests.listening import listening, listening_async
from tests.world import MARKET, SHOP, QuietHandler, World


def market_of(world: World) -> ResourceServer:
    """The market as a resource server."""
    return ResourceServer(world.issuer, MARKET, world.market_id, world.market_secret, clock=world.clock)


def async_market_of(world: World) -> AsyncResourceServer:
    """The same for an event loop."""
    return AsyncResourceServer(world.issuer, MARKET, world.market_id, world.market_secret, clock=world.clock)


def settlement_of(world: World, identifier: str = MARKET) -> Settlement:
    """How the market, or the shop, settles."""
    names = {MARKET: (world.market_id, world.market_secret), SHOP: (world.shop_id, world.shop_secret)}
    return Settlement(world.issuer, *names[identifier])


def async_settlement_of(world: World) -> AsyncSettlement:
    """How the market settles in an event loop."""
    return AsyncSettlement(world.issuer, world.market_id, world.market_secret)


def verifier_of(world: World, identifier: str = MARKET) -> Verifier:
    """How the market, or the shop, verifies."""
    return Verifier(world.issuer, identifier, clock=world.clock)


def bound_token(world: World, grant: str, key: ProofKey, **changes: Any) -> str:
    """A token that is bound to that key."""
    now = world.clock.now()
    proof = key.proof("POST", world.services.token_endpoint, now=now, nonce=world.services.nonces.make(now))
    answer = world.exchange(grant, headers={"DPoP": proof}, **changes)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


@contextmanager
def served(application: Any) -> Iterator[httpx.Client]:
    """A WSGI application over real HTTP."""
    listener = make_server("127.0.0.1", 0, application, threaded=True, request_handler=QuietHandler)
    url = f"http://127.0.0.1:{listener.server_port}"
    with listening(listener), httpx.Client(base_url=url, timeout=30) as client:
        yield client


@contextmanager
def served_async(application: Any) -> Iterator[httpx.Client]:
    """An ASGI application over real HTTP."""
    config = uvicorn.Config(application, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    with listening_async(config) as server:
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
