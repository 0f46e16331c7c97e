"""What a resource server installs, against an issuer that is a real HTTP server of the test's own."""

import json
import re
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from authserver import jose
from authserver.errors import Violation
from authserver.resource_server import (
    ActionToken,
    Actor,
    Country,
    InvalidToken,
    IssuerUnavailable,
    Merchant,
    MerchantCategory,
    Money,
    NotAllowed,
    Presented,
    ProofRequired,
    TokenMissing,
    Verifier,
    metadata_document,
    metadata_url,
)
from tests.issuer import LIST, SEARCH, SHOP, FakeIssuer, details, new_key, running_issuer


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with running_issuer() as fake:
        yield fake


def test_a_good_token_is_read_into_typed_values_that_cannot_be_changed(issuer: FakeIssuer) -> None:
    token = issuer.verifier().verify(issuer.token())
    assert token.action == "payment.finalize"
    assert token.amount == Money("EUR", 4250)
    assert token.merchant is not None
    assert (token.merchant.id, token.merchant.name) == ("m_123", "Example Foods")
    assert token.merchant.category == MerchantCategory("5411")
    assert token.datatypes == ("shipping_address",)
    assert token.reference == "order-1"
    assert token.subject == "ada-at-the-shop"
    assert token.actor == Actor("spiffe://example.org", "spiffe://example.org/agent/basket-helper")
    assert token.jti == "action-1"
    assert (token.expires_at - issuer.clock.now()).total_seconds() == 120
    with pytest.raises(FrozenInstanceError):
        token.amount = Money("EUR", 1)  # type: ignore[misc]


def test_verifying_needs_no_network_once_the_keys_are_known(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    verifier.verify(issuer.token())
    issuer.is_up = False
    for number in range(20):
        assert verifier.verify(issuer.token(jti=f"action-{number}")).jti == f"action-{number}"
    assert issuer.fetches(LIST) == 1
    assert issuer.fetches("/jwks") == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"typ": "JWT"}, "token.typ"),
        ({"typ": "delegation-grant+jwt"}, "token.typ"),
        ({"iss": "https://other.example"}, "token.iss"),
        ({"aud": "https://market.example/api"}, "token.aud"),
        ({"aud": [SHOP, "https://market.example/api"]}, "jwt.aud"),
        ({"aud": f"{SHOP}/"}, "token.aud"),
        ({"exp": None}, "token.exp"),
        ({"exp": "2100"}, "jwt.exp"),
        ({"exp": 1}, "token.exp"),
        ({"act": None}, "token.act"),
        ({"act": {"sub": "spiffe://example.org/agent/basket-helper"}}, "token.iss"),
        ({"jti": None}, "token.jti"),
        ({"authorization_details": None}, "token.authorization_details"),
        ({"authorization_details": [details(), details()]}, "token.authorization_details"),
        ({"authorization_details": [details(actions=["a", "b"])]}, "token.authorization_details"),
        ({"authorization_details": [details(type="agent_delegation")]}, "token.authorization_details"),
        (
            {"authorization_details": [details(locations=["https://x.example"])]},
            "token.authorization_details",
        ),
        (
            {"authorization_details": [details(amount={"currency": "EUR", "value": 42.5})]},
            "token.authorization_details",
        ),
    ],
)
def test_a_token_that_is_for_something_else_or_somewhere_else_is_refused(
    issuer: FakeIssuer, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidToken) as refused:
        issuer.verifier().verify(issuer.token(**changes))
    assert refused.value.reason == reason
    assert refused.value.status == 401
    assert refused.value.challenge.startswith('Bearer error="invalid_token"')


def test_a_token_of_another_key_is_refused(issuer: FakeIssuer) -> None:
    forged = jose.SigningKey(issuer.key.kid, new_key().key)
    with pytest.raises(InvalidToken, match=r"jws\.signature"):
        issuer.verifier().verify(issuer.token(key=forged))


def test_a_token_that_was_good_is_refused_from_its_expiry_on(issuer: FakeIssuer) -> None:
    verifier, token = issuer.verifier(), issuer.token()
    issuer.clock.advance(seconds=119)
    verifier.verify(token)
    issuer.clock.advance(seconds=1)
    with pytest.raises(InvalidToken, match=r"token\.exp"):
        verifier.verify(token)


def test_A101_a_token_bound_to_a_key_is_refused_as_bearer(issuer: FakeIssuer) -> None:
    with pytest.raises(ProofRequired) as refused:
        issuer.verifier().verify(issuer.token(cnf={"jkt": "x" * 43}))
    assert refused.value.challenge.startswith("DPoP ")


