"""Fault F04: SQLite's files after a power cut, locked by others, not to be written, or damaged."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, select, text

from authserver.app import build
from authserver.db import Database
from authserver.errors import Refusal
from authserver.ledger.check import check
from authserver.schema import Action, table_of
from tests.attacks.serving import ROOT, configuration
from tests.commands.conftest import Manage, operator_of
from tests.faults.crashing_disk import cuts_at_random, watched
from tests.faults.servers import Server, server
from tests.faults.storm import BEYOND, storm
from tests.world import World, running_world

LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "90000.00"}


def _is_whole(world: World, file: Path, answered: dict[str, str]) -> None:
    """A database that a power cut left: it opens, is sound, balances, and holds all that was answered."""
    database = Database(f"sqlite:///{file}")

    def examine(connection: Connection) -> dict[str, str]:
        assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
        assert list(check(connection, world.services.stored)) == []
        table = table_of(Action)
        return {row.id: row.state for row in connection.execute(select(table.c.id, table.c.state))}

    try:
        found = database.read(examine)
        for action_id, state in answered.items():
            assert found[action_id] == state or found[action_id] in BEYOND[state]
        database.write(lambda c: c.execute(text("DELETE FROM seen_tokens")))  # it takes writes again
    finally:
        database.dispose()


@pytest.fixture
def template(sqlite_url: str) -> Path:
    """A database with today's schema, which nobody has opened."""
    return Path(sqlite_url.removeprefix("sqlite:///"))


@pytest.fixture
def manage(sqlite_url: str, tmp_path: Path) -> Manage:
    """Whoever types `manage.py …`, on a database with today's schema."""
    return operator_of(tmp_path, sqlite_url)


# --- power cuts ----------------------------------------------------------------------------------------------------


class _Lost(AssertionError):
    """Something that was answered is not there after a power cut, or the database is not whole."""


def _cut_off(
    folder: Path, template: Path, *, purchases: int, cuts: int, seed: int, lies: bool = False
) -> int:
    """Serve some purchases on a watched disk, and look at states that power cuts may leave; how many were looked at."""
    (folder / "data").mkdir()
    shutil.copy(template, folder / "data" / "authserver.db")
    chance = random.Random(seed)
    with (
        watched(folder / "data", lies=lies) as disk,
        running_world(f"sqlite:///{folder / 'data' / 'authserver.db'}", folder / "world") as world,
    ):
        _shop(world, purchases, chance, disk.answered)
        checkpoints = sum(getattr(note, "file", "") == "authserver.db" for note in disk.notes)
        assert checkpoints or lies
        for number, (state, answered) in enumerate(
            disk.after_power_cuts(cuts_at_random(disk, cuts, chance), chance)
        ):
            left = folder / f"cut-{number}"
            left.mkdir()
            state.write_to(left)
            try:
                _is_whole(world, left / "authserver.db", dict(answered))
            except (AssertionError, KeyError, Refusal) as error:
                raise _Lost(f"seed {seed}, cut {number}") from error
            shutil.rmtree(left)
    return cuts


def _shop(world: World, purchases: int, chance: random.Random, answered: Any) -> None:
    """Exchange and redeem, some of it later, so many times; `answered` is told of each answer."""
    transport = httpx.WSGITransport(build(world.services))
    credentials = (world.market_id, world.market_secret)
    granted = world.granted(limits=LIMITS)
    with httpx.Client(transport=transport, base_url=world.url) as client:
        for _ in range(purchases):
            answer = client.post("/oauth/token", data=world.form(granted.grant))
            token, action_id = answer.json()["access_token"], answer.json()["action_id"]
            answered((action_id, "reserved"))
            capture = chance.random() < 0.5
            body = {"token": token, "capture": capture}
            assert client.post("/oauth/redeem", json=body, auth=credentials).status_code == 201
            answered((action_id, "captured" if capture else "authorized"))
            if not capture and chance.random() < 0.5:
                path = f"/oauth/redemptions/{action_id}/void"
                assert client.post(path, json={}, auth=credentials).status_code == 200
                answered((action_id, "voided"))


def test_F04_whatever_a_power_cut_leaves_is_whole_and_holds_all_that_was_answered(
    template: Path, tmp_path: Path
) -> None:
    assert _cut_off(tmp_path, template, purchases=60, cuts=60, seed=4) == 60


