"""Security Event Tokens at a resource server with the kit: only the issuer's own, and each does what it says."""

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from joserfc.jwk import ECKey

from authserver import jose
from authserver.resource_server import (
    AsyncResourceServer,
    EventReceiver,
    InvalidToken,
    ResourceServer,
    SetRefused,
    Verifier,
    asgi,
    wsgi,
)
from authserver.resource_server.endings import _MOST, Endings
from authserver.resource_server.flask import protect
from tests.attacks.making import named
from tests.issuer import LIST, SHOP, FakeIssuer, running_issuer

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
SESSION_REVOKED, CLAIMS_CHANGE = f"{CAEP}session-revoked", f"{CAEP}token-claims-change"
DELEGATION_REVOKED = "https://schemas.authserver/event/delegation-revoked"
GRANT = {"format": "opaque", "id": "grant-at-the-shop"}
SESSION = {"format": "complex", "session": GRANT, "user": {"format": "iss_sub", "iss": "i", "sub": "ada"}}


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with running_issuer() as fake:
        yield fake


@pytest.fixture
def verifier(issuer: FakeIssuer) -> Verifier:
    """The shop's, which has seen a good token."""
    verifier = issuer.verifier()
    verifier.verify(issuer.token())
    return verifier


def a_set(
    issuer: FakeIssuer,
    type: str = DELEGATION_REVOKED,
    subject: Any = GRANT,
    event: dict[str, Any] | None = None,
    *,
    typ: str = "secevent+jwt",
    key: jose.SigningKey | None = None,
    **changes: Any,
) -> str:
    """A token of the issuer; a change to None takes a claim away."""
    now = int(issuer.clock.now().timestamp())
    claims = {"iss": issuer.url, "aud": SHOP, "jti": "event-1", "iat": now, "sub_id": subject}
    claims["events"] = {type: {"event_timestamp": now} | (event or {})}
    said = {name: value for name, value in (claims | changes).items() if value is not None}
    return jose.sign(said, key=key or issuer.key, typ=typ)


def ends(verifier: Verifier, issuer: FakeIssuer, **claims: Any) -> bool:
    """Whether a token is refused as ended."""
    try:
        verifier.verify(issuer.token(**claims))
    except InvalidToken as refused:
        return "token.ended" in str(refused)
    return False


# --- what it says ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "subject"),
    [(DELEGATION_REVOKED, GRANT), (SESSION_REVOKED, SESSION), (SESSION_REVOKED, GRANT)],
)
def test_tokens_of_a_revoked_delegation_are_refused_at_once(
    issuer: FakeIssuer, verifier: Verifier, type: str, subject: dict[str, Any]
) -> None:
    heard = EventReceiver(verifier).take(a_set(issuer, type, subject))
    assert heard is not None
    assert heard.type == type
    assert ends(verifier, issuer)
    assert ends(verifier, issuer, jti="another-action")
    assert not ends(verifier, issuer, grant_id="another-grant")


def test_a_token_that_was_ended_is_refused_and_no_other(issuer: FakeIssuer, verifier: Verifier) -> None:
    subject = {"format": "jwt_id", "iss": issuer.url, "jti": "action-1"}
    EventReceiver(verifier).take(a_set(issuer, SESSION_REVOKED, subject))
    assert ends(verifier, issuer)
    assert not ends(verifier, issuer, jti="action-2")


def test_when_everything_is_revoked_what_was_issued_before_is_refused(
    issuer: FakeIssuer, verifier: Verifier
) -> None:
    everything = {"format": "complex", "tenant": {"format": "opaque", "id": issuer.url}}
    EventReceiver(verifier).take(a_set(issuer, SESSION_REVOKED, everything))
    assert ends(verifier, issuer, grant_id="any")
    issuer.clock.advance(seconds=1)
    assert not ends(verifier, issuer, grant_id="any")


def test_what_is_paused_goes_on_when_it_is_resumed(issuer: FakeIssuer, verifier: Verifier) -> None:
    receiver = EventReceiver(verifier)
    receiver.take(a_set(issuer, CLAIMS_CHANGE, SESSION, {"claims": {"active": False}}))
    assert ends(verifier, issuer)
    receiver.take(a_set(issuer, CLAIMS_CHANGE, SESSION, {"claims": {"active": True}}, jti="event-2"))
    assert not ends(verifier, issuer)


