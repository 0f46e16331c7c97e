"""A server and a shop in processes of their own, on free ports, with everybody in their places."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from authserver.actors.workload_files import make_assertion
from authserver.agent import Agent
from examples.person import Person
from examples.processes import free_port, running
from examples.world import PASSWORD, ROOT, Operator, VerbFailed, World, populate, workload, write_config


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs, and where; `shop_url` is Example Foods."""

    issuer: str
    shop_url: str
    operator: Operator
    world: World

    def client_of(self, agent: str) -> Agent:
        """An agent with the identity of its workload."""
        return Agent(self.issuer, lambda: self._assertion(agent), agent)

    def ada(self) -> Person:
        """Ada, who has just signed in."""
        return Person(self.issuer, "ada", PASSWORD)

    def _assertion(self, agent: str) -> str:
        """A fresh JWT-SVID of example.org."""
        now = datetime.now(UTC)
        return make_assertion(self.operator.domain, workload(agent), self.issuer, timedelta(minutes=5), now)


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Start everything with its data in `folder`; all of it ends with the block.

    Raises `VerbFailed` and `processes.DidNotStart`.
    """
    issuer, shop_url = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    operator = Operator(folder, folder / "authserver.toml")
    write_config(operator.config, issuer)
    world = populate(operator, shop=f"{shop_url}/api")
    if world is None:
        raise VerbFailed("the new database has somebody in it already")
    serve = [sys.executable, "manage.py", "serve", "--port", issuer.rpartition(":")[2]]
    shop = [sys.executable, "-m", "examples.shop", "--issuer", issuer, "--port", shop_url.rpartition(":")[2]]
    shop_knows = {"SHOP_SECRET": world.shop.secret}
    with (
        running(serve, operator.environment, ROOT, folder / "server.log") as server,
        running([*shop, "--id", world.shop.id], shop_knows, ROOT, folder / "shop.log") as shop_server,
    ):
        server.wait_until_ready(f"{issuer}/readyz")
        shop_server.wait_until_ready(f"{shop_url}/healthz")
        yield Stage(issuer, shop_url, operator, world)
