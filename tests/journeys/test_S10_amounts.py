"""S10: a budget constrained by amount: at a time, in all, per period, by number."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from authserver.agent import ExchangeRefused
from tests.journeys.kits import agent_of, euros, refusal, verified
from tests.world import World


def limits(**changes: object) -> dict[str, object]:
    return {"currency": "EUR", "per_action": "80.00", "total": "300.00"} | changes


def test_S10_an_amount_above_the_limit_of_one_action_is_refused(world: World) -> None:
    helper, grant = agent_of(world), world.granted().grant
    crossed = refusal(helper, grant, world.action(amount=euros("92.00")))
    assert crossed == {"limits.per_action": ("92.00", "80.00")}
    assert verified(world, helper.exchange(grant, world.action(amount=euros("80.00")))).amount is not None


def test_S10_the_total_counts_what_tokens_hold_and_says_what_is_left(world: World) -> None:
    helper, grant = agent_of(world), world.granted(limits=limits(total="100.00")).grant
    helper.exchange(grant, world.action(amount=euros("70.00")))
    assert refusal(helper, grant, world.action(amount=euros("30.01"))) == {"limits.total": ("30.01", "30.00")}
    helper.exchange(grant, world.action(amount=euros("30.00")))
    assert refusal(helper, grant, world.action(amount=euros("0.01"))) == {"limits.total": ("0.01", "0.00")}


def test_S10_a_token_that_dies_unused_gives_its_amount_back(world: World) -> None:
    helper, grant = agent_of(world), world.granted(limits=limits(total="80.00")).grant
    helper.exchange(grant, world.action(amount=euros("80.00")))
    assert "limits.total" in refusal(helper, grant, world.action(amount=euros("80.00")))
    world.clock.advance(seconds=120)
    helper.exchange(grant, world.action(amount=euros("80.00")))


def test_S10_a_period_has_its_own_budget_that_comes_back(world: World) -> None:
    weekly = limits(per_period=[{"amount": "50.00", "period": "P7D"}])
    helper, grant = agent_of(world), world.granted(limits=weekly).grant
    helper.exchange(grant, world.action(amount=euros("50.00")))
    crossed = refusal(helper, grant, world.action(amount=euros("10.00")))
    assert crossed == {"limits.per_period": ("10.00", "0.00")}
    world.clock.advance(days=7)
    helper.exchange(grant, world.action(amount=euros("10.00")))


def test_S10_a_number_of_payments_is_a_limit_too(world: World) -> None:
    helper, grant = agent_of(world), world.granted(limits=limits(count=2)).grant
    for _ in range(2):
        helper.exchange(grant, world.action(amount=euros("1.00")))
    assert refusal(helper, grant, world.action(amount=euros("1.00"))) == {"limits.count": (1, 0)}


def test_S10_another_currency_is_never_converted(sqlite_world: World) -> None:
    world = sqlite_world
    crossed = refusal(
        agent_of(world), world.granted().grant, world.action(amount={"currency": "USD", "value": "1.00"})
    )
    assert crossed == {"limits.currency": ("USD", "EUR")}


def test_S10_all_limits_that_were_crossed_are_told_at_once(sqlite_world: World) -> None:
    world = sqlite_world
    grant = world.granted(limits=limits(total="50.00")).grant
    wine = {"category": "5921", "country": "US"}
    crossed = refusal(agent_of(world), grant, world.action(amount=euros("92.00"), merchant=wine))
    assert set(crossed) == {
        "limits.per_action",
        "limits.total",
        "merchants.categories",
        "merchants.countries",
    }


def test_S10_thirty_at_once_get_exactly_what_the_budget_covers(world: World) -> None:
    helper, grant = agent_of(world), world.granted(limits=limits(total="100.00")).grant

    def answer(_: int) -> str:
        try:
            helper.exchange(grant, world.action(amount=euros("10.00")))
        except ExchangeRefused as refused:
            return refused.error
        return "issued"

    with ThreadPoolExecutor(15) as at_once:
        answers = Counter(at_once.map(answer, range(30)))
    assert answers == {"issued": 10, "invalid_authorization_details": 20}


def test_S10_a_retry_with_the_same_key_holds_nothing_twice(world: World) -> None:
    helper, grant = agent_of(world), world.granted(limits=limits(total="80.00")).grant
    first = helper.exchange(grant, world.action(amount=euros("80.00")), idempotency_key="order-1")
    again = helper.exchange(grant, world.action(amount=euros("80.00")), idempotency_key="order-1")
    assert again.action_id == first.action_id
    assert verified(world, again) == verified(world, first)
