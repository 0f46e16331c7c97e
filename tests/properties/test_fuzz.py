"""Whatever is sent to the exchange: no failure of the server, always JSON, and a refusal leaves nothing behind.

Each property runs over real HTTP. `FUZZ_EXAMPLES` says how many examples; `make prove` runs very many.
"""

import base64
import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import httpx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey
from sqlalchemy import func, select

from authserver import jose
from authserver.actors.client_authentication import JWT_BEARER, JWT_SPIFFE
from authserver.schema import AuditEvent, table_of
from tests.attacks.making import dpop_proof
from tests.world import ACCESS_TOKEN, MARKET, MERCHANT, SHOP, World

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 1_000,
    database=None,
    suppress_health_check=list(HealthCheck),
)
LONGEST_HEADER = 60_000  # what is longer the HTTP server itself refuses, in its own words
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PARAMETERS = (
    "grant_type",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "requested_token_type",
    "resource",
    "audience",
    "scope",
    "authorization_details",
    "task_id",
    "completion_mode",
    "client_id",
    "client_assertion",
    "client_assertion_type",
)


@pytest.fixture(scope="module")
def world(shared_world: World) -> World:
    """One server for all properties."""
    return shared_world


@pytest.fixture(scope="module")
def grant(world: World) -> str:
    """A grant with money enough for every example."""
    limits = {"currency": "EUR", "per_action": "80.00", "total": "900000000.00"}
    return world.granted(limits=limits, merchants=MERCHANTS).grant


MERCHANTS = {
    "categories": ["5411", "5811-5814"],
    "countries": ["NL", "BE"],
    "except": {"categories": ["5813"], "countries": [], "ids": ["m_666"]},
}


class Watch:
    """Holds one answer to what every answer must be."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rows, self.events = world.rows(), self._count()

    def _count(self) -> int:
        query = select(func.count()).select_from(table_of(AuditEvent))
        return self.world.services.database.read(lambda c: c.scalar(query) or 0)

    def holds(self, answer: httpx.Response) -> None:
        """No failure, JSON with an error and nothing left behind; or a token within what was delegated."""
        assert answer.status_code < 500, answer.text
        body = answer.json()
        if answer.status_code == 200:
            _is_within_the_delegation(body)
            return
        assert isinstance(body["error"], str)
        description = body["error_description"]
        assert description.isascii()
        assert description.isprintable()
        assert '"' not in description
        assert "\\" not in description
        assert answer.headers["cache-control"] == "no-store"
        assert self.world.rows() == self.rows
        assert self._count() == self.events + 1


def _is_within_the_delegation(body: dict[str, Any]) -> None:
    (action,) = body["authorization_details"]
    assert action["actions"][0] in ("catalog.search", "order.checkout", "payment.finalize")
    assert action["locations"] in ([SHOP], [MARKET])
    if "amount" in action:
        assert action["amount"]["currency"] == "EUR"
        assert 0 < Decimal(action["amount"]["value"]) <= 80
    if "merchant" in action:
        assert action["merchant"]["category"] in ("5411", "5811", "5812", "5814")
        assert action["merchant"]["country"] in ("NL", "BE")
        assert action["merchant"].get("id") != "m_666"
    assert action.get("datatypes", ["shipping_address"]) == ["shipping_address"]
    assert 0 < body["expires_in"] <= 300


# --- what is sent ----------------------------------------------------------------------------------------------------

NASTY = st.sampled_from(
    [
        *("", " ", "\n", "\r\n", "\x00", "%00", "\ufeff", "\u202e", "\u2028", "\x7f"),
        *("💳", "ﷺ", "e\u0301", "'", '"', "\\", "any", "*", "..", "%", "undefined", "null", "true"),
        *("0", "-1", "1e9", "NaN", "Infinity", "[]", "{}", "[[]]", "'; DROP TABLE actions; --"),
        *(MARKET, SHOP, "rs_market", "basket-helper", "price-scout", "catalog.search", "payment.finalize"),
        *(
            JWT_SPIFFE,
            JWT_BEARER,
            ACCESS_TOKEN,
            "deferred",
            "a.b.c",
            "e30.e30.e30",
            "A" * 20_000,
            "é" * 5_000,
        ),
    ]
)
ANY_TEXT = NASTY | st.text(max_size=60) | st.text(st.characters(codec="ascii"), max_size=300)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NASTY
    | st.text(max_size=20)
)
JSON = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(ANY_TEXT, below, max_size=4),
    max_leaves=12,
)
# What a header may carry at all: the HTTP library refuses to send the rest.
HEADER = st.binary(max_size=200).map(
    lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F).strip()
) | st.sampled_from(
    [b"a" * 4_000, b"a,b", b"=", b"Basic", b"Basic =", b"Bearer x", b"DPoP x", b"..", b"e30.e30.e30"]
)


def _sendable(text: str) -> str:
    """The text without what UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode()


