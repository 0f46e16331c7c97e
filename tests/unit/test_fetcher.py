"""Documents from elsewhere are fetched within bounds, from checked addresses (threat A45). Real servers on loopback."""

import gzip
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from authserver.actors.fetcher import Fetcher, FetchFailed, is_allowed
from tests.certificates import Authority

GOOD = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"keys":[]}'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Server:
    """A server on loopback: each connection is answered by a function of its own."""

    port: int
    connections: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it is, over http."""
        return f"http://127.0.0.1:{self.port}/jwks.json"


@contextmanager
def server(answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server that calls `answer` with every connection, after it has read the request."""
    listener = socket.create_server(("127.0.0.1", 0))
    running = Server(listener.getsockname()[1])

    def handle(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            running.connections.append(connection.recv(65_536))
            answer(connection)
            connection.close()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def says(answer: bytes) -> Callable[[socket.socket], None]:
    """An answer that is sent at once."""
    return lambda connection: connection.sendall(answer)


def byte_by_byte(answer: bytes, pause: float) -> Callable[[socket.socket], None]:
    """An answer of which a byte comes now and then."""

    def send(connection: socket.socket) -> None:
        for byte in answer:
            connection.sendall(bytes([byte]))
            time.sleep(pause)

    return send


def local(timeout: float = 3.0, max_bytes: int = 512 * 1024) -> Fetcher:
    """A fetcher that may reach loopback addresses."""
    return Fetcher(allow_private_network=True, timeout=timeout, max_bytes=max_bytes)


def reason(fetcher: Fetcher, url: str) -> str:
    """Why there is no document."""
    with pytest.raises(FetchFailed) as failed:
        fetcher.get_json(url)
    return failed.value.reason


class Resolver:
    """A name service that gives one answer after the other, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A CA that vouches for keys.example and 127.0.0.1."""
    return Authority.make(tmp_path)


def test_a_document_is_fetched() -> None:
    with server(says(GOOD)) as running:
        assert local().get_json(running.url) == {"keys": []}
    assert running.connections[0].startswith(b"GET /jwks.json HTTP/1.1\r\n")


def test_a_document_is_fetched_over_tls_from_the_address_that_was_looked_up(authority: Authority) -> None:
    resolver = Resolver(["127.0.0.1"])
    fetcher = Fetcher(allow_private_network=True, ca_file=authority.ca_file, resolve=resolver)
    with server(says(GOOD), authority.tls) as running:
        assert fetcher.get_json(f"https://keys.example:{running.port}/jwks.json") == {"keys": []}
    assert b"Host: keys.example" in running.connections[0]
    assert resolver.asked == ["keys.example"]


def test_a_certificate_of_another_name_or_authority_is_refused(authority: Authority) -> None:
    resolver = Resolver(["127.0.0.1"])
    with server(says(GOOD), authority.tls) as running:
        known = Fetcher(allow_private_network=True, ca_file=authority.ca_file, resolve=resolver)
        assert reason(known, f"https://other.example:{running.port}/") == "tls"
        unknown = Fetcher(allow_private_network=True, resolve=resolver)
        assert reason(unknown, f"https://keys.example:{running.port}/") == "tls"
    assert running.connections == []


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with server(says(GOOD)) as running:
        assert local().get_json(running.url) == {"keys": []}


@pytest.mark.parametrize(
    "url",
    [
        "http://keys.example/jwks.json",
        "http://10.0.0.1/jwks.json",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "ftp://127.0.0.1/keys",
        "gopher://127.0.0.1/",
        "https://",
        "https:///jwks.json",
        "https://user:password@keys.example/",
        "https://keys.example:0/",
        "https://keys.example:99999/",
        "https://keys.example/#fragment",
        "https://schlüssel.example/",
        "//keys.example/",
        "https://keys.example/a b",
        "https://keys.example/\r\nHost: other",
        "",
    ],
)
def test_A45_only_https_and_loopback_http_are_fetched(url: str) -> None:
    assert reason(local(), url) == "url"


def test_A45_loopback_http_is_refused_unless_private_networks_are_allowed() -> None:
    with server(says(GOOD)) as running:
        assert reason(Fetcher(), running.url) == "url"
        assert reason(Fetcher(), running.url.replace("http:", "https:")) == "address"
    assert running.connections == []


PRIVATE = [
    "10.0.0.1",
    "172.16.5.5",
    "192.168.1.1",
    "127.0.0.1",
    "::1",
    "fd00::1",
    "100.64.0.1",
    "::ffff:10.0.0.1",
]
NEVER = [
    "169.254.169.254",
    "fe80::1",
    "224.0.0.1",
    "ff02::1",
    "0.0.0.0",
    "::",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_A45_private_addresses_are_reached_only_where_that_is_allowed(address: str) -> None:
    assert not is_allowed(ipaddress.ip_address(address), allow_private_network=False)
    assert is_allowed(ipaddress.ip_address(address), allow_private_network=True)


@pytest.mark.parametrize("address", NEVER)
def test_A45_link_local_multicast_and_unspecified_addresses_are_never_reached(address: str) -> None:
    assert not is_allowed(ipaddress.ip_address(address), allow_private_network=True)
    assert reason(
        Fetcher(allow_private_network=True, resolve=Resolver([address])), "https://keys.example/"
    ) == ("address")


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_A45_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(ipaddress.ip_address(address), allow_private_network=False)


@pytest.mark.parametrize("address", PRIVATE + NEVER)
def test_A45_a_name_with_one_inner_address_is_not_fetched_at_all(address: str) -> None:
    assert reason(Fetcher(resolve=Resolver(["93.184.215.14", address])), "https://keys.example/") == "address"


def test_A45_a_name_that_changes_after_the_check_changes_nothing(authority: Authority) -> None:
    resolver = Resolver(["127.0.0.1"], ["169.254.169.254"])
    fetcher = Fetcher(allow_private_network=True, ca_file=authority.ca_file, resolve=resolver)
    with server(says(GOOD), authority.tls) as running:
        url = f"https://keys.example:{running.port}/jwks.json"
        assert fetcher.get_json(url) == {"keys": []}
        assert resolver.asked == ["keys.example"]  # looked up once, then connected to what was checked
        assert reason(fetcher, url) == "address"  # and looked up anew, and checked, the next time
    assert len(running.connections) == 1


def test_A45_the_name_localhost_over_http_is_nothing_but_loopback() -> None:
    fetcher = Fetcher(allow_private_network=True, resolve=Resolver(["10.0.0.1"]))
    assert reason(fetcher, "http://localhost:8080/jwks.json") == "address"


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
@pytest.mark.parametrize(
    "place", ["http://169.254.169.254/latest/", "file:///etc/passwd", "//127.0.0.1/", "/"]
)
def test_A45_a_redirect_is_not_followed(status: str, place: str) -> None:
    answer = f"HTTP/1.1 {status}\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
    with server(says(answer)) as running:
        assert reason(local(), running.url) == "status"
    assert len(running.connections) == 1


def test_A45_a_redirect_to_another_server_never_reaches_it() -> None:
    with server(says(GOOD)) as target:
        answer = f"HTTP/1.1 302 Found\r\nLocation: {target.url}\r\nContent-Length: 0\r\n\r\n".encode()
        with server(says(answer)) as running:
            assert reason(local(), running.url) == "status"
    assert target.connections == []


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "204 No Content", "206 Partial"])
def test_whatever_is_not_200_is_no_document(status: str) -> None:
    with server(says(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())) as running:
        assert reason(local(), running.url) == "status"


