"""What a resource server settles with, against a server of the test's own that answers as each test says."""

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from authserver.errors import Violation
from authserver.resource_server import (
    IssuerUnavailable,
    Merchant,
    Redemption,
    Settlement,
    SettlementRefused,
)
from authserver.values import Country, MerchantCategory, Money
from tests.listening import listening

EUR_30 = Money("EUR", 3000)
REDEEMED = {
    "redemption_id": "redemption-1",
    "action_id": "action-1",
    "state": "captured",
    "amount": {"currency": "EUR", "value": "30.00"},
}
NO_ANSWER = "the connection is closed"


@dataclass(frozen=True)
class Asked:
    """One request that arrived."""

    path: str
    body: dict[str, Any]
    key: str
    authorization: str


@dataclass
class FakeServer:
    """Gives its `answers` in their order, and the last one for ever; `NO_ANSWER` ends the connection instead."""

    url: str = ""
    endpoint: str | None = "/oauth/redeem"
    answers: list[tuple[int, Any] | str] = field(default_factory=lambda: [(201, REDEEMED)])
    asked: list[Asked] = field(default_factory=list)

    def settlement(self) -> Settlement:
        return Settlement(self.url, "rs:shop", "s+cret")

    def metadata(self) -> dict[str, str]:
        names = ("token_endpoint", "jwks_uri", "introspection_endpoint")
        said = {"issuer": self.url} | {name: f"{self.url}/{name}" for name in names}
        return said if self.endpoint is None else said | {"redemption_endpoint": self.url + self.endpoint}

    def next_answer(self) -> tuple[int, Any] | str:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, json.dumps(fake.metadata()))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key, authorization = self.headers["Idempotency-Key"], self.headers["Authorization"]
            fake.asked.append(Asked(self.path, body, key, authorization))
            answer = fake.next_answer()
            if isinstance(answer, tuple):
                status, said = answer
                self._answer(status, said if isinstance(said, str) else json.dumps(said))

        def _answer(self, status: int, body: str) -> None:
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{listener.server_port}"
    with listening(listener):
        yield fake


def problem(status: int, name: str = "conflict", **members: object) -> tuple[int, dict[str, object]]:
    said = {
        "type": f"https://auth.example/errors/{name}",
        "title": name,
        "status": status,
        "detail": "it ended",
    }
    return status, said | members


def test_a_redemption_sends_what_the_contract_asks_and_is_read_into_typed_values(server: FakeServer) -> None:
    merchant = Merchant("m_1", MerchantCategory("5411"), Country("NL"))
    redemption = server.settlement().redeem("a.b.c", EUR_30, merchant, capture=False, idempotency_key="key-1")
    assert redemption == Redemption("redemption-1", "action-1", "captured", EUR_30)
    [asked] = server.asked
    assert (asked.path, asked.key) == ("/oauth/redeem", "key-1")
    assert asked.body == {
        "token": "a.b.c",
        "amount": {"currency": "EUR", "value": "30.00"},
        "merchant": {"id": "m_1", "category": "5411", "country": "NL"},
        "capture": False,
    }
    # RFC 6749 §2.3.1: form-encoded before they are joined.
    assert asked.authorization == f"Basic {b64encode(b'rs%3Ashop:s%2Bcret').decode()}"


def test_what_is_left_out_is_the_tokens_own(server: FakeServer) -> None:
    server.answers = [(201, {name: value for name, value in REDEEMED.items() if name != "amount"})]
    assert server.settlement().redeem("a.b.c").amount is None
    assert server.asked[0].body == {"token": "a.b.c", "capture": True}


def test_the_steps_of_a_redemption_are_beside_it(server: FakeServer) -> None:
    server.endpoint, server.answers = "/tenant/oauth/redeem", [(200, REDEEMED)]
    settlement = server.settlement()
    settlement.capture("r-1", EUR_30)
    settlement.void("r-1")
    settlement.refund("../r 1")
    assert [(asked.path, asked.body) for asked in server.asked] == [
        ("/tenant/oauth/redemptions/r-1/capture", {"amount": {"currency": "EUR", "value": "30.00"}}),
        ("/tenant/oauth/redemptions/r-1/void", {}),
        ("/tenant/oauth/redemptions/..%2Fr%201/refund", {}),
    ]


