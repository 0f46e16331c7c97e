"""S15: one agent searches and another pays, each with its own identity and scope; no hidden chain of trust."""

import subprocess
import sys

import pytest

from authserver.agent import Delegation, ExchangeRefused
from examples.world import ROOT
from tests.attacks.making import record_of
from tests.conformance.tokens import claims_of
from tests.handing_over import parent
from tests.journeys.kits import agent_of, euros, refusal, settlement_of, stands, verified
from tests.settling import the_ledger_is_right
from tests.world import BASKET_HELPER, PRICE_SCOUT, World

LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "100.00"}


def searching(world: World, grant_details: dict[str, object]) -> dict[str, object]:
    """What Basket Helper hands on: to search, with all bounds that it has itself."""
    return grant_details | {"actions": ["catalog.search"], "redelegation": {"depth": 0}}


def search(world: World) -> dict[str, object]:
    return {"type": "agent_action", "actions": ["catalog.search"], "locations": world.action()["locations"]}


def test_S15_one_searches_and_another_pays_each_as_itself(world: World) -> None:
    helper, scout = agent_of(world), agent_of(world, PRICE_SCOUT)
    above = parent(world, limits=LIMITS, depth=1)
    child = helper.hand_on(above.grant, "price-scout", searching(world, above.details.to_json()))
    assert isinstance(child, Delegation)
    found = scout.exchange(child.grant, search(world))
    read = verified(world, found)
    assert (read.client_id, read.actor.subject) == ("price-scout", PRICE_SCOUT)
    # The chain is no secret: the token says for whom it searches.
    assert claims_of(found.access_token)["act"]["act"]["sub"] == BASKET_HELPER
    assert set(refusal(scout, child.grant, world.action())) == {"actions"}
    paid = helper.exchange(above.grant, world.action(amount=euros("42.50")))
    assert settlement_of(world).redeem(paid.access_token).state == "captured"


def test_S15_neither_borrows_the_power_of_the_other(world: World) -> None:
    helper, scout = agent_of(world), agent_of(world, PRICE_SCOUT)
    above = parent(world, depth=1)
    child = helper.hand_on(above.grant, "price-scout", searching(world, above.details.to_json()))
    for agent, grant in ((scout, above.grant), (helper, child.grant)):
        assert refusal(agent, grant, search(world), error="invalid_request") == {}
    with pytest.raises(ExchangeRefused) as refused:
        scout.hand_on(above.grant, "price-scout", above.details.to_json())
    assert refused.value.error == "invalid_request"


def test_S15_what_is_broader_is_refused_with_every_member_that_is(world: World) -> None:
    helper = agent_of(world)
    above = parent(world, limits=LIMITS, depth=1)
    wide = searching(world, above.details.to_json()) | {"limits": LIMITS | {"total": "500.00"}}
    with pytest.raises(ExchangeRefused) as refused:
        helper.hand_on(above.grant, "price-scout", wide | {"actions": ["catalog.search", "refund.initiate"]})
    assert [violation.constraint for violation in refused.value.violations] == ["actions", "limits.total"]


def test_S15_both_draw_on_what_the_user_allowed(world: World) -> None:
    helper, scout = agent_of(world), agent_of(world, PRICE_SCOUT)
    above = parent(world, limits=LIMITS, depth=1)
    half = above.details.to_json() | {"limits": LIMITS | {"total": "60.00"}, "redelegation": {"depth": 0}}
    child = helper.hand_on(above.grant, PRICE_SCOUT, half)
    settlement_of(world).redeem(scout.exchange(child.grant, world.action(amount=euros("50.00"))).access_token)
    crossed = refusal(helper, above.grant, world.action(amount=euros("60.00")))
    assert crossed["limits.total"] == ("60.00", "50.00")
    helper.exchange(above.grant, world.action(amount=euros("45.00")))
    assert refusal(scout, child.grant, world.action(amount=euros("9.00")))["limits.total"] == ("9.00", "5.00")
    assert record_of(world, child.grant_id).total_spent == 5000
    the_ledger_is_right(world)


def test_S15_a_resource_server_links_no_agents_of_a_user_by_their_grants(world: World) -> None:
    helper, scout = agent_of(world), agent_of(world, PRICE_SCOUT)
    above = parent(world, depth=1)
    child = helper.hand_on(
        above.grant, "price-scout", above.details.to_json() | {"redelegation": {"depth": 0}}
    )
    one, other = helper.exchange(above.grant, world.action()), scout.exchange(child.grant, world.action())
    assert claims_of(one.access_token)["grant_id"] != claims_of(other.access_token)["grant_id"]
    assert stands(world, one)
    assert stands(world, other)


def test_S15_the_example_of_a_pair_plays_to_its_end() -> None:
    command = [sys.executable, "-m", "examples.two_agents"]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert played.returncode == 0, played.stdout + played.stderr
    said = (
        "found Rolled oats",
        "cannot pay",
        "Basket Helper pays",
        "cannot search any more: the task has ended",
    )
    assert [line for line in said if line not in played.stdout] == []
