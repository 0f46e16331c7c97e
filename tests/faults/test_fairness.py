"""With 32 writers in 4 processes no request waits for more than a second on SQLite: the lock goes round in order."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from tests.attacks.serving import ROOT, configuration
from tests.world import World

PROCESSES, THREADS = 4, 8


@dataclass(frozen=True)
class Waits:
    """For how long each request was under way, in seconds, by process."""

    by_process: list[list[float]]

    @property
    def all(self) -> list[float]:
        """Of all processes."""
        return sorted(wait for waits in self.by_process for wait in waits)

    def __str__(self) -> str:
        waits = self.all
        shares = ", ".join(str(len(part)) for part in self.by_process)
        return (
            f"{len(waits)} requests ({shares}): median {median(waits) * 1000:.0f} ms, 99th percentile "
            f"{waits[len(waits) * 99 // 100] * 1000:.0f} ms, longest {waits[-1] * 1000:.0f} ms"
        )


def _written(world: World, folder: Path, seconds: float) -> Waits:
    """Let all writers write for a while."""
    granted = world.granted(limits={"currency": "EUR", "per_action": "80.00", "total": "90000000.00"})
    form = json.dumps(world.form(granted.grant)) + "\n"
    environment = {**os.environ, "AUTHSERVER_CONFIG": str(configuration(world, folder))}
    command = [sys.executable, "-m", "tests.faults.writers", str(THREADS), str(seconds)]
    with ExitStack() as closing:
        writing = []
        for _ in range(PROCESSES):
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            closing.callback(process.communicate)
            closing.callback(process.kill)
            writing.append(process)
            assert process.stdin is not None
            process.stdin.write(form)
            process.stdin.flush()
        for process in writing:
            assert process.stdout is not None
            while process.stdout.readline() != "ready\n":
                assert process.poll() is None
        found = []
        for process in writing:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in writing:
            output, _ = process.communicate(timeout=seconds + 60)
            found.append(json.loads(output))
    return Waits(found)


def _is_fair(waits: Waits) -> None:
    print(waits)
    found = waits.all
    # Where the machine has other things to do, everybody waits longer, and alike: the half of all as well as the last.
    assert found[-1] < max(1.0, 10 * median(found)), waits
    shares = [len(part) for part in waits.by_process]
    assert min(shares) > max(shares) / 2, waits


def test_with_32_writers_in_4_processes_none_waits_for_more_than_a_second(
    sqlite_world: World, tmp_path: Path
) -> None:
    _is_fair(_written(sqlite_world, tmp_path, seconds=4))


@pytest.mark.prove
def test_with_32_writers_in_4_processes_none_waits_for_more_than_a_second_in_two_minutes(
    sqlite_world: World, tmp_path: Path
) -> None:
    _is_fair(_written(sqlite_world, tmp_path, seconds=120))