@pytest.mark.parametrize(
    "answer",
    [
        byte_by_byte(GOOD, 0.1),
        byte_by_byte(CHUNKED + b"1\r\n \r\n" * 1000, 0.1),
        byte_by_byte(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000, 0.01),
        lambda _: time.sleep(3),
    ],
    ids=["headers", "body", "interim answers", "silence"],
)
def test_A45_a_slow_answer_is_cut_off(answer: Callable[[socket.socket], None]) -> None:
    with server(answer) as running:
        begun = time.monotonic()
        assert reason(local(timeout=0.4), running.url) == "timeout"
        assert time.monotonic() - begun < 2


def test_A45_a_server_that_never_ends_its_handshake_is_cut_off() -> None:
    with server(lambda _: time.sleep(3)) as running:
        begun = time.monotonic()
        assert reason(local(timeout=0.4), running.url.replace("http:", "https:")) == "timeout"
        assert time.monotonic() - begun < 2


def test_A45_a_slow_name_service_is_cut_off() -> None:
    def slow(host: str, port: int) -> list[str]:
        time.sleep(2)
        return ["127.0.0.1"]

    begun = time.monotonic()
    assert reason(Fetcher(timeout=0.3, resolve=slow), "https://keys.example/") == "timeout"
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", CHUNKED],
    ids=["length", "until close", "chunked"],
)
def test_A45_a_huge_answer_is_cut_off(head: bytes) -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(head)
        part = b"10000\r\n" + b" " * 65_536 + b"\r\n" if head is CHUNKED else b" " * 65_536
        for _ in range(1600):
            connection.sendall(part)
            sent += len(part)

    with server(flood) as running:
        assert reason(local(), running.url) == "size"
    assert sent < 20_000_000  # what the machine's own buffers took, not the 100 MB