def test_an_old_event_that_is_sent_again_revives_and_ends_nothing_new(
    issuer: FakeIssuer, verifier: Verifier
) -> None:
    receiver, earlier = EventReceiver(verifier), int(issuer.clock.now().timestamp())
    issuer.clock.advance(seconds=60)
    receiver.take(a_set(issuer))
    old = {"claims": {"active": True}, "event_timestamp": earlier}
    receiver.take(a_set(issuer, CLAIMS_CHANGE, SESSION, old, jti="event-2"))
    assert ends(verifier, issuer)
    paused = {"claims": {"active": False}, "event_timestamp": earlier}
    other = {"format": "opaque", "id": "other-grant"}
    receiver.take(a_set(issuer, CLAIMS_CHANGE, other, paused, jti="event-3"))
    assert not ends(verifier, issuer, grant_id="other-grant")


def test_an_event_that_is_not_understood_makes_the_lists_be_fetched(
    issuer: FakeIssuer, verifier: Verifier
) -> None:
    before = issuer.fetches(LIST)
    issuer.ended.add(7)
    subject = {"format": "email", "email": "ada@example.com"}
    EventReceiver(verifier).take(a_set(issuer, "https://example.com/event/new", subject))
    for _ in range(100):
        if issuer.fetches(LIST) > before and ends(verifier, issuer):
            return
        asyncio.run(asyncio.sleep(0.01))
    pytest.fail("the list was not fetched")


def test_what_comes_twice_is_taken_once_and_is_no_mistake(issuer: FakeIssuer, verifier: Verifier) -> None:
    receiver, token = EventReceiver(verifier), a_set(issuer)
    assert receiver.take(token) is not None
    assert receiver.take(token) is None


def test_what_is_kept_of_what_ended_is_bounded(issuer: FakeIssuer) -> None:
    endings, now = Endings(), issuer.clock.now()
    for number in range(_MOST + 10):
        endings.grant(f"grant-{number}", now, now)
    assert len(endings._ended) == _MOST
    issuer.clock.advance(hours=2)
    endings.token("the-last", issuer.clock.now(), issuer.clock.now())
    assert len(endings._ended) == 1


# --- what is no good ------------------------------------------------------------------------------------------------

NO_GOOD: dict[str, tuple[dict[str, Any], str]] = {
    "an access token": ({"typ": "at+jwt"}, "invalid_request"),
    "without type": ({"typ": "JWT"}, "invalid_request"),
    "signed by a stranger": ({"key": "stranger"}, "invalid_key"),
    "signed by a stranger under the issuer's name": ({"key": "impostor"}, "invalid_key"),
    "another issuer's": ({"iss": "https://other.example"}, "invalid_issuer"),
    "without issuer": ({"iss": None}, "invalid_issuer"),
    "for another": ({"aud": "https://other.example"}, "invalid_audience"),
    "for several": ({"aud": [SHOP, "https://other.example"]}, "invalid_audience"),
    "for nobody": ({"aud": None}, "invalid_audience"),
    "that expires": ({"exp": 4_000_000_000}, "invalid_request"),
    "with a subject of other tokens": ({"sub": "ada"}, "invalid_request"),
    "without name": ({"jti": None}, "invalid_request"),
    "without time": ({"iat": None}, "invalid_request"),
    "from the future": ({"iat": 4_000_000_000}, "invalid_request"),
    "without event": ({"events": {}}, "invalid_request"),
    "with two events": ({"events": {DELEGATION_REVOKED: {}, SESSION_REVOKED: {}}}, "invalid_request"),
    "with an event that is no object": ({"events": {DELEGATION_REVOKED: True}}, "invalid_request"),
    "without subject": ({"sub_id": None}, "invalid_request"),
    "with a subject that is no object": ({"sub_id": "grant-at-the-shop"}, "invalid_request"),
    "with a subject without format": ({"sub_id": {"id": "grant-at-the-shop"}}, "invalid_request"),
    "with a time that is none": (
        {"events": {DELEGATION_REVOKED: {"event_timestamp": "now"}}},
        "invalid_request",
    ),
}


@pytest.mark.parametrize("case", named(NO_GOOD))
def test_a_token_that_is_no_good_is_refused_and_does_nothing(
    issuer: FakeIssuer, verifier: Verifier, case: tuple[dict[str, Any], str]
) -> None:
    changes, error = dict(case[0]), case[1]
    if "key" in changes:
        kid = "unknown" if changes["key"] == "stranger" else issuer.key.kid
        changes["key"] = jose.SigningKey(kid, ECKey.generate_key("P-256"))
    with pytest.raises(SetRefused) as refused:
        EventReceiver(verifier).take(a_set(issuer, **changes))
    assert refused.value.error == error
    assert not ends(verifier, issuer)


