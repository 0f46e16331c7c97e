"""Threat A78: reservations that are made to starve a budget and left to expire."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection

from authserver import revoke, upkeep
from authserver.ledger import actions
from authserver.ledger.reservations import release
from authserver.revoke import Target
from tests.attacks.forge import claims_of
from tests.attacks.making import handed_on, record_of
from tests.settling import at_once, budget_of, eur, redeem, redeemed, settle, the_ledger_is_right, token_of
from tests.world import MERCHANT, PRICE_SCOUT, World, running_world

LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "15.00"}
FEW = 5


@pytest.fixture(autouse=True)
def _the_ledger_is_right(request: pytest.FixtureRequest) -> Iterator[None]:
    """Invariant 2, after every test of this file."""
    name = "strict" if "strict" in request.fixturenames else "world"
    running: World = request.getfixturevalue(name)
    yield
    the_ledger_is_right(running)


@pytest.fixture
def strict(database_url: str, tmp_path: Path) -> Iterator[World]:
    """A world where a delegation may have five open payments."""
    with running_world(database_url, tmp_path / "world", ledger={"open_reservations": FEW}) as running:
        yield running


def _pay(world: World, grant: str, value: str = "0.10", **changes: Any) -> httpx.Response:
    return world.exchange(grant, action=world.action(amount=eur(value), **changes))


def _too_many(world: World, answer: httpx.Response) -> None:
    body = world.refuses(answer, "invalid_authorization_details")
    assert body["violations"] == [{"constraint": "catalogue.open_reservations", "requested": 1, "allowed": 0}]


# --- what expired is given back --------------------------------------------------------------------------------------


def test_A78_all_that_expired_is_given_back_to_whoever_asks_next(world: World) -> None:
    rules = [{"amount": "15.00", "period": "P1D"}]
    granted = world.granted(limits=LIMITS | {"count": 150, "per_period": rules})
    for _ in range(150):
        assert _pay(world, granted.grant).status_code == 200
    budget = budget_of(world, granted.grant_id)
    assert (budget.reserved, budget.action_count, budget.open_count) == (1500, 150, 150)
    world.clock.advance(seconds=119)
    with world.nothing_happens("limits.total"):
        assert _pay(world, granted.grant, "15.00").status_code == 400
    world.clock.advance(seconds=1)
    assert _pay(world, granted.grant, "15.00").status_code == 200
    budget = budget_of(world, granted.grant_id)
    assert (budget.reserved, budget.action_count, budget.open_count) == (1500, 1, 1)
    assert world.rows().in_windows == 1500


def test_A78_upkeep_gives_back_what_expired_in_many_delegations(world: World) -> None:
    parent = world.granted(limits=LIMITS | {"total": "300.00"}, redelegation={"depth": 1})
    child = handed_on(world, parent)
    other = world.granted(limits=LIMITS)
    scout = world.assertion(PRICE_SCOUT)
    rules = world.granted(limits=LIMITS | {"per_period": [{"amount": "1.00", "period": "PT1H"}]})
    for _ in range(5):
        for granted in (parent, other, rules):
            assert _pay(world, granted.grant).status_code == 200
        action = world.action(amount=eur("0.10"))
        assert world.exchange(child.grant, action=action, actor_token=scout).status_code == 200
    lapsing = redeemed(world, token_of(world, parent.grant, "7.00"), capture=False)
    assert budget_of(world, parent.grant_id).open_count == 10
    world.clock.advance(seconds=120)
    assert upkeep.tidy(world.services, world.clock.now()).reservations == 20
    assert world.rows().reserved == 0
    world.clock.advance(days=7)
    assert upkeep.tidy(world.services, world.clock.now()).reservations == 1
    for granted in (parent, child, other, rules):
        budget = budget_of(world, granted.grant_id)
        assert (budget.reserved, budget.authorized) == (0, 0)
        assert (budget.action_count, budget.open_count) == (0, 0)
    assert settle(world, f"{lapsing}/capture", {}).status_code == 409


def test_A78_what_is_given_back_at_once_by_many_is_given_back_once(world: World) -> None:
    granted = world.granted(limits=LIMITS)
    for _ in range(30):
        assert _pay(world, granted.grant, "0.50").status_code == 200
    world.clock.advance(seconds=120)
    now = world.clock.now()

    def send(number: int) -> httpx.Response:
        if number % 3 == 0:
            upkeep.tidy(world.services, now)
        return _pay(world, granted.grant, "1.50")

    answers = at_once(12, send)
    assert Counter(answer.status_code for answer in answers) == {200: 10, 400: 2}
    assert budget_of(world, granted.grant_id).open_count == 10


# --- how many may be open --------------------------------------------------------------------------------------------


def test_A78_no_more_payments_are_open_than_configured(strict: World) -> None:
    granted = strict.granted(limits=LIMITS)
    tokens = [token_of(strict, granted.grant, "0.10") for _ in range(FEW)]
    with strict.nothing_happens("catalogue.open_reservations"):
        _too_many(strict, _pay(strict, granted.grant))
    # Whoever uses its tokens is never in the way of itself.
    redeemed(strict, tokens[0])
    assert _pay(strict, granted.grant).status_code == 200
    redeemed(strict, tokens[1], capture=False)
    assert _pay(strict, granted.grant).status_code == 200
    assert redeem(strict, tokens[2], merchant={"country": "US"}).json()["voided"]
    assert _pay(strict, granted.grant).status_code == 200
    _too_many(strict, _pay(strict, granted.grant))
    strict.clock.advance(seconds=120)
    assert [_pay(strict, granted.grant).status_code for _ in range(FEW + 1)] == [200] * FEW + [400]


def test_A78_every_limit_that_is_crossed_is_told(strict: World) -> None:
    granted = strict.granted(limits=LIMITS | {"count": FEW})
    for _ in range(FEW):
        assert _pay(strict, granted.grant).status_code == 200
    answer = _pay(strict, granted.grant, "15.00", merchant=MERCHANT | {"country": "US"})
    told = strict.refuses(answer, "invalid_authorization_details")["violations"]
    assert {violation["constraint"] for violation in told} == {
        "catalogue.open_reservations",
        "limits.count",
        "limits.total",
        "merchants.countries",
    }


def test_A78_many_at_once_open_exactly_as_many_as_configured(strict: World) -> None:
    parent = strict.granted(limits=LIMITS, redelegation={"depth": 1})
    child = handed_on(strict, parent)
    scout = strict.assertion(PRICE_SCOUT)
    action = strict.action(amount=eur("0.10"))

    def send(number: int) -> httpx.Response:
        if number % 2:
            return strict.exchange(child.grant, action=action, actor_token=scout)
        return strict.exchange(parent.grant, action=action)

    answers = at_once(30, send)
    assert Counter(answer.status_code for answer in answers) == {200: FEW, 400: 30 - FEW}
    for answer in answers:
        if answer.status_code == 400:
            _too_many(strict, answer)
    assert record_of(strict, parent.grant_id).open_count == FEW


def test_A78_only_open_payments_count_and_only_for_their_own_delegation(strict: World) -> None:
    actions = ["catalog.search", "order.checkout", "payment.finalize", "refund.initiate"]
    granted, other = (strict.granted(limits=LIMITS, actions=actions) for _ in range(2))
    for _ in range(FEW):
        assert _pay(strict, granted.grant).status_code == 200
    for name in ("catalog.search", "order.checkout", "refund.initiate"):
        answers = [_pay(strict, granted.grant, actions=[name], reference="r-1") for _ in range(FEW + 1)]
        assert {answer.status_code for answer in answers} == {200}, name
    _too_many(strict, _pay(strict, granted.grant))
    assert _pay(strict, other.grant).status_code == 200


@pytest.mark.parametrize("kind", ["delegation", "agent", "task"])
def test_A78_what_a_revocation_ends_is_open_no_more(strict: World, kind: str) -> None:
    granted = strict.granted(limits=LIMITS)
    action = strict.action(amount=eur("0.10"))
    for _ in range(FEW):
        assert strict.exchange(granted.grant, action=action, task_id="t1").status_code == 200
    names = {"delegation": granted.grant_id, "agent": "basket-helper", "task": "t1"}
    target = Target(kind, names[kind])  # type: ignore[arg-type]
    revoke.revoke(strict.services, target, reason="a test", by="operator", now=strict.clock.now())
    assert budget_of(strict, granted.grant_id).open_count == 0


def test_A78_a_revocation_gives_back_all_where_another_is_quicker_with_some(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revoke, "_BATCH", 1)
    granted = world.granted(limits=LIMITS)
    first = claims_of(token_of(world, granted.grant, "1.00"))["jti"]
    token_of(world, granted.grant, "1.00")
    ended, go_on, stored, now = threading.Event(), threading.Event(), world.services.stored, world.clock.now()

    def end_the_first(connection: Connection) -> None:
        action = actions.find(connection, first)
        assert action is not None
        assert release(connection, action, "void", stored, now)
        ended.set()
        assert go_on.wait(4)

    target = Target("delegation", granted.grant_id)
    with ThreadPoolExecutor(2) as pool:
        ending = pool.submit(world.services.database.write, end_the_first)
        assert ended.wait(4)
        revoking = pool.submit(revoke.revoke, world.services, target, reason="a test", by="operator", now=now)
        assert not go_on.wait(0.3)
        go_on.set()
        ending.result()
        revoking.result()
    assert budget_of(world, granted.grant_id).open_count == 0
