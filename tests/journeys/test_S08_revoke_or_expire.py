"""S8: a token ends with what it was for: it was redeemed, it expired, it was revoked, or its task is over."""

import pytest

from authserver.agent import ExchangeRefused, IssuedToken
from authserver.delegations.standing import Kind, user_party
from authserver.resource_server import InvalidToken, Merchant, Redemption, Settlement, SettlementRefused
from authserver.revoke import Target, revoke
from authserver.upkeep import tidy
from authserver.values import MerchantCategory, Money
from tests.attacks.making import record_of
from tests.handing_over import hand_on, parent
from tests.journeys.kits import (
    agent_of,
    euros,
    is_marked_ended,
    refusal,
    settlement_of,
    stands,
    verified,
)
from tests.settling import the_ledger_is_right
from tests.world import PRICE_SCOUT, SHOP, World

LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "100.00"}


@pytest.fixture(autouse=True)
def _the_ledger_is_right(world: World) -> object:
    yield
    the_ledger_is_right(world)


def pays(world: World, grant: str, amount: str = "50.00", task_id: str | None = None) -> IssuedToken:
    """A token to pay at the market."""
    return agent_of(world).exchange(grant, world.action(amount=euros(amount)), task_id=task_id)


def is_not_redeemed(settlement: Settlement, token: IssuedToken, status: int = 409) -> SettlementRefused:
    """The refusal that a redemption meets."""
    with pytest.raises(SettlementRefused) as raised:
        settlement.redeem(token.access_token)
    assert raised.value.status == status, raised.value
    return raised.value


def left(world: World, grant: str) -> object:
    """What is left of the budget of 100 euros, as an agent is told that asks for too much."""
    crossed = refusal(agent_of(world), grant, world.action(amount=euros("1000.00")))
    return crossed["limits.total"][1]


def end(world: World, kind: Kind, name: str) -> None:
    """Revoke as an operator does."""
    revoke(world.services, Target(kind, name), reason="over", by="operator:grace", now=world.clock.now())


def test_S8_a_token_ends_with_its_redemption(world: World) -> None:
    grant, settlement = world.granted(limits=LIMITS).grant, settlement_of(world)
    token = pays(world, grant)
    assert (stands(world, token), is_marked_ended(world, token)) == (True, False)
    redemption = settlement.redeem(token.access_token)
    assert redemption == Redemption(redemption.redemption_id, token.action_id, "captured", Money("EUR", 5000))
    assert (stands(world, token), is_marked_ended(world, token)) == (False, True)
    assert is_not_redeemed(settlement, token).detail == "the token was redeemed before"
    assert left(world, grant) == "50.00"


def test_S8_an_answer_that_was_lost_is_found_again_by_its_key(world: World) -> None:
    settlement, token = settlement_of(world), pays(world, world.granted().grant)
    name = verified(world, token).jti
    first, again = (settlement.redeem(token.access_token, idempotency_key=name) for _ in range(2))
    assert first == again
    with pytest.raises(SettlementRefused) as refused:
        settlement.redeem(token.access_token, Money("EUR", 100), idempotency_key=name)
    assert (refused.value.status, refused.value.error) == (422, "idempotency_key_reused")


def test_S8_a_token_that_nobody_used_ends_by_itself_and_gives_its_amount_back(world: World) -> None:
    grant, settlement = world.granted(limits=LIMITS).grant, settlement_of(world)
    token = pays(world, grant)
    assert left(world, grant) == "50.00"
    world.clock.advance(seconds=token.expires_in)
    assert not stands(world, token)
    with pytest.raises(InvalidToken):
        verified(world, token)
    is_not_redeemed(settlement, token)
    assert tidy(world.services, world.clock.now()).reservations == 1
    assert left(world, grant) == "100.00"


def test_S8_a_token_ends_when_its_delegation_is_revoked(world: World) -> None:
    granted = world.granted(limits=LIMITS)
    token = pays(world, granted.grant)
    end(world, "delegation", granted.grant_id)
    assert (stands(world, token), is_marked_ended(world, token)) == (False, True)
    assert is_not_redeemed(settlement_of(world), token).detail == "the token has ended"


def test_S8_when_a_task_is_over_its_tokens_end_and_no_others(world: World) -> None:
    grant, settlement = world.granted(limits=LIMITS).grant, settlement_of(world)
    over, goes_on = pays(world, grant, task_id="dinner"), pays(world, grant, "30.00", task_id="breakfast")
    end(world, "task", "dinner")
    assert (stands(world, over), is_marked_ended(world, over)) == (False, True)
    assert (stands(world, goes_on), is_marked_ended(world, goes_on)) == (True, False)
    is_not_redeemed(settlement, over)
    assert left(world, grant) == "70.00"
    assert settlement.redeem(goes_on.access_token).state == "captured"