def test_A44_unknown_kids_cause_one_fetch_in_ten_seconds_at_most(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    verifier.verify(issuer.token())
    issuer.clock.advance(seconds=10)
    for _ in range(20):
        with pytest.raises(InvalidToken, match=r"jws\.unknown_kid"):
            verifier.verify(issuer.token(key=new_key()))
    assert issuer.fetches("/jwks") == 2
    verifier.verify(issuer.token(jti="another"))


def test_F10_a_new_key_of_the_issuer_is_found_at_once(issuer: FakeIssuer) -> None:
    verifier, new = issuer.verifier(), new_key()
    verifier.verify(issuer.token())
    issuer.published.append(new)
    issuer.clock.advance(seconds=10)
    assert verifier.verify(issuer.token(key=new)).action == "payment.finalize"


def test_A47_a_key_that_was_taken_back_counts_for_five_minutes_at_most(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    token = issuer.token(exp=int(issuer.clock.now().timestamp()) + 3600)
    verifier.verify(token)
    issuer.published.clear()
    issuer.clock.advance(minutes=5, seconds=1)
    with pytest.raises(InvalidToken, match=r"jws\.unknown_kid"):
        verifier.verify(token)


def test_F08_known_keys_serve_for_an_hour_while_the_issuer_is_away(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier()
    search = {"authorization_details": [SEARCH]}  # what fails closed is told of in the tests of A104
    verifier.verify(issuer.token(**search))
    issuer.is_up = False
    issuer.clock.advance(minutes=60)
    verifier.verify(issuer.token(**search))
    issuer.clock.advance(seconds=11)
    with pytest.raises(IssuerUnavailable):
        verifier.verify(issuer.token(**search))


def test_metadata_that_names_another_issuer_is_not_used(issuer: FakeIssuer) -> None:
    other = issuer.url.replace("127.0.0.1", "localhost")
    with pytest.raises(IssuerUnavailable):
        Verifier(other, SHOP, clock=issuer.clock).verify(issuer.token())


@pytest.mark.parametrize("url", ["http://auth.example", "auth.example", "ftp://auth.example", "https:///x"])
def test_an_issuer_takes_https(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        Verifier(url, SHOP)


@pytest.fixture
def token(issuer: FakeIssuer) -> ActionToken:
    return issuer.verifier().verify(issuer.token())


def test_a_token_may_be_used_for_what_it_says_and_for_less(token: ActionToken) -> None:
    token.require("payment.finalize", amount=Money("EUR", 4250), reference="order-1")
    token.require("payment.finalize", amount=Money("EUR", 1), datatypes=["shipping_address"])


def test_A103_a_token_for_something_else_is_refused_with_every_difference(token: ActionToken) -> None:
    with pytest.raises(NotAllowed) as refused:
        token.require("order.checkout", amount=Money("EUR", 4251), reference="order-2", datatypes=["email"])
    assert refused.value.status == 403
    assert refused.value.challenge.startswith('Bearer error="insufficient_scope"')
    assert refused.value.violations == (
        Violation("actions", "order.checkout", "payment.finalize"),
        Violation("amount", {"currency": "EUR", "value": "42.51"}, {"currency": "EUR", "value": "42.50"}),
        Violation("reference", "order-2", "order-1"),
        Violation("datatypes", ["email"], ["shipping_address"]),
    )


def test_A103_a_token_of_another_currency_covers_nothing(token: ActionToken) -> None:
    with pytest.raises(NotAllowed):
        token.require("payment.finalize", amount=Money("JPY", 1))


def test_of_a_record_only_the_granted_data_are_shown(token: ActionToken) -> None:
    record = {"shipping_address": "1 Canal, Amsterdam", "email": "ada@example.org"}
    assert token.expose(record) == {"shipping_address": "1 Canal, Amsterdam"}


def presented(authorization: list[str], proofs: list[str] | None = None) -> Presented:
    return Presented.parse(authorization, proofs or [], method="GET", url=f"{SHOP}/products")


@pytest.mark.parametrize(
    "headers", [[], [""], ["Bearer"], ["Bearer "], ["DPoP "], ["Basic abc"], ["Bearerabc"]]
)
def test_a_request_without_a_token_is_told_both_schemes_and_no_error(headers: list[str]) -> None:
    with pytest.raises(TokenMissing) as refused:
        presented(headers)
    assert refused.value.status == 401
    assert refused.value.challenge == 'Bearer, DPoP algs="ES256 ES384 ES512 RS256 PS256"'


def test_the_token_is_read_from_its_header() -> None:
    for header in ("Bearer abc.def.ghi", "bearer abc.def.ghi", "BEARER  abc.def.ghi "):
        assert (presented([header]).scheme, presented([header]).token) == ("Bearer", "abc.def.ghi")
    bound = presented(["dpop abc.def.ghi"], ["proof"])
    assert (bound.scheme, bound.token, bound.proof) == ("DPoP", "abc.def.ghi", "proof")


def test_a_request_has_one_token_and_says_nothing_of_it(issuer: FakeIssuer) -> None:
    with pytest.raises(InvalidToken, match=r"token\.several"):
        presented(["Bearer abc.def.ghi", "Bearer abc.def.ghi"])
    token = issuer.token()
    assert token not in repr(presented([f"DPoP {token}"], [token]))
    assert token not in repr(issuer.verifier().verify(token))


# --- what would do --------------------------------------------------------------------------------------------------


def test_a_refusal_names_the_details_that_would_do(token: ActionToken) -> None:
    with pytest.raises(NotAllowed) as refused:
        token.require("payment.finalize", amount=Money("EUR", 9900), reference="order-2", datatypes=["email"])
    wanted = {
        "type": "agent_action",
        "actions": ["payment.finalize"],
        "locations": [SHOP],
        "amount": {"currency": "EUR", "value": "99.00"},
        "datatypes": ["email"],
        "reference": "order-2",
    }
    assert refused.value.to_json()["authorization_details"] == [wanted]
    # The header says the same: a quoted string (RFC 9110 §5.6.4) of JSON in ASCII.
    quoted = re.search(r'authorization_details="((?:[^"\\]|\\.)*)"', refused.value.challenge)
    assert quoted is not None
    assert json.loads(re.sub(r"\\(.)", r"\1", quoted[1])) == [wanted]
    assert refused.value.challenge.isascii()


def test_a_header_of_a_refusal_can_be_put_into_no_pieces(token: ActionToken) -> None:
    nasty = Merchant(name='Ad"a, DPoP error="x\\', id="m_1")
    with pytest.raises(NotAllowed) as refused:
        token.require("payment.finalize", merchant=nasty)
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', '""', refused.value.challenge)
    assert outside == 'Bearer error="", error_description="", authorization_details=""'


@pytest.mark.parametrize(
    ("merchant", "violations"),
    [
        (Merchant(id="m_123"), []),
        (Merchant("m_123", MerchantCategory("5411"), Country("NL"), "Another name"), []),
        (Merchant(id="m_124"), [Violation("merchant.id", "m_124", "m_123")]),
        (
            Merchant(category=MerchantCategory("5813"), country=Country("BE")),
            [Violation("merchant.category", "5813", "5411"), Violation("merchant.country", "BE", "NL")],
        ),
    ],
)
def test_A103_a_token_for_another_seller_is_refused(
    token: ActionToken, merchant: Merchant, violations: list[Violation]
) -> None:
    if not violations:
        token.require("payment.finalize", merchant=merchant)
        return
    with pytest.raises(NotAllowed) as refused:
        token.require("payment.finalize", merchant=merchant)
    assert list(refused.value.violations) == violations


def test_A103_a_seller_that_the_token_does_not_name_is_refused(issuer: FakeIssuer) -> None:
    nobody = issuer.verifier().verify(issuer.token(authorization_details=[details(merchant=None)]))
    with pytest.raises(NotAllowed):
        nobody.require("payment.finalize", merchant=Merchant(id="m_123"))


# --- whose metadata -------------------------------------------------------------------------------------------------


def test_the_metadata_of_a_resource_server_say_where_its_tokens_come_from() -> None:
    """RFC 9728 §2 and §3.1."""
    assert (
        metadata_url("https://shop.example/api")
        == "https://shop.example/.well-known/oauth-protected-resource/api"
    )
    assert metadata_url("https://shop.example") == "https://shop.example/.well-known/oauth-protected-resource"
    document = metadata_document("https://auth.example", SHOP, "Example Foods")
    assert document["resource"] == SHOP
    assert document["authorization_servers"] == ["https://auth.example"]
    assert document["bearer_methods_supported"] == ["header"]
    assert document["resource_name"] == "Example Foods"


@pytest.mark.parametrize(
    "changes",
    [
        {"datatypes_supported": []},
        {"datatypes_supported": {"contact": "email"}},
        {"redeemed_actions_supported": "payment.finalize"},
        {"redeemed_actions_supported": [1]},
    ],
)
def test_metadata_of_another_form_are_not_used(issuer: FakeIssuer, changes: dict[str, Any]) -> None:
    issuer.metadata |= changes
    with pytest.raises(IssuerUnavailable):
        issuer.verifier().verify(issuer.token())


def test_what_the_issuer_says_of_itself_is_read_anew_with_its_keys(issuer: FakeIssuer) -> None:
    verifier, contact = issuer.verifier(), {"authorization_details": [details(datatypes=["contact"])]}
    assert "phone" in verifier.verify(issuer.token(**contact)).visible
    issuer.metadata = {"datatypes_supported": {"contact": ["email"], "email": []}}
    issuer.clock.advance(minutes=5, seconds=1)
    assert verifier.verify(issuer.token(jti="later", **contact)).visible == {"contact", "email"}
    issuer.metadata = {"issuer": "https://other.example"}
    issuer.clock.advance(minutes=5, seconds=1)
    assert verifier.verify(issuer.token(jti="last", **contact)).visible == {"contact", "email"}


def test_data_types_can_be_said_here(issuer: FakeIssuer) -> None:
    verifier = issuer.verifier(datatypes={"contact": ("fax",)})
    token = verifier.verify(issuer.token(authorization_details=[details(datatypes=["contact"])]))
    assert token.visible == {"contact", "fax"}
