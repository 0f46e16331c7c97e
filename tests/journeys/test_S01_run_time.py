"""S1: each sensitive step is evaluated when it happens: exact action, context, the user's intent, the workload."""

from authserver.revoke import Target, revoke
from tests.journeys.kits import agent_of, euros, refusal
from tests.world import PRICE_SCOUT, World


def test_S1_one_grant_is_judged_anew_for_each_step(world: World) -> None:
    helper, granted = agent_of(world), world.granted()
    assert helper.exchange(granted.grant, world.action()).action == world.action()
    assert "actions" in refusal(helper, granted.grant, world.action(actions=["subscription.renew"]))
    assert "limits.per_action" in refusal(helper, granted.grant, world.action(amount=euros("80.01")))
    elsewhere = world.granted(locations=["https://shop.example/api"])
    assert "locations" in refusal(helper, elsewhere.grant, world.action())
    assert refusal(agent_of(world, PRICE_SCOUT), granted.grant, world.action(), error="invalid_request") == {}
    target = Target("delegation", granted.grant_id)
    revoke(world.services, target, reason="changed her mind", by="ada", now=world.clock.now())
    assert refusal(helper, granted.grant, world.action(), error="invalid_request") == {}


def test_S1_every_evaluation_leaves_its_reason(world: World) -> None:
    helper, granted = agent_of(world), world.granted()
    before = len(world.events())
    helper.exchange(granted.grant, world.action())
    refusal(helper, granted.grant, world.action(amount=euros("80.01")))
    told = [(event["event"], event["rule"], event["delegation_id"]) for event in world.events()[before:]]
    assert told == [
        ("exchange.permitted", "permit", granted.grant_id),
        ("exchange.refused", "limits.per_action", granted.grant_id),
    ]