def test_S8_only_what_was_really_paid_counts(world: World) -> None:
    grant, settlement = world.granted(limits=LIMITS).grant, settlement_of(world)
    token = pays(world, grant, "80.00")
    redemption = settlement.redeem(token.access_token, Money("EUR", 3000))
    assert left(world, grant) == "70.00"
    given_back = settlement.refund(redemption.redemption_id, Money("EUR", 1000))
    assert (given_back.state, given_back.amount) == ("captured", Money("EUR", 1000))
    assert left(world, grant) == "80.00"
    assert settlement.refund(redemption.redemption_id).state == "refunded"
    assert left(world, grant) == "100.00"


def test_S8_what_was_authorized_is_captured_although_the_delegation_ended_or_is_voided(world: World) -> None:
    granted, settlement = world.granted(limits=LIMITS), settlement_of(world)
    one, another = (
        settlement.redeem(pays(world, granted.grant, amount).access_token, capture=False)
        for amount in ("40.00", "20.00")
    )
    assert (one.state, another.state) == ("authorized", "authorized")
    assert left(world, granted.grant) == "40.00"
    assert settlement.void(another.redemption_id).state == "voided"
    assert left(world, granted.grant) == "60.00"
    end(world, "delegation", granted.grant_id)
    captured = settlement.capture(one.redemption_id, Money("EUR", 3500))
    assert (captured.state, captured.amount) == ("captured", Money("EUR", 3500))


def test_S8_a_token_ends_unused_where_the_seller_is_another_than_it_says(world: World) -> None:
    grant, settlement = world.granted(limits=LIMITS).grant, settlement_of(world)
    token = pays(world, grant)
    casino = Merchant(category=MerchantCategory("7995"))
    with pytest.raises(SettlementRefused) as refused:
        settlement.redeem(token.access_token, merchant=casino)
    assert (refused.value.error, refused.value.voided) == ("merchant_facts", True)
    assert [violation.constraint for violation in refused.value.violations] == ["merchants.categories"]
    assert not stands(world, token)
    assert left(world, grant) == "100.00"


def test_S8_only_the_resource_server_that_a_token_is_for_ends_it(world: World) -> None:
    token = pays(world, world.granted().grant)
    is_not_redeemed(settlement_of(world, SHOP), token, 404)
    assert stands(world, token)


def test_S8_alice_cancels_a_job_at_two_past_twelve_and_only_that_job_stops(world: World) -> None:
    """Two agents and a hand-over: every way to a new token refuses, and what is out ends within one lifetime."""
    helper, scout, settlement = agent_of(world), agent_of(world, PRICE_SCOUT), settlement_of(world)
    alice, action = parent(world, depth=2), world.action(amount=euros("5.00"))
    scouting = hand_on(world, alice, task_id="job-7")
    out = [
        helper.exchange(alice.grant, action, task_id="job-7", idempotency_key="mine"),
        scout.exchange(scouting.grant, action, idempotency_key="theirs"),
    ]
    another = helper.exchange(alice.grant, action, task_id="job-8")
    at_work = hand_on(world, alice, task_id="job-8")
    # 12:02. She knows the job by its name, not which agents work on it.
    job = Target("task", "job-7", user_party(record_of(world, alice.grant_id).user_id))
    ended = revoke(world.services, job, reason="cancelled", by="user", now=world.clock.now())
    assert (ended.tokens, ended.delegations) == (2, 1)
    for token in out:
        assert (stands(world, token), is_marked_ended(world, token)) == (False, True)
        is_not_redeemed(settlement, token)
    ways = (
        lambda: helper.exchange(alice.grant, action, task_id="job-7"),
        lambda: helper.exchange(alice.grant, action, task_id="job-7", idempotency_key="mine"),
        lambda: helper.hand_on(alice.grant, "price-scout", scouting.details.to_json(), task_id="job-7"),
        lambda: scout.exchange(scouting.grant, action),
        lambda: scout.exchange(scouting.grant, action, idempotency_key="theirs"),
        lambda: scout.exchange(scouting.grant, action, task_id="job-8"),  # not by another name either
        lambda: scout.hand_on(scouting.grant, "basket-helper", scouting.details.to_json()),
    )
    for way in ways:
        with pytest.raises(ExchangeRefused) as refused:
            way()
        assert refused.value.error == "invalid_request"
    # Only this job: the other one goes on, with its tokens and what was handed on for it.
    assert settlement.redeem(another.access_token).state == "captured"
    assert stands(world, helper.exchange(alice.grant, action, task_id="job-8"))
    assert stands(world, scout.exchange(at_work.grant, action))
    # Whoever checks offline, by signature and time alone, is done with them after one lifetime.
    world.clock.advance(seconds=max(token.expires_in for token in out))
    for token in out:
        with pytest.raises(InvalidToken):
            verified(world, token)
