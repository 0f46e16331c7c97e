"""Who is told of the audit: one file, HTTP collector or syslog server at a time, within bounds."""

import os
import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from authserver.actors.fetcher import Fetcher, FetchFailed
from authserver.config import AuditStreamSettings

_SECONDS = 10.0
# RFC 5424 §6.2.1: facility 13 is the audit's, severity 6 informational.
_PRIORITY = 13 * 8 + 6
# RFC 5426 §3.2: one message, one datagram, which over IPv6 has 65,487 bytes; the rest is for the header.
MOST_OF_A_DATAGRAM = 64_000


class NotTaken(Exception):
    """It did not arrive; `str()` is a short reason. It is worth another attempt."""


@dataclass(frozen=True, slots=True)
class Line:
    """An event as one line of JSON, and when it happened (RFC 3339)."""

    at: str
    text: str


def append(path: os.PathLike[str], lines: Sequence[str]) -> None:
    """Add lines to a file, on disk when this returns. Raises `NotTaken`."""
    try:
        with open(path, "a", encoding="ascii") as file:  # noqa: PTH123  # a PathLike has no open
            # What was cut short stands on a line of its own; it is written once more.
            torn = file.tell() > 0 and not _ends_a_line(path)
            file.write("\n" * torn + "".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise NotTaken(error.strerror or type(error).__name__) from error


def _ends_a_line(path: os.PathLike[str]) -> bool:
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def post(
    url: str, body: str, media_type: str, authorization: str | None, *, allow_private_network: bool
) -> None:
    """POST to a collector; anything but 2xx is not taken. Raises `NotTaken`."""
    headers = {"Content-Type": media_type} | ({"Authorization": authorization} if authorization else {})
    try:
        status = Fetcher(allow_private_network=allow_private_network).post(url, body.encode(), headers)
    except FetchFailed as error:
        raise NotTaken(error.reason) from error
    if not 200 <= status < 300:
        raise NotTaken(f"status {status}")


def send(stream: AuditStreamSettings, lines: Sequence[Line]) -> None:
    """Hand events on. Raises `NotTaken`, and then some of them may have arrived."""
    if stream.file is not None and stream.kind == "file":
        append(stream.file, [line.text for line in lines])
    elif stream.url is not None and stream.kind == "http":
        secret = stream.authorization.get_secret_value() if stream.authorization else None
        body = "".join(f"{line.text}\n" for line in lines)
        post(
            stream.url,
            body,
            "application/x-ndjson",
            secret,
            allow_private_network=stream.allow_private_network,
        )
    else:
        _syslog(stream, lines)


def _syslog(stream: AuditStreamSettings, lines: Sequence[Line]) -> None:
    host, pid = socket.gethostname() or "-", os.getpid()
    try:
        with closing(_connected(stream)) as connection:
            for line in lines:
                message = f"<{_PRIORITY}>1 {line.at} {host} authserver {pid} audit - {line.text}".encode(
                    "ascii", "replace"
                )
                # RFC 6587 §3.4.1: over a stream, each message says its length first.
                framed = message if stream.transport == "udp" else b"%d %s" % (len(message), message)
                connection.sendall(framed)
    except OSError as error:
        raise NotTaken(error.strerror or type(error).__name__) from error


def _connected(stream: AuditStreamSettings) -> socket.socket:
    place = stream.syslog_host()
    if stream.transport == "unix" or place is None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_SECONDS)
        connection.connect(stream.address or "")
        return connection
    if stream.transport == "tcp":
        return socket.create_connection(place, _SECONDS)
    family, kind, protocol, _, address = socket.getaddrinfo(*place, type=socket.SOCK_DGRAM)[0]
    connection = socket.socket(family, kind, protocol)
    connection.settimeout(_SECONDS)
    connection.connect(address)
    return connection
