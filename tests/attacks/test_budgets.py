"""Threats A70 and A71, and invariants 1, 2 and 5: budgets and revocations when many act at the same time."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey
from sqlalchemy import select
from structlog.testing import capture_logs

from authserver import exchange, revoke
from authserver.consent import Granted
from authserver.ledger.check import check
from authserver.revoke import Target
from authserver.schema import Action, BudgetWindow, table_of
from tests.attacks.making import dpop_proof, handed_on, named, record_of
from tests.attacks.serving import configuration, serving
from tests.world import MARKET, PRICE_SCOUT, World

LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "9000.00"}
SCOPE = {"authorization_details": None, "scope": "catalog.search", "resource": MARKET}


@pytest.fixture(autouse=True)
def _the_ledger_is_right(request: pytest.FixtureRequest) -> Iterator[None]:
    """Invariant 2, after every test of this file: the running totals are the sums of the transfers."""
    world: World = request.getfixturevalue("world")
    yield
    stored = world.services.stored
    assert world.services.database.read(lambda connection: list(check(connection, stored))) == []


def _ten_euros(world: World) -> dict[str, Any]:
    return world.action(amount={"currency": "EUR", "value": "10.00"})


def _at_once(
    world: World, many: int, send: Callable[[int, dict[str, str]], httpx.Response]
) -> list[httpx.Response]:
    """Send so many requests at the same moment, each from a thread of its own."""
    together = threading.Barrier(many)
    # On SQLite everybody waits for a turn; on PostgreSQL a busy machine may have no connection left.
    tries = 1 if world.services.database.is_sqlite else 20

    def one(number: int) -> httpx.Response:
        together.wait()
        for _ in range(tries):
            # Contract §6: after a 503 again, under the same key.
            answer = send(number, {"Idempotency-Key": f"attack-{number}"})
            if answer.status_code != 503:
                break
        return answer

    with ThreadPoolExecutor(many) as pool, capture_logs() as logs:
        answers = list(pool.map(one, range(many)))
    # The conditional updates are the check; the constraints of the tables only stand behind them.
    assert [event for event in logs if event.get("error") == "IntegrityError"] == []
    return answers


def _refusals(answers: list[httpx.Response]) -> Counter[str]:
    """How many were refused by which limit; all others were allowed."""
    refused = [answer.json() for answer in answers if answer.status_code != 200]
    assert {body["error"] for body in refused} <= {"invalid_authorization_details"}, refused[:3]
    return Counter(violation["constraint"] for body in refused for violation in body["violations"])


# --- A70: one delegation ---------------------------------------------------------------------------------------------

COVERS_TEN = {
    "total": LIMITS | {"total": "100.00"},
    "total_and_some": LIMITS | {"total": "109.99"},
    "count": LIMITS | {"count": 10},
    "per_period": LIMITS | {"per_period": [{"amount": "100.00", "period": "P1D"}]},
    "per_period_of_a_category": LIMITS
    | {"per_period": [{"amount": "100.00", "period": "P1M", "categories": ["5411"]}]},
}


@pytest.mark.parametrize("limits", named(COVERS_TEN))
def test_A70_a_hundred_at_once_get_exactly_what_the_budget_covers(
    world: World, limits: dict[str, Any]
) -> None:
    granted = world.granted(limits=limits)
    action, events = _ten_euros(world), len(world.events())
    answers = _at_once(
        world, 100, lambda _, headers: world.exchange(granted.grant, action=action, headers=headers)
    )
    assert Counter(answer.status_code for answer in answers) == {200: 10, 400: 90}
    (constraint,) = _refusals(answers)
    assert constraint.removeprefix("limits.") in ("total", "count", "per_period")
    rows = world.rows()
    assert (rows.actions, rows.transfers, rows.counted, rows.reserved) == (10, 10, 10, 10_000)
    told = Counter(event["event"] for event in world.events()[events:])
    assert told == {"exchange.permitted": 10, "exchange.refused": 90}


def test_A70_different_amounts_at_once_stay_within_the_total(world: World) -> None:
    granted = world.granted(limits=LIMITS | {"total": "100.00"})

    def send(number: int, headers: dict[str, str]) -> httpx.Response:
        action = world.action(amount={"currency": "EUR", "value": f"{number % 7 + 1}.37"})
        return world.exchange(granted.grant, action=action, headers=headers)

    answers = _at_once(world, 100, send)
    paid = [a.json()["authorization_details"][0]["amount"]["value"] for a in answers if a.status_code == 200]
    cents = sum(int(value.replace(".", "")) for value in paid)
    assert world.rows().reserved == cents
    assert 10_000 - 137 < cents <= 10_000  # not even the smallest fits any more


def test_A70_what_expired_tokens_held_is_given_to_exactly_as_many(world: World) -> None:
    granted, action = world.granted(limits=COVERS_TEN["total"]), _ten_euros(world)
    for _ in range(10):
        assert world.exchange(granted.grant, action=action).status_code == 200
    world.clock.advance(seconds=121)
    answers = _at_once(
        world, 60, lambda _, headers: world.exchange(granted.grant, action=action, headers=headers)
    )
    assert Counter(answer.status_code for answer in answers) == {200: 10, 400: 50}
    assert world.rows().reserved == 10_000


def test_A70_none_is_refused_for_what_an_expired_token_holds(world: World) -> None:
    granted, action = world.granted(limits=COVERS_TEN["total"]), _ten_euros(world)
    for _ in range(10):
        assert world.exchange(granted.grant, action=action).status_code == 200
    world.clock.advance(seconds=121)
    answers = _at_once(
        world, 10, lambda _, headers: world.exchange(granted.grant, action=action, headers=headers)
    )
    assert Counter(answer.status_code for answer in answers) == {200: 10}


# --- A71: a tree of delegations and several processes ---------------------------------------------------------------


@dataclass
class Tree:
    """A delegation with two below it, and one below the first of these; agents take turns."""

    world: World
    root: Granted
    left: Granted = field(init=False)
    right: Granted = field(init=False)
    below: Granted = field(init=False)

    def __post_init__(self) -> None:
        """Hand on; `left` has 40.00 for itself and `below`."""
        world = self.world
        few = world.delegation(limits=LIMITS | {"total": "40.00"})
        self.left = handed_on(world, self.root, "price-scout", few)
        self.right = handed_on(world, self.root, "price-scout")
        self.below = handed_on(world, self.left, "basket-helper")

    def form(self, number: int) -> dict[str, str]:
        """The request of one of the four, in turn."""
        granted = (self.root, self.left, self.right, self.below)[number % 4]
        scout = granted in (self.left, self.right)
        assertion = self.world.assertion(PRICE_SCOUT) if scout else self.world.assertion()
        return self.world.form(granted.grant, action=_ten_euros(self.world), actor_token=assertion)

    def spent(self) -> dict[str, tuple[int, int]]:
        """(cents held, count) of each of the four."""
        records = {name: record_of(self.world, getattr(self, name).grant_id) for name in self._NAMES}
        return {name: (record.total_spent, record.action_count) for name, record in records.items()}

    def paid(self) -> Counter[str]:
        """How many actions each of the four has itself."""
        table, ids = table_of(Action), {getattr(self, name).grant_id: name for name in self._NAMES}
        query = select(table.c.delegation_id).where(table.c.root_id == self.root.grant_id)
        found = self.world.services.database.read(lambda c: c.scalars(query).all())
        return Counter(ids[delegation_id] for delegation_id in found)

    def is_exact(self) -> None:
        """Each holds just what it and those below it have paid."""
        paid = self.paid()
        left = paid["left"] + paid["below"]
        counts = {"root": paid.total(), "left": left, "right": paid["right"], "below": paid["below"]}
        assert self.spent() == {name: (1000 * count, count) for name, count in counts.items()}

    _NAMES = ("root", "left", "right", "below")


def test_A71_children_and_siblings_at_once_stay_within_every_ancestor(world: World) -> None:
    tree = Tree(world, world.granted(limits=COVERS_TEN["total"], redelegation={"depth": 2}))
    answers = _at_once(
        world, 100, lambda number, headers: world.post("/oauth/token", tree.form(number), headers)
    )
    assert Counter(answer.status_code for answer in answers) == {200: 10, 400: 90}
    assert tree.paid()["left"] + tree.paid()["below"] <= 4
    tree.is_exact()


def test_A71_a_period_of_an_ancestor_bounds_all_below_it(world: World) -> None:
    limits = COVERS_TEN["per_period"] | {"count": 9}
    tree = Tree(world, world.granted(limits=limits, redelegation={"depth": 2}))
    answers = _at_once(
        world, 60, lambda number, headers: world.post("/oauth/token", tree.form(number), headers)
    )
    assert Counter(answer.status_code for answer in answers) == {200: 9, 400: 51}
    table = table_of(BudgetWindow)
    query = select(table.c.spent).where(table.c.delegation_id == tree.root.grant_id)
    assert world.services.database.read(lambda c: c.scalars(query).all()) == [9000]
    tree.is_exact()


@pytest.fixture
def processes(world: World, tmp_path: Path) -> Iterator[list[httpx.Client]]:
    """Eight server processes behind two addresses, and the world's own, all on one database."""
    configured = configuration(world, tmp_path)
    with ExitStack() as opened:
        served = [opened.enter_context(serving(configured, workers=4)) for _ in range(2)]
        clients = [httpx.Client(base_url=server.url, timeout=30) for server in served]
        yield [opened.enter_context(client) for client in clients] + [world.client]


