"""Fault F07: clocks that jump and servers that disagree; no token outlives its life, no window counts double."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select

from authserver import upkeep
from authserver.app import build
from authserver.consent import Granted
from authserver.ledger.check import check
from authserver.resource_server import InvalidToken, Verifier
from authserver.schema import Action, Budget, BudgetWindow, table_of
from authserver.services import open_services
from authserver.upkeep import Steadiness
from tests.fakes import SettableClock
from tests.world import MARKET, World

LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "9000.00"}
LEEWAY = timedelta(seconds=30)
LIFE = timedelta(seconds=120)
JUMPS = [timedelta(hours=1), -timedelta(hours=1), timedelta(days=365), -timedelta(days=365)]


@pytest.fixture
def other(world: World) -> Iterator[World]:
    """A second server on the database of `world`, with a clock of its own."""
    clock = SettableClock(world.clock.now())
    services = open_services(world.services.settings, clock)
    client = httpx.Client(transport=httpx.WSGITransport(build(services)), base_url=world.url)
    with client:
        yield replace(world, services=services, clock=clock, client=client)
    services.database.dispose()


@pytest.fixture(autouse=True)
def _the_ledger_is_right(world: World) -> Iterator[None]:
    yield
    stored = world.services.stored
    assert world.services.database.read(lambda connection: list(check(connection, stored))) == []


def _pay(world: World, granted: Granted, value: str = "10.00") -> httpx.Response:
    action = world.action(amount={"currency": "EUR", "value": value})
    return world.exchange(granted.grant, action=action)


def _redeem(world: World, token: str) -> int:
    credentials = (world.market_id, world.market_secret)
    return world.client.post("/oauth/redeem", json={"token": token}, auth=credentials).status_code


def _is_worth_nothing(world: World, token: str) -> None:
    assert world.introspect(token) == {"active": False}
    assert _redeem(world, token) == 409


@pytest.mark.parametrize("minting", ["ahead", "behind"])
@pytest.mark.parametrize("judging", ["ahead", "behind"])
def test_F07_with_servers_twenty_seconds_apart_no_token_outlives_its_life_by_more_than_the_leeway(
    world: World, other: World, minting: str, judging: str
) -> None:
    servers = {"ahead": world, "behind": other}
    truth, granted = world.clock.now(), world.granted(limits=LIMITS)

    def it_is(seconds: float) -> None:
        world.clock.set(truth + timedelta(seconds=seconds + 10))
        other.clock.set(truth + timedelta(seconds=seconds - 10))

    it_is(60)
    token = _pay(servers[minting], granted).json()["access_token"]
    it_is(61)
    assert servers[judging].introspect(token)["active"]
    it_is(60 + LIFE.total_seconds() + LEEWAY.total_seconds())
    _is_worth_nothing(servers[judging], token)


@pytest.mark.parametrize("jump", JUMPS, ids=str)
def test_F07_a_token_made_while_the_clock_was_wrong_is_worth_nothing_when_it_is_right_again(
    world: World, jump: timedelta
) -> None:
    truth = world.clock.now()
    granted = world.granted(limits=LIMITS)
    world.clock.set(truth + jump)
    answer = _pay(world, granted)
    if answer.status_code != 200:  # the delegation is not valid at that time
        world.refuses(answer, "invalid_request")
        return
    token = answer.json()["access_token"]
    assert world.introspect(token)["active"]
    world.clock.set(truth + LEEWAY + timedelta(seconds=1))
    _is_worth_nothing(world, token)


@pytest.mark.parametrize("jump", JUMPS, ids=str)
def test_F07_a_token_outlives_no_jump_of_the_clock(world: World, jump: timedelta) -> None:
    truth = world.clock.now()
    granted = world.granted(limits=LIMITS)
    token = _pay(world, granted).json()["access_token"]
    world.clock.set(truth + jump)
    _is_worth_nothing(world, token)
    world.clock.set(truth + LIFE)
    _is_worth_nothing(world, token)


@pytest.mark.parametrize("jump", JUMPS, ids=str)
def test_F07_a_resource_server_that_verifies_by_itself_judges_alike(world: World, jump: timedelta) -> None:
    granted, clock = world.granted(limits=LIMITS), SettableClock(world.clock.now())
    verifier = Verifier(world.issuer, MARKET, clock=clock)
    token = _pay(world, granted).json()["access_token"]
    assert verifier.verify(token).expires_at == world.clock.now() + LIFE
    clock.set(world.clock.now() + jump)
    for each in (verifier, Verifier(world.issuer, MARKET, clock=clock)):
        with pytest.raises(InvalidToken):
            each.verify(token)


def test_F07_windows_never_double_while_two_clocks_jump(world: World, other: World) -> None:
    _wander(world, other, steps=60, seed=7)


@pytest.mark.prove
def test_F07_windows_never_double_however_long_two_clocks_jump(world: World, other: World) -> None:
    _wander(world, other, steps=3_000, seed=random.SystemRandom().randrange(1_000_000))


def _wander(world: World, other: World, *, steps: int, seed: int) -> None:
    """Two servers spend as much as they can of one delegation, while their clocks jump about."""
    chance, begin = random.Random(seed), world.clock.now()
    rules = [{"amount": "25.00", "period": "PT1H"}, {"amount": "60.00", "period": "P1D"}]
    limits = LIMITS | {"total": "400.00", "per_period": rules}
    begins = begin - timedelta(hours=3)
    granted = world.granted(limits=limits, not_before=begins.isoformat().replace("+00:00", "Z"))
    permitted = 0
    for _ in range(steps):
        server = chance.choice([world, other])
        jump = chance.choice([*JUMPS, *[timedelta(seconds=chance.choice([1, 20, -20, 1800, -1800]))] * 8])
        server.clock.set(server.clock.now() + jump)
        if abs(server.clock.now() - begin) > timedelta(days=2):
            assert _pay(server, granted).status_code == 400
            server.clock.set(begin + timedelta(seconds=chance.randrange(7200)))
        permitted += _pay(server, granted, chance.choice(["10.00", "7.50"])).status_code == 200
        if chance.random() < 0.1:
            upkeep.tidy(server.services, server.clock.now())
        _counts_once(world, begins)
    assert permitted > 5


def _counts_once(world: World, begins: object) -> None:
    """Each amount that is held counts in the window of its own instant, and no window holds more than it may."""

    def read(table: type) -> list[object]:
        return world.services.database.read(lambda c: c.execute(select(table_of(table))).all())

    (budget,) = read(Budget)
    held = [row for row in read(Action) if row.state == "reserved"]
    assert budget.reserved == sum(row.amount for row in held) <= budget.total_limit
    found = {(row.rule, row.window): row.spent for row in read(BudgetWindow) if row.spent}
    due: dict[tuple[int, int], int] = {}
    for row in held:
        for rule, hours in enumerate((1, 24)):
            window = (row.issued_at - begins) // timedelta(hours=hours)
            due[rule, window] = due.get((rule, window), 0) + row.amount
    assert found == due
    assert all(spent <= (2_500, 6_000)[rule] for (rule, _), spent in found.items())


# --- upkeep ------------------------------------------------------------------------------------------------------


@dataclass
class _Machine:
    """A machine whose two clocks go on together, until the one on the wall is set."""

    wall: SettableClock
    seconds: float = 0.0

    def go_on(self, seconds: float) -> None:
        """Time passes."""
        self.seconds += seconds
        self.wall.advance(seconds=seconds)


@pytest.mark.parametrize("jump", JUMPS, ids=str)
def test_F07_nothing_is_undone_by_a_clock_that_has_just_jumped(jump: timedelta) -> None:
    machine = _Machine(SettableClock())
    steady = Steadiness()

    def is_steady() -> bool:
        return steady.after(machine.wall.now(), machine.seconds)

    for _ in range(5):
        machine.go_on(5)
        assert is_steady()
    machine.wall.advance(seconds=jump.total_seconds())
    for _ in range(119):
        machine.go_on(5)
        assert not is_steady()
    machine.go_on(10)
    assert is_steady()


def test_F07_a_clock_that_is_corrected_little_by_little_is_believed() -> None:
    machine, steady = _Machine(SettableClock()), Steadiness()
    for _ in range(200):
        machine.go_on(5)
        machine.wall.advance(seconds=0.5)
        assert steady.after(machine.wall.now(), machine.seconds)
