"""S2: browsing apart from purchasing, purchasing apart from payment, refund and export: one action a token."""

from pathlib import Path

import pytest

from authserver.resource_server import NotAllowed
from tests.journeys.kits import agent_of, refusal, verified
from tests.policies import forbid, policed
from tests.world import World

OTHERS = (
    "order.checkout",
    "payment.finalize",
    "refund.initiate",
    "order.change_address",
    "profile.read",
    "personal_data.export",
)


def test_S2_a_token_for_browsing_does_nothing_else(world: World) -> None:
    browse = world.action(actions=["catalog.search"], amount=None, merchant=None)
    token = verified(world, agent_of(world).exchange(world.granted().grant, browse))
    token.require("catalog.search")
    for other in OTHERS:
        with pytest.raises(NotAllowed):
            token.require(other)


@pytest.mark.parametrize("action", ["payment.finalize", "refund.initiate"])
def test_S2_who_may_order_may_not_therefore_pay_or_refund(sqlite_world: World, action: str) -> None:
    granted = sqlite_world.granted(actions=["catalog.search", "order.checkout"])
    asked = sqlite_world.action(actions=[action], reference="order-1")
    crossed = refusal(agent_of(sqlite_world), granted.grant, asked)
    assert crossed["actions"] == (action, ["catalog.search", "order.checkout"])


def test_S2_two_actions_in_one_token_are_refused(sqlite_world: World) -> None:
    both = sqlite_world.action(actions=["order.checkout", "payment.finalize"])
    assert refusal(agent_of(sqlite_world), sqlite_world.granted().grant, both) == {}


def test_S2_an_organisation_takes_one_action_away_from_all_agents_and_leaves_the_others(
    sqlite_url: str, tmp_path: Path
) -> None:
    with policed(sqlite_url, tmp_path, freeze=forbid("no-refunds", action="refund.initiate")) as world:
        granted = world.granted(actions=["payment.finalize", "refund.initiate"])
        refund = world.action(actions=["refund.initiate"], reference="order-1")
        assert "policy:no-refunds" in refusal(agent_of(world), granted.grant, refund)
        verified(world, agent_of(world).exchange(granted.grant, world.action())).require("payment.finalize")
