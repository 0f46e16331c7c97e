"""`serve`: a process that answers, says why it will not start, and ends in order (contract §11, threats F14)."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.commands.conftest import Manage, operator_of

ROOT = Path(__file__).resolve().parent.parent.parent
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(manage: Manage, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """`python manage.py serve` and its environment."""
    return [sys.executable, str(ROOT / "manage.py"), "serve", *arguments], {
        **os.environ,
        "AUTHSERVER_CONFIG": str(manage.config),
    }


@contextmanager
def serving(manage: Manage, *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", httpx.Client]]:
    """A running server and a client of it; it has ended, one way or another, when the block ends."""
    port = free_port()
    line, environment = command(manage, "--port", str(port), *arguments)
    with (manage.folder / "server.log").open("wb") as log:
        process = subprocess.Popen(line, env=environment, stderr=log, cwd=manage.folder)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            wait_until_ready(process, client)
            yield process, client
    finally:
        process.kill()
        process.wait()


def wait_until_ready(process: "subprocess.Popen[bytes]", client: httpx.Client) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail("the server does not answer")


def workers_of(process: "subprocess.Popen[bytes]") -> list[int]:
    """The processes that it started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_F14_requests_that_run_are_finished_after_sigterm_and_no_new_ones_begin(
    sqlite_manage: Manage,
) -> None:
    form = {
        "grant_type": EXCHANGE,
        "subject_token": "a.b.c",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "actor_token": "a.b.c",
        "actor_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "scope": "catalog.search",
    }
    database = sqlite3.connect(sqlite_manage.folder / "authserver.db", isolation_level=None)
    with serving(sqlite_manage) as (process, client), ThreadPoolExecutor() as pool:
        # A writer that keeps the database for itself: the refusal waits for its place in the audit.
        database.execute("BEGIN IMMEDIATE")
        running = [pool.submit(client.post, "/oauth/token", data=form) for _ in range(3)]
        time.sleep(0.5)
        assert not any(request.done() for request in running)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        database.execute("ROLLBACK")
        assert [request.result().status_code for request in running] == [400, 400, 400]
        assert process.wait(10) == 0
        assert time.monotonic() - begun < 10
        with pytest.raises(httpx.TransportError):
            client.get("/healthz")
    database.close()


def test_a_schema_that_is_behind_stops_the_start(tmp_path: Path) -> None:
    manage = operator_of(tmp_path, f"sqlite:///{tmp_path / 'empty.db'}")
    line, environment = command(manage)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the database's schema is behind: run  python manage.py migrate\n"


def test_a_configuration_error_is_all_that_is_printed(sqlite_manage: Manage) -> None:
    line, environment = command(sqlite_manage)
    environment["AUTHSERVER_SERVER__WORKERS"] = "none"
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "AUTHSERVER_SERVER__WORKERS: server.workers: takes a whole number\n"


def test_a_port_that_is_taken_is_named(sqlite_manage: Manage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line, environment = command(sqlite_manage, "--port", str(port))
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"cannot listen on 127.0.0.1, port {port}: Address already in use\n"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to look into")
def test_no_worker_outlives_a_server_that_was_killed(sqlite_manage: Manage) -> None:
    with serving(sqlite_manage, "--workers", "2") as (process, _):
        workers = workers_of(process)
        assert len(workers) == 2
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while not all(map(is_gone, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [pid for pid in workers if not is_gone(pid)] == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to look into")
def test_a_worker_that_died_is_replaced(sqlite_manage: Manage) -> None:
    with serving(sqlite_manage) as (process, client):
        (first,) = workers_of(process)
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while workers_of(process) in ([], [first]) and time.monotonic() < deadline:
            time.sleep(0.05)
        wait_until_ready(process, client)
