"""One agent searches, another pays: a pair of programs that share a delegation and nothing else.

    python -m examples.two_agents

Basket Helper holds what Ada allowed. For one job it hands the searching on to Price Scout, which has a workload and
an identity of its own; when the job is done, what was handed on ends with it.
"""

import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import httpx

from authserver.agent import Agent, ExchangeRefused
from examples.stage import Stage, stage
from examples.world import FOODS, HELPER, SCOUT, what_ada_allows_the_helper

JOB = "groceries-48"


def search(scout: Agent, grant: str, shop: httpx.Client, place: str) -> str:
    """What Price Scout does: find what the basket lacks. It has no other power, and needs none."""
    details = {"type": "agent_action", "actions": ["catalog.search"], "locations": [place]}
    token = scout.exchange(grant, details)
    answer = shop.get("/api/products?search=oat", headers={"Authorization": f"Bearer {token.access_token}"})
    answer.raise_for_status()
    return str(answer.json()[0]["name"])


def pay(payer: Agent, grant: str, place: str) -> str:
    """What Basket Helper does: ask for a token for one payment."""
    details = {
        "type": "agent_action",
        "actions": ["payment.finalize"],
        "locations": [place],
        "amount": {"currency": "EUR", "value": "4.20"},
        "merchant": FOODS,
        "reference": "order-1",
    }
    return payer.exchange(grant, details, task_id=JOB).action_id


def part_for_searching(allowed: Mapping[str, object]) -> dict[str, object]:
    """All that Basket Helper may do, but only to search, and not to be handed on."""
    return {**allowed, "actions": ["catalog.search"], "redelegation": {"depth": 0}}


def play(place: Stage) -> None:
    """The two at work."""
    helper, scout = place.client_of(HELPER), place.client_of(SCOUT)
    shop_identifier = place.world.shop.identifier
    allowed = what_ada_allows_the_helper(shop_identifier, timedelta(days=30))
    consent = place.operator.delegate(HELPER, allowed)
    handed = helper.hand_on(consent.grant, SCOUT, part_for_searching(allowed), task_id=JOB)
    with httpx.Client(base_url=place.shop_url) as shop:
        print(f"Price Scout found {search(scout, handed.grant, shop, shop_identifier)}")
    for who, agent, grant in (("Price Scout", scout, handed.grant), ("Price Scout", scout, consent.grant)):
        try:
            pay(agent, grant, shop_identifier)
        except ExchangeRefused as refused:
            print(f"{who} cannot pay: {refused.description}")
    print(f"Basket Helper pays: {pay(helper, consent.grant, shop_identifier)}")
    ended = place.operator.record("revoke", "--task", JOB, "--agent", HELPER)
    print(f"The job is over, and with it tokens: {ended['tokens']}, delegations: {ended['delegations']}")
    try:
        scout.exchange(handed.grant, {"type": "agent_action", "actions": ["catalog.search"]}, shop_identifier)
    except ExchangeRefused as refused:
        print(f"Price Scout cannot search any more: {refused.description}")


def main() -> int:
    """The exit code."""
    with tempfile.TemporaryDirectory(prefix="authserver-pair-") as folder, stage(Path(folder)) as place:
        play(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