def test_F04_a_disk_that_lies_about_syncing_is_found_out(template: Path, tmp_path: Path) -> None:
    # What the test above is worth: without the syncs, it fails.
    with pytest.raises(_Lost):
        _cut_off(tmp_path, template, purchases=10, cuts=30, seed=4, lies=True)


@pytest.mark.prove
def test_F04_thousands_of_power_cuts_lose_nothing(template: Path, tmp_path: Path) -> None:
    looked_at, seed = 0, random.SystemRandom().randrange(1_000_000)
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        looked_at += _cut_off(folder, template, purchases=150, cuts=500, seed=seed + number)
    print(f"seed {seed}: {looked_at} states after power cuts")


@contextmanager
def _standing_still(running: Server) -> Iterator[None]:
    """All processes of a server stopped in one instant, as a power cut would find them."""
    pids = [*running.workers, running.running.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        while not all(_state(pid) == "T" for pid in pids):
            time.sleep(0.001)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _copies(world: World, folder: Path, copies: int, seed: int) -> None:
    """Copy the files while they stand still in the middle of a storm; each copy is what a power cut leaves."""
    chance, file = random.Random(seed), Path(world.services.database.url.database or "")
    with (
        server(configuration(world, folder), workers=2) as running,
        storm(world, running.url, revokes=False, seed=seed) as shopping,
    ):
        for number in range(copies):
            time.sleep(chance.uniform(0.05, 0.2))
            copy = folder / f"copy-{number}"
            copy.mkdir()
            answered = shopping.answered()
            with _standing_still(running):
                for name in (file.name, f"{file.name}-wal"):
                    shutil.copy(file.parent / name, copy / name)
            _tear(copy / f"{file.name}-wal", chance)
            _is_whole(world, copy / file.name, answered)
            shutil.rmtree(copy)
        shopping.end()
    shopping.has_done_exactly_this()


def _tear(wal: Path, chance: random.Random) -> None:
    """Of what was written after the last commit, which nothing has synced, leave a part, or nonsense."""
    content = wal.read_bytes()
    end = _end_of_last_commit(content)
    cut = chance.randint(end, len(content))
    rest = b"" if chance.random() < 0.5 else chance.randbytes(len(content) - cut)
    wal.write_bytes(content[:cut] + rest)


def _end_of_last_commit(wal: bytes) -> int:
    """Where the last transaction of a write-ahead log ends (sqlite.org/fileformat2.html, §4)."""
    page, end = int.from_bytes(wal[8:12], "big"), 32
    for at in range(32, len(wal) - 24 - page + 1, 24 + page):
        if wal[at + 8 : at + 16] != wal[16:24]:
            break  # of an earlier use of the file
        if wal[at + 4 : at + 8] != b"\0\0\0\0":
            end = at + 24 + page
    return end


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to look into")
def test_F04_copies_taken_while_real_processes_write_are_whole(sqlite_world: World, tmp_path: Path) -> None:
    _copies(sqlite_world, tmp_path, copies=15, seed=4)


@pytest.mark.prove
def test_F04_a_thousand_copies_taken_while_real_processes_write_are_whole(
    sqlite_world: World, tmp_path: Path
) -> None:
    _copies(sqlite_world, tmp_path, copies=1_000, seed=random.SystemRandom().randrange(1_000_000))


# --- locked by another program -------------------------------------------------------------------------------------


def test_F04_locked_for_ten_seconds_it_says_503_in_time_and_recovers(
    sqlite_world: World, tmp_path: Path
) -> None:
    world, waits = sqlite_world, []
    form = world.form(world.granted(limits=LIMITS).grant)
    other = sqlite3.connect(world.services.database.url.database or "", isolation_level=None)
    over = threading.Event()

    with server(configuration(world, tmp_path), workers=2) as running:

        def ask(_: int) -> list[int]:
            found = []
            while not over.is_set():
                begun = time.monotonic()
                answer = httpx.post(f"{running.url}/oauth/token", data=form, timeout=30)
                waits.append(time.monotonic() - begun)
                assert answer.status_code == 200 or answer.headers["retry-after"] == "1"
                found.append(answer.status_code)
            return found

        with ThreadPoolExecutor(12) as pool:
            asking = pool.map(ask, range(12))
            time.sleep(0.5)
            other.execute("BEGIN IMMEDIATE")
            time.sleep(10)
            assert httpx.get(f"{running.url}/healthz", timeout=5).status_code == 200
            other.execute("ROLLBACK")
            released = time.monotonic()
            while httpx.post(f"{running.url}/oauth/token", data=form, timeout=30).status_code != 200:
                assert time.monotonic() < released + 3
            over.set()
            statuses = {status for found in asking for status in found}
    other.close()
    assert statuses == {200, 503}
    assert max(waits) < 9  # before the server ends a connection on which nothing is answered


def test_F04_writers_wait_in_order_for_a_lock_that_is_let_go(sqlite_url: str) -> None:
    database, order = Database(sqlite_url), []
    other = sqlite3.connect(database.url.database or "", isolation_level=None)
    database.read(lambda c: c.execute(text("SELECT 1")))
    other.execute("BEGIN IMMEDIATE")

    def write(number: int) -> None:
        database.write(lambda _: order.append(number))

    with ThreadPoolExecutor(12) as pool:
        writing = []
        for number in range(12):
            writing.append(pool.submit(write, number))
            time.sleep(0.03)
        other.execute("ROLLBACK")
        for each in writing:
            each.result()
    assert order == sorted(order)
    other.close()
    database.dispose()


def test_F04_a_writer_that_comes_while_nothing_moves_is_refused_at_once(sqlite_url: str) -> None:
    database = Database(sqlite_url, statement_timeout=600)
    entered, go_on = threading.Event(), threading.Event()

    def linger(_: Connection) -> None:
        entered.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor() as pool:
        lingering = pool.submit(database.write, linger)
        assert entered.wait(5)
        for longest in (0.6, 0.1):
            begun = time.monotonic()
            with pytest.raises(Refusal) as refused:
                database.write(lambda _: None)
            assert refused.value.status == 503
            assert time.monotonic() - begun < longest
        go_on.set()
        lingering.result()
    database.write(lambda _: None)
    database.dispose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_F04_the_lock_of_a_writer_that_was_killed_is_free_at_once(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    hold = (
        "import sys, time; from authserver.db import Database\n"
        "Database(sys.argv[1]).write(lambda c: (print(flush=True), time.sleep(60)))"
    )
    killed = subprocess.Popen([sys.executable, "-c", hold, sqlite_url], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"\n"
    finally:
        killed.kill()
        killed.communicate()
    begun = time.monotonic()
    database.write(lambda _: None)
    assert time.monotonic() - begun < 1
    database.dispose()


# --- read-only, damaged --------------------------------------------------------------------------------------------


def _does_not_start(manage: Manage, *before: str) -> str:
    """What `serve` says as it ends; nothing else is printed."""
    command = [*before, sys.executable, str(ROOT / "manage.py"), "serve"]
    environment = {**os.environ, "AUTHSERVER_CONFIG": str(manage.config), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_F04_a_file_that_cannot_be_written_is_said_at_the_start(manage: Manage) -> None:
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if not (setpriv := shutil.which("setpriv")):
            pytest.skip("root may write everything, and there is no setpriv to take that away")
        before = (setpriv, "--bounding-set", "-dac_override", "--inh-caps", "-dac_override")
    folder = manage.folder
    (folder / "authserver.db").chmod(0o444)
    folder.chmod(0o555)
    try:
        said = _does_not_start(manage, *before)
    finally:
        folder.chmod(0o755)
    assert said.startswith("the database cannot do it: ")
    assert "read" in said or "denied" in said, said


def test_F04_a_file_that_is_no_database_is_said_at_the_start(manage: Manage) -> None:
    (manage.folder / "authserver.db").write_bytes(b"not a database at all" * 1_000)
    assert _does_not_start(manage) == "the database cannot do it: file is not a database\n"


def test_F04_a_damaged_page_is_found_and_said(sqlite_world: World, tmp_path: Path) -> None:
    world = sqlite_world
    file = Path(world.services.database.url.database or "")
    granted = world.granted(limits=LIMITS)
    assert world.exchange(granted.grant).status_code == 200
    page = world.services.database.read(
        lambda c: int(c.scalar(text("SELECT rootpage FROM sqlite_master WHERE name = 'budgets'")))
    )
    world.services.database.dispose()  # the last one to close writes everything into the file
    with file.open("r+b") as damaged:
        damaged.seek((page - 1) * 4096)
        damaged.write(b"\xff" * 4096)
    answer = world.exchange(granted.grant)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    manage = operator_of(tmp_path / "world", f"sqlite:///{file}", world.issuer)
    assert "malformed" in manage.run("doctor").output
