"""The whole story over real HTTP: a server, a shop, a user, and two agents of one SPIFFE trust domain.

    make demo

Every answer that is told was checked; at any other answer the story stops with exit code 1 and shows it.
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import httpx

from authserver.agent import ExchangeRefused, IssuerUnavailable
from authserver.resource_server import Introspection, Settlement
from examples.company import Company, prepare
from examples.narrator import Narrator
from examples.person import Person, UnexpectedPage
from examples.processes import DidNotStart
from examples.stage import Stage, stage
from examples.story import Agent, Story, Unexpected
from examples.world import HELPER, PASSWORD, SCOUT, VerbFailed, World, workload

_PROBLEMS = (VerbFailed, DidNotStart, ExchangeRefused, IssuerUnavailable, UnexpectedPage, httpx.HTTPError)


def introduce(say: Narrator, world: World) -> None:
    """Who is who."""
    say.title(
        "One token for one action",
        "A real server, a real shop, two agents, and Ada at her browser, by script. Every answer came over HTTP.",
    )
    say.people(
        {
            "Ada": "whose money and whose data it is",
            "Grace": "of the company's privacy group",
            "Basket Helper": f"her shopping agent, {workload(HELPER)}",
            "Price Scout": f"another agent of the same trust domain, {workload(SCOUT)}",
            "Example Foods": f"a grocery shop in the Netherlands, {world.shop.identifier}",
            "Example Market": f"a platform where many sell, {world.market.identifier}",
        }
    )


def perform(say: Narrator) -> None:
    """The whole story, in a folder that goes away with it."""
    with (
        tempfile.TemporaryDirectory(prefix="authserver-demo-") as folder,
        stage(Path(folder)) as place,
        httpx.Client(base_url=place.shop_url) as shop,
    ):
        prepare(place.operator)  # the server takes the policy over within a second
        introduce(say, place.world)
        story = _story(say, place, shop)
        story.tell()
        Company(story, place.operator, Person(place.issuer, "grace", PASSWORD)).tell()


def _story(say: Narrator, place: Stage, shop: httpx.Client) -> Story:
    foods = place.world.shop
    return Story(
        say=say,
        ada=place.ada(),
        world=place.world,
        helper=Agent("Basket Helper", place.client_of(HELPER), shop),
        scout=Agent("Price Scout", place.client_of(SCOUT), shop),
        introspection=Introspection(place.issuer, foods.identifier, foods.id, foods.secret),
        settlement=Settlement(place.issuer, foods.id, foods.secret),
    )


def main() -> int:
    """The exit code: 0 where all came as told."""
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
            "               Ada's pages are then at http://127.0.0.1:8000/",
            f"               sign in as ada, with {PASSWORD}",
            "  README.md    a first exchange by hand; a resource server in a few lines",
            "  make test    runs every test",
        ]
    )
    return 0


if __name__ == "__main__":
    # An end from outside unwinds as well, so that the server and the shop end first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Nothing of the caller's own configuration reaches the story.
    for name in [name for name in os.environ if name.upper().startswith("AUTHSERVER_")]:
        del os.environ[name]
    sys.exit(main())
