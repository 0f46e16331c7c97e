"""Fault F05: the disk is full; 503, nothing half-written, and all is well again when there is space."""

import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.attacks.serving import configuration
from tests.faults.clusters import Node
from tests.faults.servers import server
from tests.faults.storm import is_sound, storm
from tests.make import migrate
from tests.postgresql import Cluster, owner_of_servers
from tests.world import World, running_world

LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "90000.00"}


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of that size. The test is skipped where none can be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="authserver-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        mounted = None
    if mounted is None or mounted.returncode:
        folder.rmdir()
        pytest.skip("no small file system can be mounted here: that takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def _fill(folder: Path) -> Path:
    """A file that takes all the space that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return ballast


def _until_it_is_full(world: World, grant: str) -> None:
    """Ask for tokens until the disk takes no more; hold every answer to what it must be."""
    for _ in range(2_000):
        rows = world.rows()
        answer = world.exchange(grant)
        if answer.status_code == 503:
            break
        assert answer.status_code == 200, answer.text
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert world.rows() == rows


def _recovers(world: World, grant: str, keys: list[str]) -> None:
    """With space again, what had no answer gets one, once."""
    rows = world.rows()
    for key in keys:
        deadline = time.monotonic() + 20
        while (answer := world.exchange(grant, headers={"Idempotency-Key": key})).status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert answer.status_code == 200, answer.text
    assert world.rows().actions == rows.actions + len(keys)
    is_sound(world)


def _stays_whole_while_full(world: World, grant: str) -> list[str]:
    """The keys of requests that got no answer; one or the other may still find a place."""
    rows, refused = world.rows(), []
    for key in (f"k-{number}" for number in range(20)):
        answer = world.exchange(grant, headers={"Idempotency-Key": key})
        assert answer.status_code in (200, 503), answer.text
        refused += [key] if answer.status_code == 503 else []
    assert len(refused) > 5
    assert world.client.get("/readyz").status_code == 200  # what only reads goes on
    assert world.rows().actions == rows.actions + 20 - len(refused)
    is_sound(world)
    return refused


def test_F05_a_full_disk_under_sqlite_is_a_503_and_passes(tmp_path: Path, sqlite_url: str) -> None:
    with small_disk(4) as disk:
        shutil.copy(sqlite_url.removeprefix("sqlite:///"), disk / "authserver.db")
        with running_world(f"sqlite:///{disk / 'authserver.db'}", tmp_path / "world") as world:
            granted = world.granted(limits=LIMITS)
            ballast = _fill(disk)
            _until_it_is_full(world, granted.grant)
            refused = _stays_whole_while_full(world, granted.grant)
            ballast.unlink()
            _recovers(world, granted.grant, refused)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of other processes cannot be set here")
def test_F05_a_server_whose_files_may_not_grow_says_503_and_recovers(
    sqlite_world: World, tmp_path: Path
) -> None:
    # The same for anybody: a limit on the size of files, laid upon real processes in the middle of a storm.
    world = sqlite_world
    file = Path(world.services.database.url.database or "")
    with server(configuration(world, tmp_path), workers=2) as running:
        form = world.form(world.granted(limits=LIMITS).grant)
        with storm(world, running.url, revokes=False) as shopping:
            while shopping.answers < 50:
                shopping.goes_on()
            limits = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in running.workers}
            for pid, (_, hard) in limits.items():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (file.stat().st_size, hard))
            statuses = {httpx.post(f"{running.url}/oauth/token", data=form).status_code for _ in range(20)}
            assert statuses <= {200, 503}
            before = shopping.answers
            assert 503 in {httpx.post(f"{running.url}/oauth/token", data=form).status_code for _ in range(20)}
            assert shopping.answers <= before + 100
            shopping.holds(shopping.answered())
            for pid, limit in limits.items():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
            while shopping.answers < before + 100:
                shopping.goes_on()
            shopping.end()
        is_sound(world)


def test_F05_a_full_disk_under_postgresql_is_a_503_and_passes(
    postgresql_cluster: Cluster, tmp_path: Path
) -> None:
    with small_disk(120) as disk:
        folder = disk / "node"
        folder.mkdir()
        if owner := owner_of_servers():
            shutil.chown(folder, owner)
        # Small files for its log, so that it needs a new one often.
        node = Node(folder, "min_wal_size=2MB", "max_wal_size=4MB")
        node.make("--wal-segsize=1")
        node.start()
        try:
            url = node.url(node.create())
            migrate(url)
            with running_world(url, tmp_path / "world") as world:
                granted = world.granted(limits=LIMITS)
                ballast = _fill(disk)
                _until_postgresql_is_full(world, granted.grant)
                os.truncate(ballast, 0)
                node.kill()  # whether it stopped by itself or not: what is on the disk decides
                node.start()
                _recovers(world, granted.grant, [f"k-{number}" for number in range(5)])
        finally:
            node.kill()


def _until_postgresql_is_full(world: World, grant: str) -> None:
    """PostgreSQL may refuse the one statement, or stop altogether: the answer is the same."""
    for _ in range(3_000):
        answer = world.exchange(grant)
        if answer.status_code == 503:
            break
        assert answer.status_code == 200, answer.text
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert answer.headers["retry-after"] == "1"
