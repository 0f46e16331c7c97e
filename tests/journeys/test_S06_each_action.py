"""S6: checkout, address change, refund and data access are actions of their own, each with its own rules."""

from pathlib import Path

import pytest

from tests.journeys.kits import agent_of, euros, refusal
from tests.policies import policed
from tests.world import World

ALL = [
    "order.checkout",
    "payment.finalize",
    "order.change_address",
    "refund.initiate",
    "profile.read",
]


@pytest.mark.parametrize(
    ("action", "left_out", "needs"),
    [
        ("order.checkout", "amount", ["amount", "merchant"]),
        ("payment.finalize", "merchant", ["amount", "merchant"]),
        ("order.change_address", "reference", ["reference"]),
        ("refund.initiate", "reference", ["amount", "merchant", "reference"]),
        ("profile.read", "datatypes", ["datatypes"]),
    ],
)
def test_S6_an_action_that_does_not_say_what_it_needs_is_refused(
    sqlite_world: World, action: str, left_out: str, needs: list[str]
) -> None:
    world = sqlite_world
    said = world.action(actions=[action], datatypes=["shipping_address"], reference="order-1")
    del said[left_out]
    crossed = refusal(agent_of(world), world.granted(actions=ALL).grant, said)
    assert crossed["catalogue.needs"][1] == needs


def test_S6_a_checkout_is_checked_against_the_limits_and_holds_nothing(world: World) -> None:
    granted = world.granted()
    checkout = world.action(actions=["order.checkout"])
    before = world.rows().reserved
    agent_of(world).exchange(granted.grant, checkout)
    assert world.rows().reserved == before
    assert "limits.per_action" in refusal(
        agent_of(world), granted.grant, checkout | {"amount": euros("99.00")}
    )


def test_S6_an_address_is_changed_only_after_approval_unless_the_user_said_otherwise(world: World) -> None:
    change = world.action(actions=["order.change_address"], amount=None, merchant=None, reference="order-1")
    asks = world.granted(actions=["order.change_address"])
    assert "approval" in refusal(agent_of(world), asks.grant, change, error="access_denied")
    allows = world.granted(actions=["order.change_address"], approval={"actions": []})
    assert agent_of(world).exchange(allows.grant, change).action["reference"] == "order-1"


def test_S6_a_refund_within_the_limits_spends_nothing(world: World) -> None:
    granted = world.granted(actions=["payment.finalize", "refund.initiate"])
    refund = world.action(actions=["refund.initiate"], reference="order-1")
    agent_of(world).exchange(granted.grant, refund)
    assert world.rows().reserved == 0


def test_S6_personal_data_leave_only_with_proof_and_approval(sqlite_world: World) -> None:
    world = sqlite_world
    export = world.action(
        actions=["personal_data.export"], amount=None, merchant=None, datatypes=["shipping_address"]
    )
    granted = world.granted(actions=["personal_data.export"])
    assert refusal(agent_of(world), granted.grant, export, error="invalid_dpop_proof") == {}


def test_S6_an_address_change_and_a_payment_within_an_hour_ask_a_person(
    database_url: str, tmp_path: Path
) -> None:
    with policed(database_url, tmp_path, library=("address-change",)) as world:
        granted = world.granted(
            actions=["payment.finalize", "order.change_address"], approval={"actions": []}
        )
        agent = agent_of(world)
        change = world.action(
            actions=["order.change_address"], amount=None, merchant=None, reference="order-1"
        )
        agent.exchange(granted.grant, change)
        assert "approval" in refusal(agent, granted.grant, world.action(), error="access_denied")
        world.clock.advance(seconds=3600)
        agent.exchange(granted.grant, world.action())
        assert "approval" in refusal(agent, granted.grant, change, error="access_denied")
