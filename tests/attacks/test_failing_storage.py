"""Threat A127: the storage fails while something is revoked. The answer is 503, and nothing is claimed."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import func, select, text

from authserver import revoke
from authserver.actors.client_authentication import JWT_SPIFFE
from authserver.consent import Granted
from authserver.errors import Refusal
from authserver.revoke import Target
from authserver.schema import Revocation, table_of
from tests.conftest import BOTH
from tests.settling import eur, ledger, redeem, the_ledger_is_right
from tests.world import World, running_world

Fault = Callable[[World], AbstractContextManager[None]]


@contextmanager
def _impatient(url: str, folder: Path) -> Iterator[World]:
    database = {"url": url, "statement_timeout": 1_500}
    with running_world(url, folder / "world", database=database) as running:
        yield running
        the_ledger_is_right(running)


@pytest.fixture(params=BOTH)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A server that waits for its database no longer than 0.5 s, on each of the two."""
    with _impatient(request.getfixturevalue(f"{request.param}_url"), tmp_path) as running:
        yield running


# --- what fails -----------------------------------------------------------------------------------------------------


@contextmanager
def _sqlite_is_locked(world: World) -> Iterator[None]:
    """Another program has the write lock and does not let go."""
    other = sqlite3.connect(str(world.services.database.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.rollback()
    other.close()


@contextmanager
def _postgresql(world: World, *statements: str) -> Iterator[None]:
    """Another session has done that, in a transaction that does not end."""
    url = world.services.database.url
    with psycopg.connect(host=str(url.query["host"]), user=url.username, dbname=url.database) as other:
        for statement in statements:
            other.execute(statement.encode())
        yield
        other.rollback()


def _an_exchange_hangs(world: World) -> AbstractContextManager[None]:
    lock = 0x61757468  # the one of `db.hold_off_revocations`
    return _postgresql(world, f"SELECT pg_advisory_xact_lock_shared({lock})")


def _a_table_is_locked(world: World) -> AbstractContextManager[None]:
    return _postgresql(world, "LOCK TABLE revocations, audit_events, actions IN EXCLUSIVE MODE")


@contextmanager
def _postgresql_is_read_only(world: World) -> Iterator[None]:
    """What was the primary is a standby, as after a fail-over that nobody told the server of."""
    database = world.services.database
    change = f"ALTER DATABASE {database.url.database} SET default_transaction_read_only = %s"

    def alter(value: str) -> None:
        with psycopg.connect(
            host=str(database.url.query["host"]), user=database.url.username, dbname="postgres"
        ) as other:
            other.execute((change % value).encode())

    alter("on")
    database.engine.dispose()
    yield
    alter("off")
    database.engine.dispose()


@contextmanager
def _writes_fail(world: World, table: str, change: str) -> Iterator[None]:
    """The disk is full as soon as something is written to that table."""
    database, name = world.services.database, f"full_{table}"
    if database.is_sqlite:
        broken = "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        make = [f"CREATE TRIGGER {name} BEFORE {change} ON {table} {broken}"]
        undo = [f"DROP TRIGGER {name}"]
    else:
        broken = "BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END"
        make = [
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${broken}$$",
            f"CREATE TRIGGER {name} BEFORE {change} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()",
        ]
        undo = [f"DROP FUNCTION {name} CASCADE"]

    def run(statements: list[str]) -> None:
        database.write(lambda connection: [connection.execute(text(one)) for one in statements])

    run(make)
    yield
    run(undo)


STALLED: dict[str, tuple[str, Fault]] = {
    "sqlite_is_locked": ("sqlite", _sqlite_is_locked),
    "an_exchange_hangs": ("postgresql", _an_exchange_hangs),
    "a_table_is_locked": ("postgresql", _a_table_is_locked),
    "postgresql_is_read_only": ("postgresql", _postgresql_is_read_only),
}
WRITES = {
    "revocations": ("revocations", "INSERT"),
    "audit_events": ("audit_events", "INSERT"),
    "actions": ("actions", "UPDATE"),
    "transfers": ("transfers", "INSERT"),
    "budgets": ("budgets", "UPDATE"),
}


def _several(cases: Mapping[str, tuple[str, str]], but: str = "") -> list[Any]:
    return [pytest.param(*case, id=name) for name, case in cases.items() if name != but]


# --- what is revoked ------------------------------------------------------------------------------------------------


def _post_revoke(world: World, token: str) -> httpx.Response:
    proof = {"client_assertion_type": JWT_SPIFFE, "client_assertion": world.assertion()}
    return world.post("/oauth/revoke", proof | {"token": token})


def _is_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"] == "temporarily_unavailable"
    assert answer.headers["retry-after"] == "1"


def _target(world: World, granted: Granted, kind: str) -> Target:
    names = {"delegation": granted.grant_id, "agent": "basket-helper", "task": "t1", "all": ""}
    names |= {"trust_domain": "example.org"}
    return Target(kind, names[kind])  # type: ignore[arg-type]


def _revoke(world: World, target: Target) -> None:
    revoke.revoke(world.services, target, reason="a test", by="operator", now=world.clock.now())


def _everything(world: World) -> tuple[Any, int, int]:
    count = select(func.count()).select_from(table_of(Revocation))
    revocations = world.services.database.read(lambda connection: int(connection.scalar(count) or 0))
    return ledger(world), revocations, len(world.events())


def _stands(world: World, granted: Granted, token: str) -> None:
    assert world.introspect(token)["active"]
    assert world.exchange(granted.grant).status_code == 200


def _is_over(world: World, granted: Granted, token: str) -> None:
    assert world.introspect(token) == {"active": False}
    assert redeem(world, token).status_code == 409
    assert world.rows().reserved == 0


def _start(world: World) -> tuple[Granted, str]:
    granted = world.granted()
    action = world.action(amount=eur("10.00"))
    answer = world.exchange(granted.grant, action=action, task_id="t1")
    return granted, answer.json()["access_token"]


@pytest.fixture(params=STALLED)
def stalling(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[World, Fault]]:
    """A server on the database whose fault it is, and the fault."""
    of, fault = STALLED[request.param]
    with _impatient(request.getfixturevalue(f"{of}_url"), tmp_path) as running:
        yield running, fault


# --- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["token", "grant"])
def test_A127_an_agent_is_not_told_that_something_ended_while_the_storage_stalls(
    stalling: tuple[World, Fault], what: str
) -> None:
    world, fault = stalling
    granted, token = _start(world)
    shown = token if what == "token" else granted.grant
    before = _everything(world)
    with fault(world):
        answer = _post_revoke(world, shown)
    if (fault, what) == (_an_exchange_hangs, "token"):
        assert answer.status_code == 200  # the end of one token waits for no exchange
    else:
        _is_unavailable(answer)
        assert _everything(world) == before
        _stands(world, granted, token)
        assert _post_revoke(world, shown).status_code == 200
    assert world.introspect(token) == {"active": False}


@pytest.mark.parametrize("kind", ["delegation", "agent", "trust_domain", "task", "all"])
def test_A127_an_operator_is_told_that_nothing_ended_while_the_storage_stalls(
    stalling: tuple[World, Fault], kind: str
) -> None:
    world, fault = stalling
    granted, token = _start(world)
    before = _everything(world)
    with fault(world):
        with pytest.raises(Refusal) as refusal:
            _revoke(world, _target(world, granted, kind))
        assert (refusal.value.status, refusal.value.error) == (503, "temporarily_unavailable")
    assert _everything(world) == before
    _stands(world, granted, token)


# The end of a token is its action's; there is no row in `revocations`.
@pytest.mark.parametrize(("table", "change"), _several(WRITES, but="revocations"))
def test_A127_a_token_stands_when_any_write_of_its_revocation_fails(
    world: World, table: str, change: str
) -> None:
    granted, token = _start(world)
    before = ledger(world)
    with _writes_fail(world, table, change):
        _is_unavailable(_post_revoke(world, token))
    assert ledger(world) == before
    _stands(world, granted, token)
    assert _post_revoke(world, token).status_code == 200
    assert world.introspect(token) == {"active": False}


@pytest.mark.parametrize(("table", "change"), _several(WRITES))
def test_A127_a_delegation_has_ended_wholly_or_not_at_all_when_a_write_fails(
    world: World, table: str, change: str
) -> None:
    granted, token = _start(world)
    before = _everything(world)
    with _writes_fail(world, table, change):
        _is_unavailable(_post_revoke(world, granted.grant))
    if table in ("revocations", "audit_events"):
        assert _everything(world) == before
        _stands(world, granted, token)
        assert _post_revoke(world, granted.grant).status_code == 200
    else:
        # The revocation itself was recorded: nothing can be done with it, though what it held is not back yet.
        assert ledger(world) == before[0]
        assert world.introspect(token) == {"active": False}
        world.refuses(world.exchange(granted.grant), "invalid_request")
        assert _post_revoke(world, granted.grant).status_code == 200
    _is_over(world, granted, token)


def test_A127_a_revocation_whose_connection_breaks_before_its_commit_is_not_claimed(
    postgresql_url: str, tmp_path: Path
) -> None:
    with _impatient(postgresql_url, tmp_path) as world:
        granted, token = _start(world)
        before = _everything(world)
        # It waits for an exchange; whenever it does, the server ends its connection.
        with _an_exchange_hangs(world), _connections_break(world):
            with pytest.raises(Refusal) as refusal:
                _revoke(world, _target(world, granted, "delegation"))
            assert refusal.value.status == 503
        assert _everything(world) == before
        _stands(world, granted, token)


@contextmanager
def _connections_break(world: World) -> Iterator[None]:
    over = threading.Event()

    def keep_breaking() -> None:
        while not over.wait(0.02):
            with _postgresql(world, _END_WHO_WAITS):
                pass

    with ThreadPoolExecutor(1) as pool:
        breaking = pool.submit(keep_breaking)
        try:
            yield
        finally:
            over.set()
        breaking.result()


_END_WHO_WAITS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event = 'advisory'"
)
