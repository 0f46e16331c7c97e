"""Faults F03 and F06: PostgreSQL is killed, started again, taken over by a standby; transactions meet, and are retried.

What a server sees of a fail-over is tried one by one as well: dead connections, a demoted primary, a commit in doubt.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import Connection, text

from authserver.db import Database, hold_off_revocations, wait_for_exchanges
from authserver.errors import Refusal
from tests.attacks.serving import configuration
from tests.faults.clusters import Node, durable_node, primary_and_standby
from tests.faults.servers import Server, server
from tests.faults.storm import Storm, storm
from tests.make import migrate
from tests.postgresql import Cluster
from tests.world import World, running_world

# --- F03: the database goes away ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(postgresql_cluster: Cluster) -> Iterator[Node]:
    """A PostgreSQL with fsync, where there is one at all."""
    with durable_node() as running:
        yield running


def _some_answers(shopping: Storm, many: int = 20) -> None:
    """Wait until so many requests more are answered."""
    before, deadline = shopping.answers, time.monotonic() + 40
    while shopping.answers < before + many:
        shopping.goes_on()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _says_so_meanwhile(running: Server, form: dict[str, str]) -> None:
    """While there is no database: 503, soon, and a time to come back."""
    begun = time.monotonic()
    answers = [httpx.post(f"{running.url}/oauth/token", data=form, timeout=20) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503] * 4, answers[0].text
    assert {answer.json()["error"] for answer in answers} == {"temporarily_unavailable"}
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}
    assert httpx.get(f"{running.url}/healthz", timeout=20).status_code == 200
    assert httpx.get(f"{running.url}/readyz", timeout=20).status_code == 503
    assert time.monotonic() - begun < 10


@dataclass
class Kills:
    """How PostgreSQL dies."""

    node: Node
    chance: random.Random

    def once(self, meanwhile: Callable[[], None]) -> None:
        """One of three ways; `meanwhile` is run while it is away for good."""
        way = self.chance.choice(["all", "all", "backend"])
        if way == "backend":
            # The postmaster then ends all the others, and recovers by itself.
            with suppress(ProcessLookupError, IndexError):
                os.kill(self.chance.choice(self.node.processes()[1:]), signal.SIGKILL)
            return
        self.node.kill()
        meanwhile()
        self.node.start()


def _killed(node: Node, folder: Path, kills: int, seed: int) -> str:
    url = node.url(node.create())
    migrate(url)
    begun, chance = time.monotonic(), random.Random(seed)
    with (
        running_world(url, folder / "world") as world,
        server(configuration(world, folder), workers=2) as running,
    ):
        with storm(world, running.url, seed=seed) as shopping:
            for _ in range(kills):
                _some_answers(shopping)
                time.sleep(chance.uniform(0, 0.3))
                Kills(node, chance).once(lambda: None)
            _some_answers(shopping)
            shopping.end()
        shopping.has_done_exactly_this()
        running.wait_until_ready()
    return (
        f"kills={kills} answers={shopping.answers} resent={shopping.resent} {time.monotonic() - begun:.0f} s"
    )


def test_F03_a_killed_postgresql_is_said_with_503_and_nothing_acknowledged_is_lost(
    node: Node, tmp_path: Path
) -> None:
    url = node.url(node.create())
    migrate(url)
    with (
        running_world(url, tmp_path / "world") as world,
        server(configuration(world, tmp_path), workers=2) as running,
    ):
        form = world.form(world.granted().grant)
        with storm(world, running.url) as shopping:
            _some_answers(shopping)
            node.kill()
            _says_so_meanwhile(running, form)
            # A worker that dies now is replaced, and its successor waits for the database.
            os.kill(running.workers[0], signal.SIGKILL)
            time.sleep(1)
            shopping.goes_on()
            node.start()
            shopping.holds(shopping.answered())
            _some_answers(shopping)
            shopping.end()
        shopping.has_done_exactly_this()
        assert len(running.workers) == 2
        running.wait_until_ready()


def test_F03_a_postgresql_killed_in_a_storm_loses_and_doubles_nothing(node: Node, tmp_path: Path) -> None:
    _killed(node, tmp_path, kills=3, seed=3)


@pytest.mark.prove
def test_F03_a_postgresql_killed_a_hundred_times_loses_and_doubles_nothing(
    node: Node, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    print(_killed(node, tmp_path, kills=100, seed=seed))


def test_F03_a_standby_takes_over_and_every_acknowledged_write_is_there(
    postgresql_cluster: Cluster, tmp_path: Path
) -> None:
    with primary_and_standby() as (primary, standby):
        name = primary.create()
        hosts = quote(f"{primary.folder},{standby.folder}", safe="")
        url = f"postgresql+psycopg://postgres@/{name}?host={hosts}&target_session_attrs=read-write"
        migrate(url)
        with (
            running_world(url, tmp_path / "world") as world,
            server(configuration(world, tmp_path), workers=2) as running,
        ):
            with storm(world, running.url) as shopping:
                _some_answers(shopping, 60)
                primary.kill()
                answered = shopping.answered()
                time.sleep(0.3)
                standby.ask("SELECT pg_promote()")
                shopping.holds(answered)
                _some_answers(shopping)
                shopping.end()
            shopping.has_done_exactly_this()


@pytest.fixture
def small(postgresql_url: str) -> Iterator[Database]:
    """A database that is spoken to over one connection, with some numbers in it."""
    database = Database(postgresql_url, pool_size=1)
    database.write(lambda c: c.execute(text("CREATE TABLE numbers (id int PRIMARY KEY, n int)")))
    database.write(lambda c: c.execute(text("INSERT INTO numbers VALUES (1, 0), (2, 0)")))
    yield database
    database.dispose()


def _plus_one(connection: Connection) -> None:
    connection.execute(text("UPDATE numbers SET n = n + 1 WHERE id = 1"))


def _number(database: Database) -> int:
    return database.read(lambda c: int(c.scalar(text("SELECT n FROM numbers WHERE id = 1"))))


@pytest.mark.parametrize("way", ["write", "read"])
def test_F03_a_dead_connection_of_the_pool_is_noticed_by_nobody(small: Database, way: str) -> None:
    pid = small.read(lambda c: c.scalar(text("SELECT pg_backend_pid()")))
    other = Database(small.url.render_as_string(hide_password=False))
    other.write(lambda c: c.execute(text(f"SELECT pg_terminate_backend({pid}, 5000)")))
    other.dispose()
    if way == "write":
        small.write(_plus_one)
    assert _number(small) == (1 if way == "write" else 0)


def test_F03_a_connection_to_a_primary_that_was_demoted_is_left(small: Database) -> None:
    # What a fail-over makes of it, seen from an old connection.
    small.write(lambda c: c.execute(text("SET default_transaction_read_only = on")))
    small.write(_plus_one)
    assert _number(small) == 1


def test_F03_a_commit_whose_fate_is_unknown_is_not_done_again(small: Database) -> None:
    ran = []

    def work(connection: Connection) -> None:
        ran.append(1)
        _plus_one(connection)
        # The session ends in the middle of the commit, after a deferred trigger has begun to run.
        connection.execute(text("INSERT INTO ended VALUES (pg_backend_pid())"))

    small.write(
        lambda c: c.execute(
            text(
                """
                CREATE TABLE ended (pid int);
                CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_terminate_backend(NEW.pid); RETURN NULL; END $$;
                CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON ended
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION end_session();
                """
            )
        )
    )
    with pytest.raises(Refusal) as refused:
        small.write(work)
    assert (refused.value.status, len(ran)) == (503, 1)
    assert _number(small) == 0


def test_F03_who_is_stopped_in_the_middle_of_an_exchange_holds_off_revocations_only_so_long(
    postgresql_url: str,
) -> None:
    stopped, patient = Database(postgresql_url, statement_timeout=300), Database(postgresql_url)
    begun, go_on = threading.Event(), threading.Event()

    def exchange(connection: Connection) -> None:
        hold_off_revocations(connection)
        begun.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor() as pool:
        running = pool.submit(stopped.write, exchange)
        assert begun.wait(5)
        at = time.monotonic()
        patient.write(wait_for_exchanges)
        assert time.monotonic() - at < 3
        go_on.set()
        with pytest.raises(Refusal):  # its session had ended, and with it all that it had done
            running.result()
    stopped.write(exchange)
    stopped.dispose()
    patient.dispose()


# --- F06: transactions that meet ---------------------------------------------------------------------------------

STATES = {"serialization failure": "40001", "deadlock": "40P01", "lock time-out": "55P03"}
# Each insertion of an action counts on, also where its transaction is rolled back; the first so many fail.
_FAILING = """
    CREATE SEQUENCE attempts;
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('attempts') <= {times} THEN RAISE EXCEPTION 'as told' USING ERRCODE = '{state}'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER fail BEFORE INSERT ON actions FOR EACH ROW EXECUTE FUNCTION fail();
"""


@pytest.fixture
def postgresql_world(postgresql_url: str, tmp_path: Path) -> Iterator[World]:
    """A server on PostgreSQL."""
    with running_world(postgresql_url, tmp_path / "world") as running:
        yield running


def _let_fail(world: World, state: str, times: int) -> None:
    world.services.database.write(lambda c: c.execute(text(_FAILING.format(times=times, state=state))))


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_F06_a_conflict_is_retried_and_the_client_notices_nothing(
    postgresql_world: World, state: str
) -> None:
    world = postgresql_world
    granted = world.granted()
    _let_fail(world, state, times=3)
    assert world.exchange(granted.grant).status_code == 200
    rows = world.rows()
    assert (rows.actions, rows.transfers, rows.counted, rows.reserved) == (1, 1, 1, 4250)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_F06_a_conflict_that_does_not_end_is_a_503_within_bounds(postgresql_world: World, state: str) -> None:
    world = postgresql_world
    granted, before = world.granted(), world.rows()
    _let_fail(world, state, times=1_000_000)
    begun = time.monotonic()
    answer = world.exchange(granted.grant, headers={"Idempotency-Key": "k"})
    assert time.monotonic() - begun < 3
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert world.rows() == before
    world.services.database.write(lambda c: c.execute(text("DROP TRIGGER fail ON actions")))
    assert world.exchange(granted.grant, headers={"Idempotency-Key": "k"}).status_code == 200


def test_F06_two_that_lock_each_other_out_both_succeed(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    database.write(lambda c: c.execute(text("CREATE TABLE numbers (id int PRIMARY KEY, n int)")))
    database.write(lambda c: c.execute(text("INSERT INTO numbers VALUES (1, 0), (2, 0)")))
    together, one_is_done, tries = threading.Barrier(2), threading.Event(), list[int]()

    def both(first: int, second: int) -> None:
        def work(connection: Connection) -> None:
            if first in tries:
                one_is_done.wait(10)  # or it may be in the other's way again
            connection.execute(text(f"UPDATE numbers SET n = n + 1 WHERE id = {first}"))
            tries.append(first)
            if tries.count(first) == 1:
                together.wait(10)
            connection.execute(text(f"UPDATE numbers SET n = n + 1 WHERE id = {second}"))

        database.write(work)
        one_is_done.set()

    with ThreadPoolExecutor() as pool:
        list(pool.map(both, (1, 2), (2, 1)))
    assert len(tries) == 3
    assert database.read(lambda c: c.scalars(text("SELECT n FROM numbers")).all()) == [2, 2]
    database.dispose()


def test_F06_serializable_transactions_count_right_or_say_503(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    database.write(lambda c: c.execute(text("CREATE TABLE numbers (id int PRIMARY KEY, n int)")))
    database.write(lambda c: c.execute(text("INSERT INTO numbers VALUES (1, 0)")))

    def count(_: int) -> int:
        def work(connection: Connection) -> None:
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
            n = connection.scalar(text("SELECT n FROM numbers"))
            connection.execute(text(f"UPDATE numbers SET n = {n} + 1"))

        try:
            database.write(work)
        except Refusal as refusal:
            if refusal.status != 503:
                raise
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        done = sum(pool.map(count, range(80)))
    assert done > 40
    assert _number(database) == done
    database.dispose()


def _storm_without_deadlocks(world: World, folder: Path, seconds: float) -> str:
    with (
        server(configuration(world, folder), workers=3) as running,
        storm(world, running.url, shoppers=12) as shopping,
    ):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            shopping.goes_on()
            time.sleep(0.1)
        shopping.end()
    shopping.has_done_exactly_this()
    found = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert world.services.database.read(lambda c: c.scalar(found)) == 0
    return f"{shopping.answers} answers, {shopping.resent} sent again"


def test_F06_what_the_server_does_itself_never_locks_itself_out(
    postgresql_world: World, tmp_path: Path
) -> None:
    _storm_without_deadlocks(postgresql_world, tmp_path, seconds=4)


@pytest.mark.prove
def test_F06_what_the_server_does_itself_never_locks_itself_out_in_minutes(
    postgresql_world: World, tmp_path: Path
) -> None:
    # Long enough for tokens to lapse, so that the upkeep of all processes is part of it.
    print(_storm_without_deadlocks(postgresql_world, tmp_path, seconds=240))


@pytest.mark.parametrize("setting", ["lock_timeout", "statement_timeout"])
def test_F06_a_lock_that_is_held_too_long_is_a_503_within_bounds(
    postgresql_world: World, setting: str, postgresql_url: str
) -> None:
    world, name = postgresql_world, postgresql_url.rpartition("/")[2].partition("?")[0]
    granted = world.granted()
    database = Database(postgresql_url, statement_timeout=600 if setting == "statement_timeout" else 5_000)
    if setting == "lock_timeout":
        database.write(lambda c: c.execute(text(f"ALTER DATABASE {name} SET lock_timeout = 100")))
        database.engine.dispose()
    row = text(f"UPDATE budgets SET reserved = reserved WHERE delegation_id = '{granted.grant_id}'")
    held, let_go = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        connection.execute(row)
        held.set()
        assert let_go.wait(20)

    holder = Database(postgresql_url, statement_timeout=60_000)
    with ThreadPoolExecutor() as pool:
        holding = pool.submit(holder.write, hold)
        assert held.wait(5)
        begun = time.monotonic()
        with pytest.raises(Refusal) as refused:
            database.write(lambda c: c.execute(row))
        assert refused.value.status == 503
        assert 0.1 < time.monotonic() - begun < 3
        let_go.set()
        holding.result()
    database.write(lambda c: c.execute(row))
    for each in (database, holder):
        each.dispose()
