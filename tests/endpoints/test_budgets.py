"""What a token holds of its delegation's budget, and when it is given back (contract §4)."""

from datetime import timedelta

import pytest

from authserver import upkeep
from authserver.ledger.check import check
from tests.world import MERCHANT, World

EUR = {"currency": "EUR", "per_action": "80.00", "total": "300.00"}


def pay(world: World, grant: str, value: str, merchant: dict[str, str] = MERCHANT) -> int:
    """Ask for a payment; gives the status of the answer."""
    action = world.action(amount={"currency": "EUR", "value": value}, merchant=merchant)
    return world.exchange(grant, action=action).status_code


@pytest.fixture(autouse=True)
def _the_ledger_is_right(request: pytest.FixtureRequest) -> object:
    world: World = request.getfixturevalue("world")
    yield
    stored = world.services.stored
    assert world.services.database.read(lambda connection: list(check(connection, stored))) == []


def test_a_payment_is_held_when_its_token_is_made(world: World) -> None:
    grant = world.granted().grant
    assert pay(world, grant, "42.50") == 200
    rows = world.rows()
    assert (rows.reserved, rows.counted, rows.transfers) == (4250, 1, 1)


@pytest.mark.parametrize("action", ["catalog.search", "order.checkout"])
def test_looking_and_checking_hold_nothing(world: World, action: str) -> None:
    grant = world.granted().grant
    asked = world.action(actions=[action])
    assert world.exchange(grant, action=asked).status_code == 200
    assert (world.rows().reserved, world.rows().counted, world.rows().actions) == (0, 0, 1)


def test_a_checkout_is_checked_against_what_is_left(world: World) -> None:
    grant = world.granted(limits=EUR | {"total": "100.00"}).grant
    assert pay(world, grant, "80.00") == 200
    checkout = world.action(actions=["order.checkout"], amount={"currency": "EUR", "value": "20.01"})
    with world.nothing_happens("limits.total"):
        world.refuses(world.exchange(grant, action=checkout), "invalid_authorization_details")


def test_the_total_is_the_sum_of_all_payments(world: World) -> None:
    grant = world.granted(limits=EUR | {"total": "100.00"}).grant
    assert [pay(world, grant, "40.00") for _ in range(3)] == [200, 200, 400]
    assert pay(world, grant, "20.00") == 200
    assert pay(world, grant, "0.01") == 400


def test_the_count_ends_the_budget(world: World) -> None:
    grant = world.granted(limits=EUR | {"count": 2}).grant
    assert [pay(world, grant, "1.00") for _ in range(3)] == [200, 200, 400]


def test_a_period_has_its_own_limit_and_ends(world: World) -> None:
    rules = [{"amount": "50.00", "period": "P1D"}]
    grant = world.granted(limits=EUR | {"per_period": rules}).grant
    assert [pay(world, grant, "30.00"), pay(world, grant, "30.00")] == [200, 400]
    world.clock.advance(days=1, seconds=-1)
    assert pay(world, grant, "30.00") == 200  # the first token died unused and gave its 30 back
    assert pay(world, grant, "30.00") == 400
    world.clock.advance(seconds=1)
    assert pay(world, grant, "50.00") == 200


def test_a_period_rule_for_some_merchants_counts_only_those(world: World) -> None:
    rules = [
        {"amount": "40.00", "period": "P1D", "categories": ["5811-5814"]},
        {"amount": "60.00", "period": "P1D", "ids": ["m_123"]},
    ]
    grant = world.granted(limits=EUR | {"per_period": rules}).grant
    restaurant = {"id": "m_7", "category": "5812", "country": "NL"}
    assert pay(world, grant, "30.00", restaurant) == 200
    assert pay(world, grant, "30.00", restaurant) == 400
    assert pay(world, grant, "50.00") == 200
    assert pay(world, grant, "11.00") == 400
    assert pay(world, grant, "11.00", restaurant | {"id": "m_8"}) == 400
    assert pay(world, grant, "10.00", restaurant | {"id": "m_8"}) == 200


def test_what_a_token_held_comes_back_when_it_dies_unused(world: World) -> None:
    rules = [{"amount": "80.00", "period": "P1D"}]
    grant = world.granted(limits=EUR | {"total": "80.00", "count": 1, "per_period": rules}).grant
    assert pay(world, grant, "80.00") == 200
    assert pay(world, grant, "80.00") == 400
    world.clock.advance(seconds=119)
    assert pay(world, grant, "80.00") == 400
    world.clock.advance(seconds=1)
    assert pay(world, grant, "80.00") == 200


def test_upkeep_gives_back_what_nobody_asks_for(world: World) -> None:
    grant = world.granted(limits=EUR | {"per_period": [{"amount": "200.00", "period": "P1M"}]}).grant
    for _ in range(3):
        assert pay(world, grant, "42.50") == 200
    services = world.services
    assert upkeep.tidy(services, world.clock.now()).reservations == 0
    later = world.clock.now() + timedelta(seconds=120)
    assert upkeep.tidy(services, later).reservations == 3
    assert upkeep.tidy(services, later).reservations == 0
    rows = world.rows()
    assert (rows.reserved, rows.counted, rows.in_windows, rows.transfers) == (0, 0, 0, 6)


def test_a_token_never_outlives_its_delegation(world: World) -> None:
    expires = (world.clock.now() + timedelta(seconds=50)).isoformat().replace("+00:00", "Z")
    grant = world.granted(expires=expires).grant
    assert world.exchange(grant).json()["expires_in"] == 50


def test_two_payments_at_two_places_share_one_budget(world: World) -> None:
    grant = world.granted(limits=EUR | {"total": "100.00"}).grant
    assert pay(world, grant, "80.00") == 200
    at_shop = world.action(locations=["https://shop.example/api"])
    assert world.exchange(grant, action=at_shop).status_code == 400