@pytest.mark.parametrize("redemption_id", ["", ".", ".."])
def test_what_is_no_id_asks_for_nothing(server: FakeServer, redemption_id: str) -> None:
    with pytest.raises(ValueError, match="redemption"):
        server.settlement().void(redemption_id)
    assert server.asked == []


@pytest.mark.parametrize("first", [NO_ANSWER, (503, {}), (503, "busy")], ids=str)
def test_a_lost_answer_is_asked_for_again_under_the_same_key(server: FakeServer, first: Any) -> None:
    server.answers = [first, (201, REDEEMED)]
    assert server.settlement().redeem("a.b.c", EUR_30).state == "captured"
    one, another = server.asked
    assert one == another
    assert len(one.key) >= 20


def test_every_call_without_a_key_has_one_of_its_own(server: FakeServer) -> None:
    settlement = server.settlement()
    settlement.redeem("a.b.c")
    settlement.redeem("a.b.c")
    assert len({asked.key for asked in server.asked}) == 2


@pytest.mark.parametrize("answer", [NO_ANSWER, (503, {})], ids=str)
def test_a_server_that_stays_away_is_asked_twice_and_no_more(server: FakeServer, answer: Any) -> None:
    server.answers = [answer]
    with pytest.raises(IssuerUnavailable):
        server.settlement().redeem("a.b.c")
    assert len(server.asked) == 2


def test_a_refusal_says_what_was_crossed_and_whether_the_token_is_spent(server: FakeServer) -> None:
    crossed = [{"constraint": "merchants.categories", "requested": "7995", "allowed": ["5411"]}]
    server.answers = [problem(409, "merchant_facts", violations=crossed, voided=True)]
    with pytest.raises(SettlementRefused) as raised:
        server.settlement().redeem("a.b.c")
    refused = raised.value
    assert (refused.status, refused.error, refused.detail) == (409, "merchant_facts", "it ended")
    assert refused.violations == (Violation("merchants.categories", "7995", ["5411"]),)
    assert refused.voided
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_a_refusal_is_not_asked_for_again(server: FakeServer, status: int) -> None:
    server.answers = [problem(status), (201, REDEEMED)]
    with pytest.raises(SettlementRefused) as refused:
        server.settlement().redeem("a.b.c")
    assert (refused.value.status, refused.value.violations, refused.value.voided) == (status, (), False)


@pytest.mark.parametrize(
    "answer",
    [
        (201, "<html>"),
        (201, []),
        (201, {"redemption_id": "redemption-1"}),
        (201, REDEEMED | {"amount": 30}),
        (201, REDEEMED | {"amount": {"currency": "EUR", "value": 30}}),
        (201, REDEEMED | {"action_id": None}),
        (302, {}),
        problem(401),
        problem(403),
        problem(500),
        (404, "<html>"),
        (404, {"status": 404}),
        problem(409, violations="many"),
        problem(409, violations=[7]),
    ],
    ids=str,
)
def test_an_answer_that_means_nothing_is_neither_a_yes_nor_a_no(server: FakeServer, answer: Any) -> None:
    server.answers = [answer]
    with pytest.raises(IssuerUnavailable):
        server.settlement().redeem("a.b.c")


def test_a_server_without_settlement_is_told_apart(server: FakeServer) -> None:
    server.endpoint = None
    with pytest.raises(IssuerUnavailable, match="redemption_endpoint"):
        server.settlement().redeem("a.b.c")


def test_a_redemption_endpoint_that_is_not_https_is_not_used(server: FakeServer) -> None:
    server.endpoint = None
    metadata = server.metadata
    server.metadata = lambda: metadata() | {"redemption_endpoint": "http://auth.example/oauth/redeem"}  # type: ignore[method-assign]
    with pytest.raises(IssuerUnavailable, match="redemption_endpoint"):
        server.settlement().redeem("a.b.c")
    assert server.asked == []
