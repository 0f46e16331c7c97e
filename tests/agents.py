"""An agent with its kit and a shop with its own, both against the server of a world, over real HTTP."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from werkzeug.serving import make_server

from authserver.actors import resource_servers
from authserver.actors.resource_servers import new_secret
from authserver.agent import Agent, AsyncAgent, Delegation
from authserver.consent import Granted
from authserver.policy.details import Merchant
from authserver.resource_server import AsyncResourceServer, ResourceServer
from examples.mcp_server.__main__ import create_server
from examples.processes import free_port
from examples.shop.__main__ import create_shop
from tests.listening import listening, listening_async
from tests.world import MERCHANT, QuietHandler, World, make_resource_server

ACTIONS = ["catalog.search", "order.checkout", "payment.finalize", "subscription.renew"]


@dataclass
class Market:
    """A shop that is served at its own identifier; `asked` are the requests that it got: method, path, scheme."""

    world: World
    url: str
    identifier: str
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def agent(self, **options: Any) -> Agent:
        """Basket Helper."""
        usual: dict[str, Any] = {"clock": self.world.clock, "sleep": no_sleep}
        return Agent(self.world.issuer, lambda: self.world.assertion(), "basket-helper", **(usual | options))

    def async_agent(self, **options: Any) -> AsyncAgent:
        """The same for an event loop."""
        usual: dict[str, Any] = {"clock": self.world.clock}
        return AsyncAgent(
            self.world.issuer, lambda: self.world.assertion(), "basket-helper", **(usual | options)
        )

    def details(self, **changes: Any) -> dict[str, Any]:
        """What Ada may allow at this shop."""
        usual = {"actions": ACTIONS, "locations": [self.identifier]}
        return self.world.delegation(**(usual | changes))

    def delegated(self, **changes: Any) -> Delegation:
        """What she allowed."""
        return delegation_of(self.world.granted(**self.details(**changes)))

    def schemes(self) -> list[str]:
        """How each request presented itself; empty for none."""
        return [scheme for _, _, scheme in self.asked]


def delegation_of(granted: Granted) -> Delegation:
    """What an operator recorded, as an agent has it."""
    return Delegation(
        granted.grant, granted.grant_id, 3600, json.loads(json.dumps(granted.details.to_json()))
    )


def no_sleep(seconds: float) -> None:
    """Time is the test's."""


def register(world: World, name: str, identifier: str, **changes: Any) -> tuple[str, str]:
    """A resource server of that identifier; its id and secret."""
    secret, hashed = new_secret()
    server = make_resource_server(name, identifier, world.clock.now(), secret_hash=hashed, **changes)
    world.services.database.write(lambda c: resource_servers.create(c, server))
    return server.id, secret


@contextmanager
def running_market(
    world: World, around: Callable[[Any], Any] = lambda application: application
) -> Iterator[Market]:
    """Example Foods at an address of its own; `around` is WSGI middleware."""
    listener = make_server("127.0.0.1", 0, lambda *_: iter(()), threaded=True, request_handler=QuietHandler)
    url = f"http://127.0.0.1:{listener.server_port}"
    market = Market(world, url, f"{url}/api")
    id, secret = register(
        world, f"foods{listener.server_port}", market.identifier, merchant=Merchant.parse(MERCHANT)
    )
    kit = ResourceServer(world.issuer, market.identifier, id, secret, clock=world.clock)
    application = around(create_shop(kit))

    def noted(environ: Any, start_response: Any) -> Any:
        scheme = environ.get("HTTP_AUTHORIZATION", "").partition(" ")[0]
        market.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], scheme))
        return application(environ, start_response)

    listener.app = noted
    with listening(listener):
        yield market


@contextmanager
def running_books(world: World) -> Iterator[str]:
    """Example Books, the MCP server; gives its identifier."""
    port = free_port()
    identifier = f"http://127.0.0.1:{port}/mcp"
    facts = {"id": "m_77", "category": "5942", "country": "NL", "name": "Example Books"}
    id, secret = register(world, f"books{port}", identifier, merchant=Merchant.parse(facts))
    kit = AsyncResourceServer(
        world.issuer, identifier, id, secret, clock=world.clock, scopes=["catalog.search"]
    )
    config = uvicorn.Config(create_server(kit), host="127.0.0.1", port=port, log_level="error")
    with listening_async(config):
        yield identifier