@pytest.mark.parametrize("text", ["", "a.b.c", "e30.e30.", "x" * 20_000, "ÿ", "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_token_is_refused(verifier: Verifier, text: str) -> None:
    with pytest.raises(SetRefused) as refused:
        EventReceiver(verifier).take(text)
    assert refused.value.error == "invalid_request"


@pytest.mark.parametrize(
    "subject", [{"format": "complex"}, {"format": "complex", "session": "x"}, {"format": "opaque"}]
)
def test_an_event_about_nobody_ends_nobody(
    issuer: FakeIssuer, verifier: Verifier, subject: dict[str, Any]
) -> None:
    EventReceiver(verifier).take(a_set(issuer, SESSION_REVOKED, subject))
    assert not ends(verifier, issuer)


# --- pushed, in each framework --------------------------------------------------------------------------------------

HEADER = "Bearer pushed-by-the-server"


def pushes(issuer: FakeIssuer) -> dict[str, tuple[dict[str, str], bytes, int, str]]:
    """What is sent, and what is answered: status, and the `err`."""
    good = {"Content-Type": "application/secevent+jwt", "Authorization": HEADER}
    token = a_set(issuer).encode()
    forged = a_set(issuer, aud="https://other.example").encode()
    return {
        "stranger": (good | {"Authorization": "Bearer x"}, token, 400, "authentication_failed"),
        "type": (good | {"Content-Type": "application/json"}, token, 400, "invalid_request"),
        "long": (good, b"x" * 100_000, 400, "invalid_request"),
        "forged": (good, forged, 400, "invalid_audience"),
        "good": (good, token, 202, ""),
        "again": (good, token, 202, ""),
    }


def through_flask(issuer: FakeIssuer, verifier: Verifier) -> Any:
    app = Flask("shop")
    protect(app, shop_of(issuer, verifier))
    client = app.test_client()

    def send(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        answer = client.post("/events", data=body, headers=headers)
        return answer.status_code, answer.data

    return send


def through_wsgi(issuer: FakeIssuer, verifier: Verifier) -> Any:
    from werkzeug.test import Client

    def application(environ: Any, start: Any) -> Any:
        start("404 Not Found", [])
        return [b""]

    client = Client(wsgi.Protection(shop_of(issuer, verifier)).edge(application))

    def send(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        answer = client.post("/events", data=body, headers=headers)
        return answer.status_code, answer.data

    return send


def through_asgi(issuer: FakeIssuer, verifier: Verifier) -> Any:
    import httpx

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("reached")

    server = AsyncResourceServer(
        issuer.url, SHOP, verifier=verifier, events_path="/events", events_authorization=HEADER
    )
    app: Any = asgi.Protection(server).edge(application)

    def send(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
                return await client.post("/events", content=body, headers=headers)

        answer = asyncio.run(ask())
        return answer.status_code, answer.content

    return send


def shop_of(issuer: FakeIssuer, verifier: Verifier) -> ResourceServer:
    return ResourceServer(
        issuer.url, SHOP, verifier=verifier, events_path="/events", events_authorization=HEADER
    )


@pytest.mark.parametrize("through", [through_flask, through_wsgi, through_asgi])
def test_rfc8935_a_push_is_answered_as_the_standard_has_it(
    issuer: FakeIssuer, verifier: Verifier, through: Any
) -> None:
    send = through(issuer, verifier)
    for name, (headers, body, status, error) in pushes(issuer).items():
        assert ends(verifier, issuer) is (name == "again"), name
        answered, said = send(headers, body)
        assert answered == status, name
        assert (json.loads(said)["err"] if said else "") == error, name
    assert ends(verifier, issuer)


class Endless(io.RawIOBase):
    """A body that goes on and on, and how much of it was read."""

    taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = b"x" * len(buffer)
        self.taken += len(buffer)
        return len(buffer)


def test_a_push_that_does_not_end_is_not_held_in_memory(issuer: FakeIssuer, verifier: Verifier) -> None:
    app, body = Flask("shop"), Endless()
    protect(app, shop_of(issuer, verifier))
    headers = {"Content-Type": "application/secevent+jwt", "Authorization": HEADER}
    sent = {"wsgi.input": body, "CONTENT_LENGTH": "50000000"}
    answer = app.test_client().post("/events", headers=headers, environ_overrides=sent)
    assert answer.status_code == 400
    assert body.taken < 100_000


def test_rfc8935_while_keys_cannot_be_had_it_is_to_be_sent_again(issuer: FakeIssuer) -> None:
    issuer.is_up = False
    receiver = EventReceiver(issuer.verifier())
    answer = receiver.answer("application/secevent+jwt", None, a_set(issuer).encode())
    assert answer.status == 503