@FUZZ
@given(name=st.sampled_from(PARAMETERS), value=ANY_TEXT)
def test_any_text_in_any_parameter_is_answered(world: World, grant: str, name: str, value: str) -> None:
    watch = Watch(world)
    watch.holds(world.post("/oauth/token", world.form(grant) | {name: _sendable(value)}))


@FUZZ
@given(changes=st.dictionaries(st.sampled_from(PARAMETERS), ANY_TEXT, min_size=2, max_size=6))
def test_any_text_in_several_parameters_is_answered(
    world: World, grant: str, changes: dict[str, str]
) -> None:
    changed = {name: _sendable(value) for name, value in changes.items()}
    watch = Watch(world)
    watch.holds(world.post("/oauth/token", world.form(grant) | changed))


@FUZZ
@given(pairs=st.lists(st.tuples(st.sampled_from(PARAMETERS) | ANY_TEXT, st.binary(max_size=40)), max_size=8))
def test_any_bytes_behind_a_good_form_are_answered(
    world: World, grant: str, pairs: list[tuple[str, bytes]]
) -> None:
    body = urlencode(world.form(grant))
    for name, value in pairs:
        body += f"&{quote_from_bytes(name.encode('utf-8', 'replace'))}={quote_from_bytes(value)}"
    watch = Watch(world)
    watch.holds(world.client.post("/oauth/token", content=body, headers=FORM))


@FUZZ
@given(body=st.binary(max_size=400), content_type=st.just(FORM["Content-Type"].encode()) | HEADER)
def test_any_body_is_answered(world: World, body: bytes, content_type: bytes) -> None:
    watch = Watch(world)
    headers = {b"Content-Type": content_type}
    watch.holds(world.client.post("/oauth/token", content=body, headers=headers))


HEADERS = (
    b"Idempotency-Key",
    b"DPoP",
    b"Authorization",
    b"Content-Type",
    b"Accept",
    b"Accept-Language",
    b"Cookie",
    b"Forwarded",
    b"X-Forwarded-Host",
    b"X-HTTP-Method-Override",
    b"Range",
    b"If-Match",
)


@FUZZ
@given(headers=st.dictionaries(st.sampled_from(HEADERS), HEADER, max_size=3))
def test_any_header_is_answered(world: World, grant: str, headers: dict[bytes, bytes]) -> None:
    sent = {b"Content-Type": FORM["Content-Type"].encode()} | headers
    watch = Watch(world)
    watch.holds(world.client.post("/oauth/token", content=urlencode(world.form(grant)), headers=sent))


# --- authorization_details ------------------------------------------------------------------------------------------

# Values that are right somewhere, so that most mutations stay close to what is allowed.
PLAUSIBLE = st.sampled_from(
    [
        *("payment.finalize", "catalog.search", "order.checkout", "refund.initiate"),
        *("agent_action", "agent_delegation", "EUR", "USD", "JPY", 42.5, 42),
        *("80.00", "80.01", "0.01", "42.50", "999999999999.99", "79.999"),
        *("5411", "5813", "5812", "5811-5814", "NL", "BE", "EU", "US", "m_123", "m_666", "any"),
        *("Example Foods", "shipping_address", "email", "addresses", "cart-889"),
        *(MARKET, SHOP, f"{MARKET}/", [], {}, [MARKET], [SHOP, MARKET], ["payment.finalize"]),
        *(MERCHANT, {"currency": "EUR", "value": "1.00"}),
    ]
)


