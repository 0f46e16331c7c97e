"""The server program as operators start it: killed, stopped and started again by tests, always by its own number."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from examples.processes import free_port
from tests.attacks.serving import ROOT

SERVE = (sys.executable, "manage.py", "serve")
_READY_SECONDS = 40


class Server:
    """`manage.py serve` on one port: one process that holds `workers` others."""

    def __init__(
        self,
        configured: Path,
        *,
        workers: int = 1,
        environment: dict[str, str] | None = None,
        program: Path = ROOT,
    ) -> None:
        """`configured` is the configuration file; the log grows beside it. `program` is the checkout."""
        self._program = program
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = configured.parent / f"serve-{self.port}.log"
        self._command = (*SERVE, "--port", str(self.port), "--workers", str(workers))
        self._environment = {**os.environ, "AUTHSERVER_CONFIG": str(configured), **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start it, and return when it answers; without `wait`, at once."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=self._program,
                start_new_session=True,  # so that it and its workers can be killed in one instant, and nothing else
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return once it answers that all is well."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self.running.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"{self.url} does not answer\n{self.said()[-3000:]}")

    @property
    def running(self) -> "subprocess.Popen[bytes]":
        """The process that was started last."""
        assert self.process is not None
        return self.process

    @property
    def workers(self) -> list[int]:
        """The processes that serve, by their numbers."""
        pid = self.running.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill(self) -> None:
        """SIGKILL for it and its workers, in one instant: what a power cut leaves of processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()
        self.process = None  # its number may be another's from now on

    def terminate(self, within: float) -> int:
        """SIGTERM; its exit code. Raises `subprocess.TimeoutExpired` where it takes longer than so many seconds."""
        self.running.send_signal(signal.SIGTERM)
        code = self.running.wait(within)
        self.process = None
        return code

    def said(self) -> str:
        """All that it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@contextmanager
def server(
    configured: Path,
    *,
    workers: int = 1,
    environment: dict[str, str] | None = None,
    program: Path = ROOT,
) -> Iterator[Server]:
    """A server that answers; what is left of it is killed at the end of the block, however that comes."""
    running = Server(configured, workers=workers, environment=environment, program=program)
    try:
        running.start()
        yield running
    finally:
        if running.process is not None:
            running.kill()