def test_A71_eight_processes_share_one_budget_exactly(world: World, processes: list[httpx.Client]) -> None:
    granted = world.granted(limits=COVERS_TEN["total"])
    form = world.form(granted.grant, action=_ten_euros(world))

    def send(number: int, headers: dict[str, str]) -> httpx.Response:
        return processes[number % 3].post("/oauth/token", data=form, headers=headers)

    answers = _at_once(world, 100, send)
    assert Counter(answer.status_code for answer in answers) == {200: 10, 400: 90}
    assert set(_refusals(answers)) == {"limits.total"}
    assert (world.rows().actions, world.rows().reserved) == (10, 10_000)
    _share_a_tree(world, processes)
    _share_what_is_good_once(world, processes)
    _share_a_revocation(world, processes)


def _share_a_tree(world: World, processes: list[httpx.Client]) -> None:
    tree = Tree(world, world.granted(limits=COVERS_TEN["total"], redelegation={"depth": 2}))

    def send(number: int, headers: dict[str, str]) -> httpx.Response:
        key = {"Idempotency-Key": f"tree-{headers['Idempotency-Key']}"}
        return processes[number // 4 % 3].post("/oauth/token", data=tree.form(number), headers=key)

    answers = _at_once(world, 96, send)
    assert Counter(answer.status_code for answer in answers) == {200: 10, 400: 86}
    tree.is_exact()


def _share_what_is_good_once(world: World, processes: list[httpx.Client]) -> None:
    """One idempotency key makes one action, and one DPoP proof one token, wherever they are sent."""
    form, actions = world.form(world.granted(limits=LIMITS).grant), world.rows().actions
    proof = {"DPoP": dpop_proof(world, ECKey.generate_key("P-256"))}
    for header in ({"Idempotency-Key": "the-same-everywhere"}, proof):
        answers = _at_once(
            world,
            30,
            lambda n, _, same=header: processes[n % 3].post("/oauth/token", data=form, headers=same),
        )
        told = [answer.json() for answer in answers]
        assert len({body["action_id"] for body in told if "action_id" in body}) == 1
        assert {body.get("error") for body in told} <= {None, "invalid_dpop_proof"}
    assert world.rows().actions == actions + 2


def _share_a_revocation(world: World, processes: list[httpx.Client]) -> None:
    granted = world.granted(limits=LIMITS)
    form = world.form(granted.grant, action=_ten_euros(world))
    _race(
        world,
        Target("delegation", granted.grant_id),
        lambda number: processes[number % 3].post("/oauth/token", data=form),
    )
    assert record_of(world, granted.grant_id).total_spent == 0


# --- revocations that race (A94, invariant 5) -----------------------------------------------------------------------


def _target(world: World, granted: Granted, kind: str) -> Target:
    record = record_of(world, granted.grant_id)
    names = {"delegation": record.id, "agent": record.client_id, "user": record.user_id}
    names |= {"trust_domain": record.trust_domain, "all": "", "task": "t1"}
    return Target(kind, names[kind])  # type: ignore[arg-type]


def _revoke(world: World, target: Target) -> None:
    revoke.revoke(world.services, target, reason="a test", by="operator", now=world.clock.now())


KINDS = ("delegation", "agent", "user", "trust_domain", "all", "task")


def _race(world: World, target: Target, ask: Callable[[int], httpx.Response]) -> None:
    """Revoke while eight threads keep asking; what was minted was minted before it."""
    answered, ended, before = Counter[int](), threading.Event(), world.rows().actions

    def keep_asking(number: int) -> int:
        after = 0
        while after < 3:
            late = ended.is_set()
            answered[ask(number).status_code] += 1
            after += late
        return after

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(keep_asking, number) for number in range(8)]
        while answered[200] < 20:
            assert not any(thread.done() for thread in asking)
        _revoke(world, target)
        minted = world.rows().actions
        ended.set()
        assert [thread.result() for thread in asking] == [3] * 8
    assert set(answered) == {200, 400}
    assert world.rows().actions == minted == before + answered[200]
    # What was permitted was written before the revocation, in the order that the locks enforce.
    events = [event["event"] for event in world.events()]
    assert "exchange.permitted" not in events[events.index("revocation") :]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_minted_after_a_revocation_that_races(world: World, kind: str) -> None:
    granted = world.granted(limits=LIMITS)
    form = world.form(granted.grant, action=_ten_euros(world), task_id="t1")
    _race(world, _target(world, granted, kind), lambda _: world.post("/oauth/token", form))
    _all_is_given_back(world)


