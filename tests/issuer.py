"""An issuer of the tests' own, over real HTTP: signs what it is told to, serves its status lists well or badly."""

import base64
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc.jwk import ECKey

from authserver import jose
from authserver.resource_server import Verifier
from tests.fakes import SettableClock
from tests.listening import listening

SHOP = "https://shop.example/api"
LIST = "/status/1"
DATATYPES = {
    "profile": ["contact", "name"],
    "contact": ["email", "phone"],
    "name": [],
    "email": [],
    "phone": [],
    "shipping_address": [],
}


def new_key() -> jose.SigningKey:
    """A key pair, with its thumbprint as its name."""
    key = ECKey.generate_key("P-256")
    return jose.SigningKey(key.thumbprint(), key)


def details(**changes: Any) -> dict[str, Any]:
    """An `agent_action` to pay at the shop; None takes a member away."""
    said = {
        "type": "agent_action",
        "actions": ["payment.finalize"],
        "locations": [SHOP],
        "amount": {"currency": "EUR", "value": "42.50"},
        "merchant": {"id": "m_123", "category": "5411", "country": "NL", "name": "Example Foods"},
        "datatypes": ["shipping_address"],
        "reference": "order-1",
    } | changes
    return {name: value for name, value in said.items() if value is not None}


SEARCH = {"type": "agent_action", "actions": ["catalog.search"], "locations": [SHOP]}


def packed(ended: set[int], size: int = 2_048) -> str:
    """The `lst` of a list in which these places are set."""
    bits = bytearray(size)
    for index in ended:
        bits[index // 8] |= 1 << index % 8
    return base64.urlsafe_b64encode(zlib.compress(bytes(bits))).rstrip(b"=").decode()


@dataclass
class FakeIssuer:
    """Publishes metadata, keys and a status list, and counts how often each path is asked for."""

    key: jose.SigningKey = field(default_factory=new_key)
    clock: SettableClock = field(default_factory=SettableClock)
    url: str = ""
    published: list[jose.SigningKey] = field(default_factory=list)
    is_up: bool = True
    ended: set[int] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    list_claims: dict[str, Any] = field(default_factory=dict)  # laid over the usual ones
    list_key: jose.SigningKey | None = None
    list_typ: str = "statuslist+jwt"
    served_list: bytes | None = None  # in place of a good one
    etag: str | None = None
    metadata: dict[str, Any] = field(default_factory=lambda: {"datatypes_supported": DATATYPES})

    def verifier(self, **options: Any) -> Verifier:
        """The shop's verifier."""
        return Verifier(self.url, SHOP, clock=self.clock, **options)

    def fetches(self, path: str) -> int:
        """How often that was asked for."""
        return self.asked.count(path)

    def token(self, *, typ: str = "at+jwt", key: jose.SigningKey | None = None, **changes: Any) -> str:
        """A token to pay; a change to None takes a claim away."""
        now = int(self.clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": "ada-at-the-shop",
            "aud": SHOP,
            "client_id": "basket-helper",
            "act": {"iss": "spiffe://example.org", "sub": "spiffe://example.org/agent/basket-helper"},
            "iat": now,
            "exp": now + 120,
            "jti": "action-1",
            "grant_id": "grant-at-the-shop",
            "authorization_details": [details()],
            "status": {"status_list": {"uri": self.url + LIST, "idx": 7}},
        }
        said = {name: value for name, value in (claims | changes).items() if value is not None}
        return jose.sign(said, key=key or self.key, typ=typ)

    def status_list(self) -> bytes:
        """The list, signed."""
        now = int(self.clock.now().timestamp())
        claims = {
            "iss": self.url,
            "sub": self.url + LIST,
            "iat": now,
            "exp": now + 60,
            "ttl": 15,
            "status_list": {"bits": 1, "lst": packed(self.ended)},
        }
        said = {name: value for name, value in (claims | self.list_claims).items() if value is not None}
        return jose.sign(said, key=self.list_key or self.key, typ=self.list_typ).encode()

    def answer(self, path: str, etag: str | None) -> tuple[int, bytes]:
        """What a GET of that path brings."""
        self.asked.append(path)
        if not self.is_up:
            return 503, b""
        if path == "/.well-known/oauth-authorization-server":
            named = ("token_endpoint", "introspection_endpoint")
            endpoints = {name: f"{self.url}/{name}" for name in named}
            said = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"} | endpoints | self.metadata
            return 200, json.dumps(said).encode()
        if path == "/jwks":
            keys = [
                {**key.key.as_dict(private=False), "kid": key.kid, "use": "sig"} for key in self.published
            ]
            return 200, json.dumps({"keys": keys}).encode()
        if path == LIST:
            if self.etag is not None and self.etag == etag:
                return 304, b""
            return 200, self.status_list() if self.served_list is None else self.served_list
        return 404, b""


@contextmanager
def running_issuer() -> Iterator[FakeIssuer]:
    """Serve one on a free port."""
    fake = FakeIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = fake.answer(self.path, self.headers.get("If-None-Match"))
            self.send_response(status)
            if fake.etag is not None:
                self.send_header("ETag", fake.etag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    fake.published.append(fake.key)
    with listening(server):
        yield fake
