"""The load generator: keep-alive connections over raw sockets, in a process of its own on the other core.

Every answer is checked. `python -m bench.load PLAN` runs one plan (a pickled `Plan`) and prints its `Outcome` as JSON.
"""

import array
import json
import pickle
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, cycle
from pathlib import Path

from bench.processes import CLIENT_CORE, SERVER_CORE, Running, core_busy_seconds, cpu_seconds, family

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_TICK = 0.25
_OVERDUE = 1.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send. `expected` is a pattern that every body must hold; `watched` are the server's processes."""

    port: int
    requests: tuple[bytes, ...]
    expected: bytes
    status: bytes
    connections: int
    warm_up: float
    seconds: float
    again: bool
    watched: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back in the measured window. Times of a request are in milliseconds, CPU times in seconds of CPU;
    `generator_cpu` and `foreign_cpu` (other programs on the server's core) are shares of the window.
    """

    completed: int
    errors: int
    first_error: str
    seconds: float
    p50: float
    p99: float
    worst: float
    server_cpu: float
    generator_cpu: float
    foreign_cpu: float
    ran_out: bool

    @property
    def per_second(self) -> float:
        """Good answers in a second of the core: time that other programs took from it does not count."""
        available = self.seconds * (1 - min(self.foreign_cpu, 0.9))
        return self.completed / available if available else 0.0

    @property
    def by_the_clock(self) -> float:
        """Good answers in a second of the clock, for servers that have more than one core."""
        return self.completed / self.seconds if self.seconds else 0.0

    @property
    def cpu_each(self) -> float:
        """Server CPU for each request, in microseconds."""
        return 1e6 * self.server_cpu / self.completed if self.completed else 0.0

    @property
    def spread(self) -> float:
        """p99 ÷ p50."""
        return self.p99 / self.p50 if self.p50 else 0.0


def http_request(
    path: str,
    body: bytes,
    headers: Sequence[tuple[str, str]] = (),
    media_type: str = "application/x-www-form-urlencoded",
) -> bytes:
    """One POST, of a form unless it says otherwise, ready to be written to a socket."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def drive(
    server: Running,
    requests: Sequence[bytes],
    expected: bytes,
    *,
    seconds: float,
    connections: int = 8,
    warm_up: float = 0.5,
    again: bool = True,
    status: bytes = b"200",
) -> Outcome:
    """Send requests to a server for some seconds from the other core; `again` starts over when all were sent."""
    watched = tuple(family(server.pid))
    plan = Plan(server.port, tuple(requests), expected, status, connections, warm_up, seconds, again, watched)
    with tempfile.NamedTemporaryFile(suffix=".plan") as file:
        pickle.dump(plan, file)
        file.flush()
        command = ["taskset", "-c", str(CLIENT_CORE), sys.executable, "-m", "bench.load", file.name]
        limit = seconds + warm_up + 30
        ran = subprocess.run(
            command, capture_output=True, check=True, timeout=limit, cwd=Path(__file__).parent.parent
        )
    return Outcome(**json.loads(ran.stdout))


class _Window:
    """The measured part of a run: from `open` to `close`."""

    def __init__(self, watched: Sequence[int]) -> None:
        self.watched = watched
        self.latencies = array.array("d")
        self.errors = 0
        self.first_error = ""
        self.started = self._server = self._own = self._core = 0.0
        self.is_open = False

    def open(self) -> None:
        self.latencies = array.array("d")
        self.errors = 0
        self.started, self._own = time.perf_counter(), time.process_time()
        self._server, self._core = self._server_cpu(), core_busy_seconds(SERVER_CORE)
        self.is_open = True

    def close(self, ran_out: bool) -> Outcome:
        seconds = time.perf_counter() - self.started
        server = self._server_cpu() - self._server
        foreign = max(0.0, core_busy_seconds(SERVER_CORE) - self._core - server)
        ordered = sorted(self.latencies)
        return Outcome(
            completed=len(ordered),
            errors=self.errors,
            first_error=self.first_error,
            seconds=seconds,
            p50=_at(ordered, 0.50),
            p99=_at(ordered, 0.99),
            worst=_at(ordered, 1.0),
            server_cpu=server,
            generator_cpu=(time.process_time() - self._own) / seconds,
            foreign_cpu=foreign / seconds,
            ran_out=ran_out,
        )

    def _server_cpu(self) -> float:
        return sum(map(cpu_seconds, self.watched))


