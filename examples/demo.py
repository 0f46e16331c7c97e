"""The whole story over real HTTP: a server, a shop, a user, and two agents of one SPIFFE trust domain.

    make demo

Every answer that is told was checked; at any other answer the story stops with exit code 1 and shows it.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from authserver.actors.workload_files import make_assertion
from authserver.agent import AgentClient, IssuerUnavailable
from authserver.resource_server import Introspection
from examples.narrator import Narrator
from examples.processes import DidNotStart, free_port, running
from examples.story import Agent, Story, Unexpected
from examples.world import HELPER, ROOT, SCOUT, Operator, VerbFailed, World, populate, workload, write_config

_PROBLEMS = (VerbFailed, DidNotStart, IssuerUnavailable, httpx.HTTPError)


@contextmanager
def stage(folder: Path, say: Narrator) -> Iterator[Story]:
    """A server and a shop in processes of their own, with everybody in their places; all end with the block."""
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
        httpx.Client(base_url=shop_url) as customer,
    ):
        server.wait_until_ready(f"{issuer}/readyz")
        shop_server.wait_until_ready(f"{shop_url}/healthz")
        yield Story(
            say=say,
            operator=operator,
            world=world,
            helper=Agent("Basket Helper", client_of(HELPER, issuer, operator), customer),
            scout=Agent("Price Scout", client_of(SCOUT, issuer, operator), customer),
            server=Introspection(issuer, world.shop.identifier, world.shop.id, world.shop.secret),
        )


def client_of(agent: str, issuer: str, operator: Operator) -> AgentClient:
    """An agent with the identity of its workload: a fresh JWT-SVID of example.org for each request."""

    def assertion() -> str:
        now = datetime.now(UTC)
        return make_assertion(operator.domain, workload(agent), issuer, timedelta(minutes=5), now)

    return AgentClient(issuer, assertion)


def introduce(say: Narrator, world: World) -> None:
    """Who is who."""
    say.title(
        "One token for one action",
        "A real server, a real shop, and two agents; every line below is an answer that came over HTTP.",
    )
    say.people(
        {
            "Ada": "whose money and whose data it is",
            "Basket Helper": f"her shopping agent, {workload(HELPER)}",
            "Price Scout": f"another agent of the same trust domain, {workload(SCOUT)}",
            "Example Foods": f"a grocery shop in the Netherlands, {world.shop.identifier}",
            "Example Market": f"a platform where many sell, {world.market.identifier}",
        }
    )


def perform(say: Narrator) -> None:
    """The whole story, in a folder that goes away with it."""
    with tempfile.TemporaryDirectory(prefix="authserver-demo-") as folder, stage(Path(folder), say) as story:
        introduce(say, story.world)
        story.tell()


def main() -> int:
    """The exit code: 0 where all came as told."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    say, started = Narrator(), time.monotonic()
    try:
        perform(say)
    except Unexpected as error:
        say.failed(error.what, error.shown)
        return 1
    except _PROBLEMS as error:
        say.failed(type(error).__name__, str(error))
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    say.close(
        [
            f"That was the whole story, in {time.monotonic() - started:.0f} seconds. To go on:",
            "  make serve   keeps a server running, and prints what to try",
            "  README.md    a first exchange by hand; a resource server in a few lines",
            "  make test    runs every test",
            "What comes next: approvals on pages for people, hand-over between agents.",
        ]
    )
    return 0


if __name__ == "__main__":
    # Nothing of the caller's own configuration reaches the story.
    for name in [name for name in os.environ if name.upper().startswith("AUTHSERVER_")]:
        del os.environ[name]
    sys.exit(main())
