"""What one client can hold of a server process: a connection that does nothing for a while, and no more.

A server thread that waits for a slow body would be missed by everybody else. So there are many threads, of which only
a few are ever at work: a request gets its turn when all of it has arrived. A connection that gets no answer is ended.
"""

import errno
import io
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

MAX_BODY_BYTES = 131_072
# The kernel's struct tcp_info: eight fields of one byte, then words; the tenth word is tcpi_last_data_sent, in ms.
_TCP_INFO_BYTES = 104
_LAST_DATA_SENT = 8 + 9 * 4


class Gate:
    """WSGI middleware: reads a whole body before it takes one of a few turns at the application."""

    def __init__(self, application: Application, at_once: int) -> None:
        """`at_once` requests are at work in this process; the others wait, in the order in which they arrived."""
        self._application, self._turns = application, threading.Semaphore(at_once)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """PEP 3333. A body without a length, too large, or cut short never reaches the application."""
        if "HTTP_TRANSFER_ENCODING" in environ:
            return _refuse(start_response, "411 Length Required")
        length = environ.get("CONTENT_LENGTH") or "0"
        if not (length.isascii() and length.isdigit()):
            return _refuse(start_response, "400 Bad Request")
        if len(length) > 9 or int(length) > MAX_BODY_BYTES:
            return _refuse(start_response, "413 Content Too Large")
        body = environ["wsgi.input"].read(int(length)) if int(length) else b""
        if len(body) != int(length):
            return _refuse(start_response, "400 Bad Request")
        environ["wsgi.input"] = io.BytesIO(body)
        with self._turns:
            return self._application(environ, start_response)


def _refuse(start_response: StartResponse, status: str) -> Iterable[bytes]:
    body = b'{"error":"invalid_request","error_description":"the body is not acceptable"}'
    headers = [
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    start_response(status, headers)
    return [body]


def end_silent_connections(port: int, after: float) -> None:
    """Watch this process's connections on `port`, in a thread; end those that got nothing for `after` seconds.

    What a client sends does not count, so one byte a second keeps nothing open. Only on Linux; elsewhere a proxy in
    front must bound the time of a request's body.
    """
    if hasattr(socket, "TCP_INFO") and os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        threading.Thread(target=_watch, args=(port, after), name="silent-connections", daemon=True).start()


def _watch(port: int, after: float) -> None:
    while True:
        time.sleep(after / 5)
        for connection in _connections(port):
            if _silent_for(connection) > after:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def _connections(port: int) -> Iterator[socket.socket]:
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with suppress(OSError), closing(_socket(int(name))) as connection:
            if connection.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            if connection.type == socket.SOCK_STREAM and connection.getsockname()[1] == port:
                connection.getpeername()  # a listening socket has none
                yield connection


def _socket(descriptor: int) -> socket.socket:
    # INVARIANT: no file is duplicated here, for to close a duplicate gives up every lock that this process has on the
    # file (POSIX), SQLite's among them (test_A124_to_watch_connections_costs_no_descriptor_and_no_lock).
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise OSError(errno.ENOTSOCK, "not a socket")
    return socket.socket(fileno=os.dup(descriptor))


def _silent_for(connection: socket.socket) -> float:
    """Seconds since anything was sent to the client, or since it connected."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    (milliseconds,) = struct.unpack_from("I", info, _LAST_DATA_SENT)
    return float(milliseconds) / 1000