def _all_is_given_back(world: World) -> None:
    table = table_of(Action)
    states = world.services.database.read(lambda c: set(c.scalars(select(table.c.state)).all()))
    rows = world.rows()
    assert (states, rows.reserved, rows.counted, rows.in_windows) == ({"voided"}, 0, 0, 0)


class _Pause:
    """Stands in the way of a function until it is told to go on."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self.real, self.reached, self.go_on = real, threading.Event(), threading.Event()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.reached.set()
        assert self.go_on.wait(4)
        return self.real(*arguments, **named)


def _is_waiting(future: "Future[Any]") -> bool:
    """Whether it is still not done after a moment that would do."""
    threading.Event().wait(0.3)
    return not future.done()


@pytest.mark.parametrize("kind", ["delegation", "all"])
def test_a_revocation_waits_for_the_exchange_that_is_under_way(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = world.granted(limits=LIMITS)
    pause = _Pause(exchange.reserve)
    monkeypatch.setattr(exchange, "reserve", pause)
    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(lambda: world.exchange(granted.grant, action=_ten_euros(world), task_id="t1"))
        assert pause.reached.wait(4)
        ending = pool.submit(_revoke, world, _target(world, granted, kind))
        assert _is_waiting(ending)
        pause.go_on.set()
        token = asking.result().json()["access_token"]
        ending.result()
    _all_is_given_back(world)
    assert world.introspect(token) == {"active": False}


@pytest.mark.parametrize("kind", ["delegation", "all"])
def test_an_exchange_waits_for_the_revocation_that_is_under_way(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = world.granted(limits=LIMITS)
    target = _target(world, granted, kind)
    locked, go_on, wait_for_exchanges = threading.Event(), threading.Event(), revoke.wait_for_exchanges

    def lock_and_linger(connection: Any) -> None:
        wait_for_exchanges(connection)
        locked.set()
        assert go_on.wait(4)

    monkeypatch.setattr(revoke, "wait_for_exchanges", lock_and_linger)
    with ThreadPoolExecutor(2) as pool:
        ending = pool.submit(_revoke, world, target)
        assert locked.wait(4)
        asking = pool.submit(lambda: world.exchange(granted.grant, task_id="t1"))
        assert _is_waiting(asking)
        go_on.set()
        ending.result()
        world.refuses(asking.result(), "invalid_request")
    assert world.rows().actions == 0


@pytest.mark.parametrize("kind", ["user", "task"])
def test_a_revocation_by_a_server_whose_clock_is_behind_gives_back_all_the_same(
    world: World, kind: str
) -> None:
    granted = world.granted(limits=LIMITS)
    world.clock.advance(seconds=20)
    assert world.exchange(granted.grant, action=_ten_euros(world), task_id="t1").status_code == 200
    world.clock.advance(seconds=-20)
    _revoke(world, _target(world, granted, kind))
    _all_is_given_back(world)


@pytest.mark.parametrize("kind", ["agent", "user", "trust_domain", "all"])
def test_what_is_granted_after_a_revocation_stands(world: World, kind: str) -> None:
    granted = world.granted(limits=LIMITS)
    _revoke(world, _target(world, granted, kind))
    again = world.granted(limits=LIMITS)
    token = world.exchange(again.grant, action=_ten_euros(world)).json()["access_token"]
    _revoke(world, Target("delegation", granted.grant_id))
    assert world.introspect(token)["active"]
    assert world.rows().reserved == 1000


def test_a_revocation_reaches_no_delegation_whose_id_only_looks_alike(world: World) -> None:
    # An underscore stands for any character in LIKE, and SQLite's LIKE knows no letter case (A123).
    root = world.granted(redelegation={"depth": 2}, limits=LIMITS)
    children = {name: handed_on(world, root, child_id=name) for name in ("a_c", "abc", "A_C")}
    below = {name: handed_on(world, child, "basket-helper") for name, child in children.items()}
    for grant in below.values():
        assert world.exchange(grant.grant, action=_ten_euros(world)).status_code == 200
    _revoke(world, Target("delegation", "a_c"))
    held = {name: record_of(world, grant.grant_id).total_spent for name, grant in below.items()}
    assert held == {"a_c": 0, "abc": 1000, "A_C": 1000}
    answers = {name: world.exchange(grant.grant, **SCOPE).status_code for name, grant in below.items()}
    assert answers == {"a_c": 400, "abc": 200, "A_C": 200}


def test_what_a_slow_clock_reserves_counts_in_the_window_of_its_own_instant(world: World) -> None:
    # Two servers, 20 s apart, around the edge of a window: each amount counts once, in one window.
    rule = {"amount": "10.00", "period": "PT1H"}
    begin = world.clock.now()
    granted = world.granted(
        limits=LIMITS | {"per_period": [rule]}, not_before=begin.isoformat().replace("+00:00", "Z")
    )
    edge = begin + timedelta(hours=1)
    for instant, status in ((edge, 200), (edge - timedelta(seconds=20), 200), (edge, 400)):
        world.clock.set(instant)
        assert world.exchange(granted.grant, action=_ten_euros(world)).status_code == status
    world.clock.set(edge - timedelta(seconds=20))
    assert world.exchange(granted.grant, action=_ten_euros(world)).status_code == 400
    assert world.rows().in_windows == 2000
