"""Documents from elsewhere: bounded in size and time, no redirects, and only from addresses that were
checked.

The address is looked up once, checked and connected to, so that a name which changes between check and use
(DNS rebinding) changes nothing. What a proxy variable of the environment says is not followed.
"""

import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import SplitResult, urlencode, urlsplit

import httpcore
from httpcore import SOCKET_OPTION, NetworkBackend, NetworkStream

from authserver import strict_json
from authserver.values import is_loopback

MAX_BYTES = 512 * 1024
# urlsplit drops tabs and line ends silently.
_PLAIN_URL = re.compile(r"[!-~]+")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], list[str]]

# RFC 6052 §2.1: an IPv4 address rides in the last 32 bits.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# RFC 3879: no longer given out, and private where it still is; Python counts it as public.
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")


class FetchFailed(Exception):
    """There is no document.

    `reason` is a short code: `url`, `address`, `resolve`, `connect`, `tls`, `timeout`, `status`, `encoding`,
    `size`, `protocol`, `json`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Fetcher:
    """Gets JSON documents over https; over http only from loopback, where private networks are allowed."""

    def __init__(
        self,
        *,
        allow_private_network: bool = False,
        ca_file: Path | None = None,
        timeout: float = 3.0,
        max_bytes: int = MAX_BYTES,
        resolve: Resolver | None = None,
    ) -> None:
        """`timeout` bounds a whole fetch, in seconds; `ca_file` replaces the machine's own certificate
        authorities.

        Raises `OSError` where `ca_file` cannot be read or holds no certificate.
        """
        self._allow_private_network = allow_private_network
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._resolve = resolve or system_resolver

    def get_json(self, url: str) -> object:
        """The JSON document at `url`, read strictly. Raises `FetchFailed`."""
        return self._json("GET", url, {}, None)

    def post_form(self, url: str, form: Mapping[str, str], authorization: str) -> object:
        """The JSON document that answers a form, sent with that `Authorization`. Raises `FetchFailed`."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": authorization}
        return self._json("POST", url, headers, urlencode(form).encode())

    def _json(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> object:
        parts = self._checked_url(url)
        with _failures():
            body = self._ask(method, url, headers, content, loopback_only=parts.scheme == "http")
        try:
            return strict_json.parse(body, max_bytes=self._max_bytes)
        except strict_json.JsonRefused as error:
            raise FetchFailed("json") from error

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send `body` to `url`; the status of the answer, of which nothing else is read. Raises `FetchFailed`."""
        return self.ask(url, body, headers, most_read=0)[0]

    def ask(self, url: str, body: bytes, headers: Mapping[str, str], *, most_read: int) -> tuple[int, bytes]:
        """Send `body` to `url`; the status of the answer, and its first `most_read` bytes. Raises `FetchFailed`."""
        parts = self._checked_url(url)
        sent: dict[bytes | str, bytes | str] = {"User-Agent": "authserver"}
        sent.update(headers.items())
        with (
            _failures(),
            self._pool(parts.scheme == "http") as pool,
            pool.stream("POST", url, headers=sent, content=body) as response,
        ):
            return response.status, _beginning(response, most_read)

    def _checked_url(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            port = parts.port  # reading it checks it
        except ValueError as error:
            raise FetchFailed("url") from error
        http_allowed = self._allow_private_network and is_loopback(parts.hostname or "")
        if parts.scheme != "https" and not (parts.scheme == "http" and http_allowed):
            raise FetchFailed("url")
        is_plain = _PLAIN_URL.fullmatch(url) and parts.hostname and port != 0
        if not is_plain or parts.username is not None or parts.fragment:
            raise FetchFailed("url")
        return parts

    def _ask(
        self, method: str, url: str, more: Mapping[str, str], content: bytes | None, loopback_only: bool
    ) -> bytes:
        headers: dict[bytes | str, bytes | str] = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "authserver",
        }
        headers.update(more.items())
        with (
            self._pool(loopback_only) as pool,
            pool.stream(method, url, headers=headers, content=content) as response,
        ):
            return self._body(response)

    def _pool(self, loopback_only: bool) -> httpcore.ConnectionPool:
        backend = _PinnedBackend(
            self._resolve, _Deadline(self._timeout), self._allow_private_network, loopback_only
        )
        return httpcore.ConnectionPool(
            ssl_context=self._tls, network_backend=backend, max_connections=1, http2=False, retries=0
        )

    def _body(self, response: httpcore.Response) -> bytes:
        # A redirect is a status like any other that is not 200: the place it names is never asked.
        if response.status != 200:
            raise FetchFailed("status")
        headers = {name.lower(): value for name, value in response.headers}
        # An encoded body could be a thousand times its size on the wire; we asked for none.
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise FetchFailed("encoding")
        body = bytearray()
        for part in response.iter_stream():
            body += part
            if len(body) > self._max_bytes:
                raise FetchFailed("size")
        return bytes(body)


def _beginning(response: httpcore.Response, most: int) -> bytes:
    read = bytearray()
    for part in response.iter_stream() if most else ():
        read += part
        if len(read) >= most:
            break
    return bytes(read[:most])


def system_resolver(host: str, port: int) -> list[str]:
    """The addresses of a host as the machine's resolver tells them. Raises `OSError`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Deadline:
    """The end of one fetch. Every step gets what is left, so many small steps are not longer than one."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise FetchFailed("timeout")
        return left


class _PinnedBackend(NetworkBackend):
    """Connects to checked addresses only, and holds every step to the deadline."""

    def __init__(
        self, resolve: Resolver, deadline: _Deadline, allow_private_network: bool, loopback_only: bool
    ) -> None:
        self._resolve = resolve
        self._deadline = deadline
        self._allow_private_network = allow_private_network
        self._loopback_only = loopback_only
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> NetworkStream:
        failure: Exception = FetchFailed("resolve")
        for address in self._checked_addresses(host, port):
            try:
                stream = self._sockets.connect_tcp(str(address), port, timeout=self._deadline.left())
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failure

    def _checked_addresses(self, host: str, port: int) -> list[Address]:
        addresses = self._addresses(host, port)
        # One bad address among good ones is how a rebinding name begins.
        if not all(self._allows(address) for address in addresses):
            raise FetchFailed("address")
        return addresses

    def _allows(self, address: Address) -> bool:
        if self._loopback_only:
            return address.is_loopback
        return is_allowed(address, self._allow_private_network)

    def _addresses(self, host: str, port: int) -> list[Address]:
        # getaddrinfo knows no time-out: it is asked in a thread of its own, and left alone when it takes too
        # long.
        answers: SimpleQueue[list[Address] | Exception] = SimpleQueue()

        def ask() -> None:
            try:
                answers.put([ipaddress.ip_address(text) for text in self._resolve(host, port)])
            except (OSError, ValueError) as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True, name="resolver").start()
        try:
            answer = answers.get(timeout=self._deadline.left())
        except Empty as error:
            raise FetchFailed("timeout") from error
        if isinstance(answer, Exception):
            raise FetchFailed("resolve") from answer
        return answer


def is_allowed(address: Address, allow_private_network: bool) -> bool:
    """Whether a fetch may connect to `address`: any public one, a private or loopback one where allowed.

    Link-local addresses (where clouds keep their metadata), multicast, unspecified and reserved ones are never
    allowed.
    """
    address = _embedded_ipv4(address) or address
    if address.is_multicast or address.is_unspecified or address.is_link_local:
        return False
    # In the reserved ::/8 an IPv4 address can be written in ways that nobody needs (RFC 4291 §2.5.5.1, RFC 8215).
    if address.is_reserved and not address.is_loopback:
        return False
    return (address.is_global and address not in _SITE_LOCAL) or allow_private_network


def _embedded_ipv4(address: Address) -> Address | None:
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])


class _TimedStream(NetworkStream):
    """A connection on which nothing takes longer than what is left of the fetch."""

    def __init__(self, stream: NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout=self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout=self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, timeout=self._deadline.left())
        except httpcore.ConnectError as error:
            raise FetchFailed("tls") from error
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except httpcore.TimeoutException as error:
        raise FetchFailed("timeout") from error
    except httpcore.ConnectError as error:
        raise FetchFailed("connect") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ValueError) as error:
        raise FetchFailed("protocol") from error
