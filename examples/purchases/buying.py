"""What the three have in common: the agent, the shop, the person, and how much the person has to do."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from authserver.agent import Agent, Delegation, Money, Task, Waiting
from examples.person import Person
from examples.stage import stage
from examples.world import HELPER, instant


@dataclass(frozen=True, slots=True)
class Friction:
    """Pages that a person looked at, and buttons that they pressed."""

    pages: int
    presses: int


@dataclass(slots=True)
class Scene:
    """A person, their agent, and a shop."""

    person: Person
    agent: Agent
    shop_url: str
    shop: str  # the shop's identifier

    @contextmanager
    def costs(self, what: str) -> Iterator[list[Friction]]:
        """Count what the person does in the block, and say so."""
        pages, presses, counted = self.person.pages, self.person.presses, []
        yield counted
        counted.append(Friction(self.person.pages - pages, self.person.presses - presses))
        print(f"{what}: pages {counted[0].pages}, buttons {counted[0].presses}")

    def ask(self, details: Mapping[str, object]) -> Delegation:
        """The agent asks, the person reads and presses Allow."""

        def show(url: str) -> None:
            httpx.get(self.person.allows(self.person.reads(url), preset="trust"))

        return self.agent.delegate(details, show=show, timeout=60)

    def client(
        self, task: Task, *agreed: str, at_most: Money, waits: Callable[[Waiting], object] | None = None
    ) -> httpx.Client:
        """The agent's way to the shop, for one task."""
        auth = task.auth(*agreed, at_most=at_most, waits=waits)
        return httpx.Client(base_url=self.shop_url, auth=auth, timeout=30)

    def details(self, *actions: str, limits: Mapping[str, object], **more: object) -> dict[str, Any]:
        """An `agent_delegation` at this shop, for a month from the agent's clock."""
        return {
            "type": "agent_delegation",
            "actions": list(actions),
            "locations": [self.shop],
            "limits": dict(limits),
            "merchants": {"categories": ["5411"], "countries": ["NL"]},
            "datatypes": ["shipping_address"],
            "expires": instant(self.agent.core.clock.now() + timedelta(days=30)),
            **more,
        }


def order_and_pay(shop: httpx.Client, cart: str, items: Mapping[str, int]) -> dict[str, Any]:
    """Order a basket and pay it; what the shop answered. The tokens are the client's business."""
    ordered = shop.post("/api/orders", json={"cart": cart, "items": dict(items)})
    ordered.raise_for_status()
    paid = shop.post(f"/api/orders/{ordered.json()['order']}/payment")
    paid.raise_for_status()
    answer: dict[str, Any] = paid.json()
    return answer


def main(play: Callable[[Scene], object]) -> None:
    """Start a server and a shop, play, and end all of it."""
    with tempfile.TemporaryDirectory(prefix="authserver-purchase-") as folder, stage(Path(folder)) as place:
        agent = place.client_of(HELPER)
        play(Scene(place.ada(), agent, place.shop_url, place.world.shop.identifier))
    sys.exit(0)
