"""Servers under test: pinned to one core, watched through /proc, bounded in time, and always ended by their pid."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = CORES[0]
# With a single core the generator shares it, and the report says so.
CLIENT_CORE = CORES[-1]


class DidNotStart(Exception):
    """A server ended or stayed silent; the message has the end of what it wrote."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers. `ready_after` is in seconds from its start to its first answer."""

    name: str
    pid: int
    port: int
    ready_after: float
    log: Path

    def cpu_seconds(self) -> float:
        """CPU time that the server and all its processes have used so far."""
        return sum(cpu_seconds(pid) for pid in family(self.pid))

    def worker_memory(self) -> int:
        """Resident bytes of its largest process, which is the worker."""
        return max(_resident(pid) for pid in family(self.pid))


@contextlib.contextmanager
def serving(
    name: str,
    command: Sequence[str],
    port: int,
    folder: Path,
    *,
    cores: Sequence[int] = (SERVER_CORE,),
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    seconds: int = 600,
) -> Iterator[Running]:
    """Start a server on these cores and end it when the block ends, however it ends.

    It never lives longer than `seconds`. Raises `DidNotStart`.
    """
    log = folder / f"{name.replace(' ', '-')}.log"
    bounded = ["timeout", "-k", "5", str(seconds), "taskset", "-c", ",".join(map(str, cores)), *command]
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            bounded,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=directory,
        )
    try:
        _wait_until_ready(process, port, log)
        yield Running(name, process.pid, port, time.perf_counter() - started, log)
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that we started, and what it started."""
    members = [(pid, _born(pid)) for pid in family(process.pid)]
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(8)
    for pid, born in members:
        # By pid and birth: a number may belong to another program by now.
        if born is not None and _born(pid) == born:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait(8)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[int]:
    """A process and all its descendants that are alive."""
    parents = {child: _parent(child) for child in _processes()}
    members = [pid]
    for member in members:
        members.extend(child for child, parent in parents.items() if parent == member)
    return members


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def core_busy_seconds(core: int) -> float:
    """CPU time that everything on the machine has used on one core."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _wait, irq, softirq, *_rest = map(int, line.split()[1:])
            return (user + nice + system + irq + softirq) / TICKS
    return 0.0


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _answers(port):
            return
        time.sleep(0.005)
    raise DidNotStart(f"{log.name}: {log.read_text(errors='replace')[-2000:]}")


def _answers(port: int) -> bool:
    # An accepted connection is not enough: the kernel accepts for a worker that is not there yet.
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(10)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return connection.recv(1) != b""
    except OSError:
        return False


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _born(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[19] if fields else None


def cpu_seconds(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0


def _resident(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) * PAGE if fields else 0