def _at(ordered: Sequence[float], share: float) -> float:
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Connection:
    __slots__ = ("closes", "received", "sent_at", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.sent_at = 0.0
        self.closes = False

    def send(self, request: bytes) -> None:
        self.received = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> tuple[bytes, bytes] | None:
        """The status and body when the whole answer is here, otherwise nothing yet. Raises ConnectionError."""
        chunk = self.socket.recv(65_536)
        if not chunk:
            raise ConnectionError("closed by the server")
        self.received = received = self.received + chunk if self.received else chunk
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        match = _LENGTH.search(received, 0, end + 2)
        if match is None:
            raise ConnectionError("an answer without Content-Length")
        if len(received) < end + 4 + int(match[1]):
            return None
        self.closes = b"\r\nconnection: close" in received[: end + 2].lower()
        return received[9:12], received[end + 4 :]


class _Run:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.expected = re.compile(plan.expected)
        self.requests = iter(cycle(plan.requests) if plan.again else plan.requests)
        self.window = _Window(plan.watched)
        self.poll = select.epoll()
        self.connections: dict[int, _Connection] = {}
        self.ran_out = False

    def run(self) -> Outcome:
        for _ in range(self.plan.connections):
            self._connect()
        opening = time.perf_counter() + self.plan.warm_up
        closing = opening + self.plan.seconds
        while self.connections and time.perf_counter() < closing:
            if not self.window.is_open and time.perf_counter() >= opening:
                self.window.open()
            events = self.poll.poll(_TICK)
            for number, _event in events:
                self._read(number)
        if not self.window.is_open:
            self.window.open()
        self._count_unanswered()
        return self.window.close(self.ran_out)

    def _count_unanswered(self) -> None:
        # A server that says nothing at all makes no other mistake.
        overdue = time.perf_counter() - _OVERDUE
        for connection in self.connections.values():
            if connection.sent_at < overdue:
                self._failed(f"no answer within {_OVERDUE:g} s")

    def _connect(self) -> None:
        connection = _Connection(self.plan.port)
        self.connections[connection.socket.fileno()] = connection
        self.poll.register(connection.socket, select.EPOLLIN)
        self._next(connection)

    def _read(self, number: int) -> None:
        connection = self.connections[number]
        try:
            answer = connection.receive()
        except OSError as error:
            self._failed(repr(error))
            self._drop(connection)
            self._connect()
            return
        if answer is None:
            return
        status, body = answer
        if status == self.plan.status and self.expected.search(body):
            self.window.latencies.append(time.perf_counter() - connection.sent_at)
        else:
            self._failed(f"{status.decode()} {body[:300].decode(errors='replace')}")
        if connection.closes:
            self._drop(connection)
            self._connect()
        else:
            self._next(connection)

    def _next(self, connection: _Connection) -> None:
        request = next(self.requests, None)
        if request is None:
            self.ran_out = True
            self._drop(connection)
            return
        connection.send(request)

    def _failed(self, what: str) -> None:
        self.window.errors += 1
        self.window.first_error = self.window.first_error or what

    def _drop(self, connection: _Connection) -> None:
        self.poll.unregister(connection.socket)
        del self.connections[connection.socket.fileno()]
        connection.socket.close()


def median_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The run in the middle by requests a second, with the errors of all of them."""
    middle = sorted(outcomes, key=lambda outcome: outcome.per_second)[len(outcomes) // 2]
    errors = sum(outcome.errors for outcome in outcomes)
    first = next(chain((outcome.first_error for outcome in outcomes if outcome.first_error), [""]))
    return Outcome(**{**asdict(middle), "errors": errors, "first_error": first})


def main(path: str) -> None:
    """Run the plan in a file."""
    plan: Plan = pickle.loads(Path(path).read_bytes())
    json.dump(asdict(_Run(plan).run()), sys.stdout)


if __name__ == "__main__":
    # The plan was pickled by the module's own name.
    from bench.load import main as run_plan

    run_plan(sys.argv[1])
