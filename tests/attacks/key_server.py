"""A web server of a trust domain, or of an attacker, on loopback: what it answers can be changed, and it counts."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Answer = Callable[[socket.socket], None]


@dataclass
class KeyServer:
    """Answers every request by `answer`. `requests` are the heads of all that came, whatever path they asked for."""

    port: int
    answer: Answer
    requests: list[str] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        """A document of it, over http."""
        return f"http://127.0.0.1:{self.port}/keys.json"

    def serve(self, *jwks: dict[str, object]) -> None:
        """Answer with a JWK Set from now on."""
        self.answer = says(json.dumps({"keys": jwks}).encode())


def says(body: bytes, status: str = "200 OK", **headers: str) -> Answer:
    """An answer that is there at once."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return lambda connection: connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


@contextmanager
def key_server(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[KeyServer]:
    """Run one that has no keys yet; by https where there is a context for it."""
    listener = socket.create_server((host, 0))
    running = KeyServer(listener.getsockname()[1], says(b'{"keys": []}'))

    def handle(connection: socket.socket) -> None:
        with suppress(OSError), _over(tls, connection) as connection:
            running.requests.append(connection.recv(65_536).decode("latin-1"))
            running.answer(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                running.connections += 1
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _over(tls: ssl.SSLContext | None, connection: socket.socket) -> socket.socket:
    return connection if tls is None else tls.wrap_socket(connection, server_side=True)


@dataclass
class NameService:
    """A resolver under the attacker's control: one answer after the other, the last one for ever."""

    answers: list[list[str]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, host: str, port: int) -> list[str]:
        """What `authserver.actors.fetcher.system_resolver` would say."""
        self.asked.append(host)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]
