"""Faults F11 and F14: workers that die or hang are replaced while others serve; SIGTERM under load ends in order."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from authserver.schema import Action, table_of
from tests.attacks.serving import configuration
from tests.faults.servers import Server, server
from tests.faults.storm import storm
from tests.world import World

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc to look into")


@pytest.fixture
def running(sqlite_world: World, tmp_path: Path) -> Iterator[Server]:
    """A server with two workers."""
    with server(configuration(sqlite_world, tmp_path), workers=2) as program:
        yield program


def _until_replaced(program: Server, gone: list[int], within: float) -> None:
    """Return once as many others are there instead of those that are gone."""
    deadline = time.monotonic() + within
    while len(set(program.workers) - set(gone)) < 2:
        assert program.running.poll() is None, program.said()
        assert time.monotonic() < deadline, (program.workers, gone, program.said())
        time.sleep(0.02)


def test_F11_others_serve_while_a_worker_that_was_killed_is_replaced(
    sqlite_world: World, running: Server
) -> None:
    with storm(sqlite_world, running.url) as shopping:
        while shopping.answers < 50:
            shopping.goes_on()
        killed = running.workers[0]
        os.kill(killed, signal.SIGKILL)
        before, at = shopping.answers, time.monotonic()
        _until_replaced(running, [killed], within=10)
        while shopping.answers < before + 50:
            shopping.goes_on()
            assert time.monotonic() < at + 10
        shopping.end()
    shopping.has_done_exactly_this()


def test_F11_all_workers_killed_at_once_are_all_replaced(running: Server) -> None:
    killed = running.workers
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    _until_replaced(running, killed, within=10)
    running.wait_until_ready()


def test_F11_a_worker_that_is_killed_again_and_again_is_replaced_each_time(running: Server) -> None:
    for _ in range(3):
        killed = running.workers[0]
        os.kill(killed, signal.SIGKILL)
        _until_replaced(running, [killed], within=10)
        time.sleep(1.5)
    running.wait_until_ready()


def test_F11_a_worker_that_hangs_is_killed_and_replaced(sqlite_world: World, running: Server) -> None:
    hung = running.workers[0]
    os.kill(hung, signal.SIGSTOP)
    _until_replaced(running, [hung], within=20)
    assert "worker.hangs" in running.said()
    with storm(sqlite_world, running.url) as shopping:
        while shopping.answers < 30:
            shopping.goes_on()
        shopping.end()
    shopping.has_done_exactly_this()


def test_F14_under_load_no_request_that_was_begun_loses_its_answer(
    sqlite_world: World, running: Server
) -> None:
    granted = sqlite_world.granted(limits={"currency": "EUR", "per_action": "80.00", "total": "90000.00"})
    form = sqlite_world.form(granted.grant)
    answered, ended = Counter[int](), threading.Event()

    def ask() -> None:
        while not ended.is_set():
            try:
                # A connection of its own each time: what is accepted is answered.
                answered[httpx.post(f"{running.url}/oauth/token", data=form, timeout=20).status_code] += 1
            except httpx.ConnectError:
                return  # no new ones
            except httpx.TransportError:
                answered[0] += 1  # cut off before it was read, or without its answer: the count of rows tells

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        while answered[200] < 40:
            time.sleep(0.01)
        begun = time.monotonic()
        assert running.terminate(within=10) == 0
        seconds = time.monotonic() - begun
        ended.set()
        for each in asking:
            each.result(20)
    assert seconds < 10
    assert set(answered) <= {200, 0}
    ids = sqlite_world.services.database.read(lambda c: c.scalars(select(table_of(Action).c.id)).all())
    assert len(ids) == answered[200]
