"""A receiver of Security Event Tokens, written against the specifications alone: it knows nothing of this project.

OpenID Shared Signals Framework 1.0 ("SSF"), RFC 8417, RFC 8935, RFC 8936, RFC 9493.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from tests.listening import listening

PUSH, POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"
FORMATS = {  # RFC 9493 §3.2, SSF §3.3 and §3.5
    "opaque": {"id"},
    "iss_sub": {"iss", "sub"},
    "jwt_id": {"iss", "jti"},
}
COMPLEX = {"user", "device", "session", "application", "tenant", "org_unit", "group"}


class SetError(Exception):
    """A token that a receiver must not take; `str()` is the `err` of RFC 8935 §2.4."""


@dataclass
class Transmitter:
    """A transmitter, as its own metadata describes it."""

    issuer: str
    receiver: str  # what this receiver expects in `aud`
    auth: Any
    metadata: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def discover(self) -> dict[str, Any]:
        """SSF §7.2: the well-known part stands between host and path; §7.2.4: `issuer` must be identical."""
        parts = urlsplit(self.issuer)
        path = parts.path.removesuffix("/")
        answer = httpx.get(f"{parts.scheme}://{parts.netloc}/.well-known/ssf-configuration{path}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        self.metadata = answer.json()
        assert self.metadata["issuer"] == self.issuer
        keys = httpx.get(self.metadata["jwks_uri"]).json()["keys"]
        self.keys = {key["kid"]: jwt.PyJWK(key).key for key in keys}
        return self.metadata

    # --- SSF §8.1 -----------------------------------------------------------------------------------------

    def ask(self, method: str, endpoint: str, body: object = None, **query: str) -> httpx.Response:
        """A request to one of the endpoints of the metadata."""
        url = self.metadata[endpoint] if endpoint.endswith("_endpoint") else endpoint
        return httpx.request(method, url, json=body, params=query or None, auth=self.auth, timeout=30)

    def stream(self, **wanted: Any) -> dict[str, Any]:
        """Create one; §8.1.1.1 says what must be checked."""
        answer = self.ask("POST", "configuration_endpoint", wanted)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        self.is_configuration(made)
        return made

    def is_configuration(self, stream: dict[str, Any]) -> None:
        """SSF §8.1.1: what is REQUIRED, and of which kind."""
        assert isinstance(stream["stream_id"], str)
        assert stream["iss"] == self.issuer
        assert stream["aud"] in (self.receiver, [self.receiver])
        assert stream["delivery"]["method"] in (PUSH, POLL)
        assert stream["delivery"]["endpoint_url"]
        supported, delivered = set(stream["events_supported"]), set(stream["events_delivered"])
        assert delivered <= supported
        if "events_requested" in stream:
            assert delivered == supported & set(stream["events_requested"])

    def poll(self, stream: dict[str, Any], **said: Any) -> tuple[dict[str, Any], bool]:
        """RFC 8936 §2.2, §2.4: what there is, every token checked."""
        answer = self.ask("POST", stream["delivery"]["endpoint_url"], {"returnImmediately": True} | said)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        claims = {jti: self.read(token) for jti, token in body["sets"].items()}
        assert all(jti == read["jti"] for jti, read in claims.items())
        return claims, bool(body.get("moreAvailable", False))

    # --- RFC 8417 and SSF §4.1 ----------------------------------------------------------------------------

    def read(self, token: str) -> dict[str, Any]:
        """Every rule for a SET of the framework. Raises `SetError`."""
        header = jwt.get_unverified_header(token)
        if header.get("typ") != "secevent+jwt":  # SSF §4.1.1
            raise SetError("invalid_request")
        key = self.keys.get(header["kid"])
        if key is None:
            raise SetError("invalid_key")
        # When it was signed is not judged here: the tests move the server's clock.
        options: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": True}
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=["ES256"], audience=self.receiver, issuer=self.issuer, options=options
            )
        except jwt.InvalidAudienceError as error:
            raise SetError("invalid_audience") from error
        except jwt.InvalidIssuerError as error:
            raise SetError("invalid_issuer") from error
        except jwt.InvalidTokenError as error:
            raise SetError("invalid_request") from error
        if {"sub", "exp"} & claims.keys():  # SSF §4.1.2, §4.1.7
            raise SetError("invalid_request")
        if not {"jti", "iat", "events", "sub_id"} <= claims.keys() or len(claims["events"]) != 1:
            raise SetError("invalid_request")
        is_subject(claims["sub_id"])
        return claims


def is_subject(subject: dict[str, Any]) -> None:
    """SSF §3.2, §3.3: a simple subject of a known format, or a complex one of simple ones."""
    members = subject.keys() - {"format"}
    if subject["format"] != "complex":
        assert members == FORMATS[subject["format"]], subject
        return
    assert members
    assert members <= COMPLEX
    for name in members:
        assert subject[name]["format"] != "complex"
        is_subject(subject[name])


def event_of(claims: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The one event: its type, and what it says."""
    [(type, event)] = claims["events"].items()
    return type, event


@dataclass
class PushEndpoint:
    """Where a transmitter pushes to (RFC 8935 §2). `refuses` makes it answer with an `err`; `is_up` or else a 503."""

    transmitter: Transmitter
    url: str = ""
    is_up: bool = True
    refuses: str | None = None
    authorization: str | None = None
    got: list[dict[str, Any]] = field(default_factory=list)
    attempts: int = 0
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def answer(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """§2.2: 202 for what it has; §2.3: 400 and why, for what it cannot take."""
        self.attempts += 1
        if not self.is_up:
            return 503, b""
        if headers.get("authorization") != self.authorization:
            return 400, b'{"err":"authentication_failed","description":"who are you?"}'
        if headers.get("content-type") != "application/secevent+jwt":  # §2.1
            return 400, b'{"err":"invalid_request"}'
        try:
            if self.refuses is not None:
                raise SetError(self.refuses)
            claims = self.transmitter.read(body.decode("ascii"))
        except SetError as error:
            return 400, json.dumps({"err": str(error), "description": "no"}).encode()
        with self.arrived:
            self.got.append(claims)
            self.arrived.notify_all()
        return 202, b""

    def waits_for(self, number: int, seconds: float = 5) -> list[dict[str, Any]]:
        """Whatever came, as soon as it is so many."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.got) >= number, seconds), self.got
            return list(self.got)


@contextmanager
def pushed_to(transmitter: Transmitter) -> Iterator[PushEndpoint]:
    """Listen on a free port."""
    endpoint = PushEndpoint(transmitter)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = endpoint.answer(headers, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_port}/events"
    with listening(server):
        yield endpoint
