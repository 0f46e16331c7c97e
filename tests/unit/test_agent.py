"""What an agent installs, against an authorization server that answers as each test says."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from authserver.agent import Agent, ExchangeRefused, IssuerUnavailable
from authserver.errors import Violation
from tests.listening import listening

SEARCH = {"type": "agent_action", "actions": ["catalog.search"]}
ISSUED = {
    "access_token": "secret.action.token",
    "token_type": "Bearer",
    "expires_in": 300,
    "action_id": "action-1",
    "authorization_details": [SEARCH],
}


@dataclass
class FakeServer:
    """Answers each exchange with `status` and `body`, and remembers what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = json.dumps(ISSUED).encode()
    forms: list[dict[str, list[str]]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    metadata_reads: int = 0

    def client(self) -> Agent:
        return Agent(self.url, lambda: f"assertion-{len(self.forms)}")

    def answers(self, status: int, body: object) -> None:
        self.status, self.body = status, json.dumps(body).encode()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.metadata_reads += 1
            names = ("token_endpoint", "jwks_uri", "introspection_endpoint")
            self._answer(
                200, json.dumps({"issuer": fake.url} | {n: f"{fake.url}/{n}" for n in names}).encode()
            )

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fake.forms.append(parse_qs(body.decode()))
            fake.keys.append(self.headers["Idempotency-Key"])
            self._answer(fake.status, fake.body)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{listener.server_port}"
    with listening(listener):
        yield fake


def test_an_exchange_sends_what_the_contract_asks_and_metadata_are_read_once(server: FakeServer) -> None:
    client = server.client()
    for _ in range(2):
        client.exchange(
            "grant", SEARCH, "https://shop.example/api", idempotency_key="key-1", task_id="task-1"
        )
    assert server.metadata_reads == 1
    assert server.keys == ["key-1", "key-1"]
    first, second = server.forms
    assert first == {
        "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "subject_token": ["grant"],
        "subject_token_type": ["urn:authserver:token-type:delegation-grant"],
        "actor_token": ["assertion-0"],
        "actor_token_type": ["urn:ietf:params:oauth:token-type:jwt"],
        "authorization_details": [json.dumps([SEARCH])],
        "resource": ["https://shop.example/api"],
        "task_id": ["task-1"],
    }
    assert second["actor_token"] == ["assertion-1"]


def test_an_issued_token_is_typed_and_its_repr_hides_it(server: FakeServer) -> None:
    issued = server.client().exchange("grant", SEARCH)
    assert (issued.access_token, issued.token_type) == ("secret.action.token", "Bearer")
    assert (issued.expires_in, issued.action_id, issued.action) == (300, "action-1", SEARCH)
    assert "secret" not in repr(issued)


def test_a_refusal_has_every_violation(server: FakeServer) -> None:
    server.answers(
        400,
        {
            "error": "invalid_authorization_details",
            "error_description": "the delegation does not allow this",
            "violations": [{"constraint": "limits.per_action", "requested": "92.00", "allowed": "80.00"}],
        },
    )
    with pytest.raises(ExchangeRefused) as refused:
        server.client().exchange("grant", SEARCH)
    assert refused.value.error == "invalid_authorization_details"
    assert refused.value.description == "the delegation does not allow this"
    assert refused.value.violations == (Violation("limits.per_action", "92.00", "80.00"),)
    assert refused.value.status == 400


def test_a_server_that_cannot_commit_is_a_refusal_with_its_status(server: FakeServer) -> None:
    server.answers(503, {"error": "temporarily_unavailable", "error_description": "try again"})
    with pytest.raises(ExchangeRefused) as refused:
        server.client().exchange("grant", SEARCH)
    assert (refused.value.error, refused.value.status) == ("temporarily_unavailable", 503)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>a proxy says hello</html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, json.dumps(ISSUED | {"expires_in": "300"}).encode()),
        (200, json.dumps(ISSUED | {"authorization_details": []}).encode()),
        (502, b"bad gateway"),
        (400, b'{"message": "no"}'),
        (200, b'{"access_token": "a", "access_token": "b"}'),
    ],
)
def test_an_answer_in_no_known_form_is_no_token(server: FakeServer, status: int, body: bytes) -> None:
    server.status, server.body = status, body
    with pytest.raises(IssuerUnavailable):
        server.client().exchange("grant", SEARCH)


def test_a_server_that_is_not_there_is_said_so() -> None:
    with pytest.raises(IssuerUnavailable, match="cannot be reached"):
        Agent("http://127.0.0.1:1", lambda: "assertion").exchange("grant", SEARCH)