def test_A45_an_answer_of_exactly_the_limit_is_read() -> None:
    body = b'"' + b"a" * 998 + b'"'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + body
    with server(says(answer)) as running:
        assert local(max_bytes=1000).get_json(running.url) == "a" * 998
        assert reason(local(max_bytes=999), running.url) == "size"


def test_A45_a_gzip_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"[" + b"0," * 50_000_000 + b"0]")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    with server(says(head.encode() + bomb)) as running:
        assert reason(local(), running.url) == "encoding"
    assert b"Accept-Encoding: identity" in running.connections[0]


def test_A45_a_header_of_a_megabyte_is_refused() -> None:
    with server(says(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n")) as running:
        assert reason(local(), running.url) == "protocol"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        CHUNKED + b"zz\r\n",
    ],
)
def test_an_answer_that_is_not_http_or_breaks_off_is_no_document(answer: bytes) -> None:
    with server(says(answer)) as running:
        assert reason(local(), running.url) == "protocol"


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"keys":[],"keys":[]}', b"[" * 100_000, b"\xff", b"NaN", b"<html>"]
)
def test_a_body_that_is_not_strict_json_is_no_document(body: bytes) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with server(says(answer)) as running:
        assert reason(local(), running.url) == "json"


def test_a_server_that_is_not_there_is_said_so() -> None:
    with server(says(GOOD)) as running:
        pass
    assert reason(local(), running.url) == "connect"


def test_a_name_that_nobody_knows_is_said_so() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    assert reason(Fetcher(resolve=unknown), "https://keys.example/") == "resolve"
    assert reason(Fetcher(), f"https://{'a' * 70}.example/") == "resolve"
    assert reason(Fetcher(resolve=lambda host, port: []), "https://keys.example/") == "resolve"
    assert reason(Fetcher(resolve=lambda host, port: ["not an address"]), "https://k.example/") == "resolve"


def test_the_next_address_is_tried_where_one_does_not_answer(authority: Authority) -> None:
    fetcher = Fetcher(
        allow_private_network=True, ca_file=authority.ca_file, resolve=Resolver(["127.0.0.2", "127.0.0.1"])
    )
    with server(says(GOOD), authority.tls) as running:
        assert fetcher.get_json(f"https://keys.example:{running.port}/") == {"keys": []}


def test_a_file_of_authorities_that_cannot_be_read_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Fetcher(ca_file=tmp_path / "missing.pem")
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(OSError):
        Fetcher(ca_file=tmp_path / "empty.pem")