def _paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a document, itself first."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _paths(value[key], (*path, key))


@st.composite
def mutated(draw: st.DrawFn, document: object) -> object:
    """The document with up to three places replaced, taken away, doubled or given a new neighbour."""
    mutant: Any = [copy.deepcopy(document)]
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(_paths(mutant))[1:] or [(0,)]))
        if not mutant:
            break
        parent = mutant
        for key in path[:-1]:
            parent = parent[key]
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "double"]))
        if kind == "remove" and len(path) > 1:
            del parent[path[-1]]
        elif kind == "add":
            _add(parent, draw(ANY_TEXT | PLAUSIBLE.filter(lambda value: isinstance(value, str))), draw(JSON))
        elif kind == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        else:
            parent[path[-1]] = copy.deepcopy(draw(PLAUSIBLE | JSON))
    return mutant[0] if mutant else None


def _add(parent: Any, name: str, value: object) -> None:
    if isinstance(parent, list):
        parent.append(value)
    else:
        parent[name] = value


ACTION = {
    "type": "agent_action",
    "actions": ["payment.finalize"],
    "locations": [MARKET],
    "amount": {"currency": "EUR", "value": "42.50"},
    "merchant": MERCHANT,
    "datatypes": ["shipping_address"],
    "reference": "cart-889",
}


@settings(FUZZ, max_examples=4 * EXAMPLES)
@given(details=mutated([ACTION]))
def test_details_close_to_good_ones_are_answered(world: World, grant: str, details: object) -> None:
    watch = Watch(world)
    watch.holds(world.exchange(grant, authorization_details=json.dumps(details)))


@FUZZ
@given(details=JSON)
def test_any_json_as_details_is_answered(world: World, grant: str, details: object) -> None:
    watch = Watch(world)
    watch.holds(world.exchange(grant, authorization_details=json.dumps(details)))


@FUZZ
@given(
    start=st.integers(0, 300),
    length=st.integers(0, 12),
    piece=st.text('{}[]",:\\u0123456789abcdef.-+eEnul \t\n', max_size=10) | st.text(max_size=3),
)
def test_details_with_a_damaged_text_are_answered(
    world: World, grant: str, start: int, length: int, piece: str
) -> None:
    text = json.dumps([ACTION])
    damaged = _sendable(text[:start] + piece + text[start + length :])
    watch = Watch(world)
    watch.holds(world.exchange(grant, authorization_details=damaged))


# --- tokens and proofs ----------------------------------------------------------------------------------------------


@FUZZ
@given(
    which=st.sampled_from(["subject_token", "actor_token"]),
    start=st.integers(0, 900),
    length=st.integers(0, 4),
    piece=st.text("ABCabc019-_.=+/ %", max_size=4),
)
def test_a_damaged_token_is_refused(
    world: World, grant: str, which: str, start: int, length: int, piece: str
) -> None:
    form = world.form(grant)
    form[which] = form[which][:start] + piece + form[which][start + length :]
    watch = Watch(world)
    watch.holds(world.post("/oauth/token", form))


CLAIMS = ("sub", "aud", "iat", "exp", "nbf", "jti", "iss", "cnf", "act", "may_act", "crit", "")


@FUZZ
@given(changes=st.dictionaries(st.sampled_from(CLAIMS), JSON | PLAUSIBLE, min_size=1, max_size=3))
def test_an_assertion_with_any_claims_is_answered(world: World, grant: str, changes: dict[str, Any]) -> None:
    claims = dict(jose.read_compact(world.assertion()).claims) | changes
    watch = Watch(world)
    assertion = jose.sign(claims, key=world.domain_key(), typ="JWT")
    watch.holds(world.exchange(grant, actor_token=assertion))


