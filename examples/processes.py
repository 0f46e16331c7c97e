"""Programs that are started, watched until they answer, and always ended by their own number."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

_READY_SECONDS = 30
_END_SECONDS = 12


class DidNotStart(Exception):
    """A program ended or stayed silent; the message has the end of what it wrote."""


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nothing listens on that port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was started; `log` has what it writes, unless that goes to the terminal."""

    process: "subprocess.Popen[bytes]"
    log: Path | None

    def wait_until_ready(self, url: str) -> None:
        """Until `url` answers 200. Raises `DidNotStart`."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url, timeout=5).status_code == 200:
                    return
            time.sleep(0.02)
        written = self.log.read_text(errors="replace")[-2000:] if self.log else ""
        raise DidNotStart(f"{url} does not answer\n{written}")


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path | None = None
) -> Iterator[Program]:
    """Start `command` in `folder`; end it, and what it started, at the end of the block, however that comes."""
    with contextlib.ExitStack() as ending:
        output = ending.enter_context(log.open("wb")) if log else None
        with _held_back():
            process = subprocess.Popen(  # noqa: S603  # our own programs, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output and subprocess.STDOUT,
                env={**os.environ, **environment},
                cwd=folder,
                start_new_session=True,  # so that it and its workers can be ended together, and nothing else
            )
            ending.callback(_end, process)
        yield Program(process, log)


def finished(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, typed: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run `command` in `folder` to its end, with `typed` to read; what it printed, and its exit code."""
    with contextlib.ExitStack() as ending:
        with _held_back():
            process = subprocess.Popen(  # noqa: S603  # our own programs, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **environment},
                cwd=folder,
                text=True,
            )
            ending.enter_context(process)
            ending.callback(process.kill)
        output, errors = process.communicate(typed)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C wait until a process that is being started is known by its number."""
    arrived: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in arrived:
            signal.raise_signal(late)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # workers that outlived it, or nobody
    process.wait()
