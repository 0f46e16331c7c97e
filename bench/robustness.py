"""Threat A124: slow headers, slow bodies, idle connections, huge headers. Others must be served, within bounds.

Each attack holds its connections open against a server while eight honest ones go on; it says how those fared and
after how long the server closed what held it.
"""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.load import Outcome, drive
from bench.processes import Running

_HEAD = (
    b"POST /oauth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
)
_BODY_BEGUN = _HEAD + b"Content-Length: 2500\r\n\r\nsubject_token="
_HUGE = _HEAD + b"".join(b"X-Filler-%d: %s\r\n" % (number, b"a" * 4000) for number in range(1000))


@dataclass(frozen=True, slots=True)
class Attack:
    """How many connections open with what, and what each then adds once a second to stay alive."""

    name: str
    connections: int
    opening: bytes
    drip: bytes


ATTACKS = (
    Attack("slow headers", 200, _HEAD, b"X"),
    Attack("slow bodies", 200, _BODY_BEGUN, b"a"),
    Attack("connections that send nothing", 2000, b"", b""),
    Attack("4 MB of headers", 8, _HUGE, b""),
)


@dataclass(frozen=True, slots=True)
class Endured:
    """What one attack did. `closed` is the share of hostile connections that the server had closed in the end."""

    attack: Attack
    others: Outcome
    closed: float
    last_closed_after: float
    memory_before: int
    memory_after: int

    def in_words(self) -> str:
        """One line for the report."""
        served = f"others {self.others.per_second:,.0f} /s, p99 {self.others.p99:.0f} ms, {self.others.errors} errors"
        ended = f"{self.closed:.0%} closed, the last after {self.last_closed_after:.0f} s"
        return f"{served}; {ended}; {self.memory_before >> 20} → {self.memory_after >> 20} MiB"


@dataclass(slots=True)
class _Hold:
    attack: Attack
    port: int
    stop: threading.Event = field(default_factory=threading.Event)
    open: dict[int, socket.socket] = field(default_factory=dict)
    opened: int = 0
    closed: int = 0
    last_closed: float = 0.0

    def run(self) -> None:
        poll = select.epoll()
        started = time.monotonic()
        for _ in range(self.attack.connections):
            if not self._open(poll):
                break
        drip_at = time.monotonic() + 1
        while not self.stop.is_set():
            for number, _event in poll.poll(0.1):
                self._read(poll, number, started)
            if self.attack.drip and time.monotonic() >= drip_at:
                drip_at += 1
                self._drip(poll, started)
        for connection in self.open.values():
            connection.close()

    def _open(self, poll: select.epoll) -> bool:
        connection = socket.socket()
        connection.settimeout(3)
        try:
            connection.connect(("127.0.0.1", self.port))
            self.opened += 1
            with contextlib.suppress(OSError):
                connection.sendall(self.attack.opening)
        except OSError:
            connection.close()
            return False
        connection.setblocking(False)
        self.open[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
        return True

    def _read(self, poll: select.epoll, number: int, started: float) -> None:
        try:
            ended = self.open[number].recv(65_536) == b""
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self._ended(poll, number, started)

    def _drip(self, poll: select.epoll, started: float) -> None:
        for number, connection in list(self.open.items()):
            try:
                connection.send(self.attack.drip)
            except BlockingIOError:
                continue
            except OSError:
                self._ended(poll, number, started)

    def _ended(self, poll: select.epoll, number: int, started: float) -> None:
        poll.unregister(number)
        self.open.pop(number).close()
        self.closed += 1
        self.last_closed = time.monotonic() - started


def endure(
    server: Running, attack: Attack, honest: Sequence[bytes], expected: bytes, *, patience: float = 20.0
) -> Endured:
    """Hold an attack against a server for at most `patience` seconds, measuring eight honest connections for three."""
    before = server.worker_memory()
    hold = _Hold(attack, server.port)
    thread = threading.Thread(target=hold.run, daemon=True)
    thread.start()
    began = time.monotonic()
    _until(lambda: hold.opened >= attack.connections, 5)
    others = drive(server, honest, expected, seconds=3, warm_up=0.5)
    after = server.worker_memory()
    _until(lambda: hold.opened > 0 and hold.closed >= hold.opened, patience - (time.monotonic() - began))
    hold.stop.set()
    thread.join(10)
    share = hold.closed / hold.opened if hold.opened else 1.0
    return Endured(attack, others, share, hold.last_closed, before, after)


def _until(condition: Callable[[], bool], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.05)