@FUZZ
@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "jwk", "jku", "x5c", "crit", "b64", "zip", "cty", "enc", ""]),
        JSON,
    ),
    payload=st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_a_token_with_any_header_is_refused(
    world: World, grant: str, header: dict[str, Any], payload: bytes
) -> None:
    parts = (json.dumps({"alg": "ES256"} | header).encode(), payload, b"\x01" * 64)
    token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    for place in ("subject_token", "actor_token", "client_assertion"):
        watch = Watch(world)
        changes = {place: token, "client_assertion_type": JWT_BEARER}
        answer = world.exchange(grant, **changes)
        assert answer.status_code != 200
        watch.holds(answer)


@FUZZ
@given(
    changes=st.dictionaries(
        st.sampled_from(["jti", "htm", "htu", "iat", "nonce", "ath", ""]), JSON, max_size=3
    )
)
def test_a_proof_with_any_claims_is_answered(world: World, grant: str, changes: dict[str, Any]) -> None:
    proof = dpop_proof(world, ECKey.generate_key("P-256"), **changes)
    assume(len(proof) < LONGEST_HEADER)
    watch = Watch(world)
    watch.holds(world.exchange(grant, headers={"DPoP": proof}))


@FUZZ
@given(jwk=mutated({"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "B" * 43}))
def test_a_proof_with_any_key_is_refused(world: World, grant: str, jwk: object) -> None:
    key = ECKey.generate_key("P-256")
    header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": key.as_dict(private=False)}
    signed = jws.serialize_compact(header, b"{}", key)
    forged = base64.urlsafe_b64encode(json.dumps(header | {"jwk": jwk}).encode()).rstrip(b"=").decode()
    assume(len(forged) < LONGEST_HEADER)
    watch = Watch(world)
    answer = world.exchange(grant, headers={"DPoP": forged + signed[signed.index(".") :]})
    assert answer.status_code != 200
    watch.holds(answer)


@FUZZ
@given(name=st.binary(max_size=40), secret=st.binary(max_size=40), colon=st.sampled_from([b":", b"", b"::"]))
def test_any_secret_is_refused(world: World, name: bytes, secret: bytes, colon: bytes) -> None:
    value = (b"Basic " + base64.b64encode(name + colon + secret)).strip()
    answer = world.client.post("/oauth/introspect", data={"token": "x"}, headers={b"Authorization": value})
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"


# --- the other endpoints ---------------------------------------------------------------------------------------------


REDEMPTION = {
    "token": "x",
    "amount": {"currency": "EUR", "value": "1.00"},
    "merchant": MERCHANT,
    "capture": True,
}


@FUZZ
@given(body=mutated(REDEMPTION))
def test_a_redemption_with_any_body_is_answered(world: World, body: object) -> None:
    rows, market = world.rows(), (world.market_id, world.market_secret)
    for path in ("/oauth/redeem", "/oauth/redemptions/x/capture", "/oauth/redemptions/x/refund"):
        answer = world.client.post(path, json=body, auth=market)
        assert answer.status_code in (400, 404, 409, 413, 422), answer.text
        assert answer.json()["title"]
    assert world.rows() == rows


@FUZZ
@given(token=ANY_TEXT, hint=ANY_TEXT)
def test_introspection_and_revocation_of_any_token_are_answered(world: World, token: str, hint: str) -> None:
    form = {"token": _sendable(token), "token_type_hint": _sendable(hint)}
    market = (world.market_id, world.market_secret)
    own = {"client_assertion": world.assertion(), "client_assertion_type": JWT_SPIFFE}
    for path, more, auth in (("/oauth/introspect", {}, market), ("/oauth/revoke", own, None)):
        answer = world.client.post(path, data=form | more, auth=auth)
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 200:
            assert answer.json() in ({"active": False}, {})


@pytest.mark.prove
def test_all_of_it_holds_for_thousands_of_examples() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not prove", __file__]
    done = subprocess.run(command, env=os.environ | {"FUZZ_EXAMPLES": "3000"}, timeout=3_600, check=False)
    assert done.returncode == 0
