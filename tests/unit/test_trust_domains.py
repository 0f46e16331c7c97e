"""Which assertions prove which workload (contract §3; threats A01-A16, A40-A48)."""

import base64
import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

from authserver.actors.fetcher import Fetcher, FetchFailed
from authserver.actors.trust_domains import TrustDomains, Workload
from authserver.actors.workload_files import DomainExists, create_domain, make_assertion
from authserver.config import ConfigurationError, TrustDomainSettings
from authserver.jose import SigningKey, TokenRefused, sign

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
ISSUER = "https://auth.example"
HERE = frozenset({ISSUER})
BUYER = "spiffe://example.org/agents/buyer"
ACCOUNT = "system:serviceaccount:shop:buyer"
CLUSTER = "https://cluster.example"
OIDC = "https://oidc.example"

SUBJECTS = {"spiffe": BUYER, "kubernetes": ACCOUNT, "oidc": "repo:shop/buyer"}
NAMES = {"spiffe": "example.org", "kubernetes": "cluster", "oidc": "ci"}
ISSUERS = {"spiffe": None, "kubernetes": CLUSTER, "oidc": OIDC}
KINDS = tuple(NAMES)


@pytest.fixture
def domains(tmp_path: Path) -> Path:
    """Three trust domains in files, one of each kind."""
    for kind, name in NAMES.items():
        create_domain(name, kind, tmp_path / kind, ISSUERS[kind])
    return tmp_path


def configured(directory: Path, *kinds: str, **more: Any) -> TrustDomains:
    """The trust domains of that kind as the server knows them; all three unless some are named."""
    settings = [
        TrustDomainSettings.model_validate(
            {"name": NAMES[kind], "kind": kind, "issuer": ISSUERS[kind]}
            | {"jwks_file": directory / kind / "jwks.json"}
            | more
        )
        for kind in kinds or KINDS
    ]
    return TrustDomains(settings, issuer=ISSUER)


def assertion(directory: Path, kind: str, **claims: object) -> str:
    """A good assertion, but for the claims that are given."""
    subject = SUBJECTS[kind]
    return make_assertion(directory / kind, subject, ISSUER, timedelta(minutes=5), NOW, **claims)


def key_of(directory: Path, kind: str) -> ECKey:
    """The private key of a trust domain."""
    return ECKey.import_key((directory / kind / "private_key.pem").read_bytes())


def signed(directory: Path, kind: str, header: dict[str, object], **claims: object) -> str:
    """An assertion with a header of one's own, and without the claims that are given as None."""
    payload = assertion(directory, kind, **claims).split(".")[1]
    kept = {
        name: value
        for name, value in json.loads(base64.urlsafe_b64decode(payload + "==")).items()
        if value is not None
    }
    key = key_of(directory, kind)
    head = {"alg": "ES256", "kid": key.thumbprint()} | header
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, kept)]
    text = b".".join(parts)
    signature = base64.urlsafe_b64encode(JWSRegistry.algorithms["ES256"].sign(text, key)).rstrip(b"=")
    return (text + b"." + signature).decode()


def reason(known: TrustDomains, text: str, now: datetime = NOW, audiences: frozenset[str] = HERE) -> str:
    """Why the assertion is refused."""
    with pytest.raises(TokenRefused) as refused:
        known.verify(text, now, audiences=audiences)
    return refused.value.reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_assertion_proves_its_workload(domains: Path, kind: str) -> None:
    workload = configured(domains).verify(assertion(domains, kind, jti="j1", aud=ISSUER), NOW, audiences=HERE)
    assert workload == Workload(
        trust_domain=NAMES[kind],
        issuer=ISSUERS[kind] or "spiffe://example.org",
        subject=SUBJECTS[kind],
        jti="j1",
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=5),
        refuse_repeated_jti=False,
    )


def test_a_jwt_svid_needs_no_more_than_subject_audience_and_expiry(domains: Path) -> None:
    text = signed(domains, "spiffe", {"typ": "JOSE"}, iat=None, jti=None)
    workload = configured(domains).verify(text, NOW, audiences=HERE)
    assert (workload.issued_at, workload.jti) == (None, None)


def test_a_jwt_svid_may_have_an_issuer_that_nobody_configured(domains: Path) -> None:
    text = assertion(domains, "spiffe", iss="https://spire.example")
    assert configured(domains).verify(text, NOW, audiences=HERE).issuer == "spiffe://example.org"


def test_names_kinds_and_issuers_of_trust_domains_are_told(domains: Path) -> None:
    known = configured(domains)
    assert set(known.names) == set(NAMES.values())
    assert (known.kind_of("cluster"), known.issuer_of("cluster")) == ("kubernetes", CLUSTER)
    assert known.issuer_of("example.org") == "spiffe://example.org"
    known.warm_up(NOW)
    assert {state.state for state in known.freshness(NOW).values()} == {"fresh"}


@pytest.mark.parametrize(
    "typ", ["at+jwt", "delegation-grant+jwt", "dpop+jwt", "statuslist+jwt", "secevent+jwt"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_A11_a_token_of_another_kind_is_no_assertion(domains: Path, kind: str, typ: str) -> None:
    assert reason(configured(domains), signed(domains, kind, {"typ": typ})) == "assertion.type"
    assert reason(configured(domains), signed(domains, kind, {"typ": f"application/{typ.upper()}"})) == (
        "assertion.type"
    )


@pytest.mark.parametrize("typ", ["JWT", "jwt", "application/jwt", "JOSE"])
def test_A11_a_jwt_is_an_assertion_in_whatever_letter_case(domains: Path, typ: str) -> None:
    assert configured(domains).verify(signed(domains, "oidc", {"typ": typ}), NOW, audiences=HERE)


@pytest.mark.parametrize("kind", KINDS)
def test_A11_a_token_of_this_very_server_is_no_assertion(domains: Path, kind: str) -> None:
    assert reason(configured(domains), assertion(domains, kind, iss=ISSUER)) == "assertion.own_token"


@pytest.mark.parametrize("exp", ["1", 1.5, -1, True, 253402300799, None])
def test_A12_an_expiry_that_is_absent_or_no_date_is_refused(domains: Path, exp: object) -> None:
    assert reason(configured(domains), signed(domains, "oidc", {}, exp=exp)) == "jwt.exp"
    assert reason(configured(domains), signed(domains, "spiffe", {}, exp=exp)) == "jwt.exp"


def test_A12_an_assertion_ends_thirty_seconds_after_its_expiry(domains: Path) -> None:
    known, text = configured(domains), assertion(domains, "oidc")
    end = NOW + timedelta(minutes=5)
    assert known.verify(text, end + 29 * SECOND, audiences=HERE)
    assert reason(known, text, end + 30 * SECOND) == "assertion.expired"


@pytest.mark.parametrize("name", ["iat", "nbf"])
@pytest.mark.parametrize("kind", KINDS)
def test_A12_an_assertion_from_the_future_is_refused(domains: Path, kind: str, name: str) -> None:
    known = configured(domains)
    near, far = (int(NOW.timestamp()) + seconds for seconds in (30, 31))
    assert known.verify(assertion(domains, kind, **{name: near}), NOW, audiences=HERE)
    assert reason(known, assertion(domains, kind, **{name: far})) == "assertion.not_yet_valid"


@pytest.mark.parametrize("value", ["1", 1.5, True, [], {}])
@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_A12_times_that_are_no_dates_are_refused(domains: Path, name: str, value: object) -> None:
    assert reason(configured(domains), assertion(domains, "oidc", **{name: value})) == f"jwt.{name}"


@pytest.mark.parametrize("kind", ["kubernetes", "oidc"])
def test_A12_only_a_jwt_svid_may_be_silent_about_when_it_was_issued(domains: Path, kind: str) -> None:
    assert reason(configured(domains), signed(domains, kind, {}, iat=None)) == "jwt.iat"


@pytest.mark.parametrize(
    ("aud", "why"),
    [
        (None, "jwt.aud"),
        ([], "jwt.aud"),
        ([ISSUER, "https://other.example"], "jwt.aud"),
        ([ISSUER, ISSUER], "jwt.aud"),
        (1, "jwt.aud"),
        ("https://other.example", "assertion.audience"),
        (f"{ISSUER}/", "assertion.audience"),
        (ISSUER.upper(), "assertion.audience"),
        ("https://Auth.example", "assertion.audience"),
        (ISSUER[:-1], "assertion.audience"),
        (f"{ISSUER}.attacker.example", "assertion.audience"),
        (f"{ISSUER}/oauth/token", "assertion.audience"),
        (f" {ISSUER}", "assertion.audience"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_A13_the_audience_is_exactly_this_server(domains: Path, kind: str, aud: object, why: str) -> None:
    assert reason(configured(domains), signed(domains, kind, {}, aud=aud)) == why


@pytest.mark.parametrize("kind", KINDS)
def test_A13_a_remembered_assertion_is_still_for_its_audience_only(domains: Path, kind: str) -> None:
    known, text = configured(domains), assertion(domains, kind)
    assert known.verify(text, NOW, audiences=HERE)
    assert reason(known, text, audiences=frozenset({"https://other.example"})) == "assertion.audience"


def test_A40_a_domain_cannot_speak_for_another(domains: Path) -> None:
    known = configured(domains)
    for signer in KINDS:
        for claimed in set(KINDS) - {signer}:
            key = key_of(domains, signer)
            claims = {
                "iss": ISSUERS[claimed],
                "sub": SUBJECTS[claimed],
                "aud": ISSUER,
                "iat": int(NOW.timestamp()),
                "exp": int(NOW.timestamp()) + 60,
            }
            said = {name: value for name, value in claims.items() if value is not None}
            text = sign(said, key=SigningKey(key.thumbprint(), key), typ="JWT")
            assert reason(known, text) == "jws.unknown_kid"
            # And under the other's kid.
            other = SigningKey(key_of(domains, claimed).thumbprint(), key)
            assert reason(known, sign(said, key=other, typ="JWT")) == "jws.signature"


def test_A40_another_kinds_issuer_with_a_spiffe_id_is_only_a_subject_of_that_issuer(domains: Path) -> None:
    workload = configured(domains).verify(assertion(domains, "oidc", sub=BUYER), NOW, audiences=HERE)
    assert (workload.trust_domain, workload.issuer) == ("ci", OIDC)


def test_A40_a_label_of_another_kind_is_no_spiffe_trust_domain(domains: Path) -> None:
    text = assertion(domains, "spiffe", sub="spiffe://cluster/agents/buyer")
    assert reason(configured(domains), text) == "assertion.unknown_issuer"


@pytest.mark.parametrize(
    "sub",
    [
        "spiffe://Example.org/agents/buyer",
        "SPIFFE://example.org/agents/buyer",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/agents/buyer/",
        "spiffe://example.org//agents/buyer",
        "spiffe://example.org/agents/../buyer",
        "spiffe://example.org/./agents/buyer",
        "spiffe://example.org/agents/..",
        "spiffe://example.org/agents%2Fbuyer",
        "spiffe://example.org/agents/buyer?x=1",
        "spiffe://example.org/agents/buyer#x",
        "spiffe://example.org:443/agents/buyer",
        "spiffe://user@example.org/agents/buyer",
        "spiffe:///agents/buyer",
        "spiffe:/example.org/agents/buyer",
        "https://example.org/agents/buyer",
        "spiffe://example.org/agents/buyer\n",
        " spiffe://example.org/agents/buyer",
        "spiffe://example.org/agents/käufer",
        "spiffe://exаmple.org/agents/buyer",
        "spiffe://example.org/" + "a" * 2048,
        "",
        None,
        1,
        [BUYER],
    ],
)
def test_A41_look_alikes_of_a_spiffe_id_are_refused(domains: Path, sub: object) -> None:
    assert reason(configured(domains), signed(domains, "spiffe", {}, sub=sub)) in (
        "assertion.unknown_issuer",
        "jwt.sub",
    )


@pytest.mark.parametrize("name", [BUYER + "-evil", "spiffe://example.org/agents/.../buyer"])
def test_A42_another_workload_of_the_domain_is_another_subject(domains: Path, name: str) -> None:
    assert (
        configured(domains).verify(assertion(domains, "spiffe", sub=name), NOW, audiences=HERE).subject
        == name
    )


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://other-cluster.example"}, "assertion.unknown_issuer"),
        ({"iss": f"{CLUSTER}/"}, "assertion.unknown_issuer"),
        ({"iss": None}, "assertion.unknown_issuer"),
        ({"iss": "kubernetes/serviceaccount", "exp": None, "aud": None}, "assertion.unknown_issuer"),
        ({"exp": None}, "jwt.exp"),
        ({"sub": "system:serviceaccount:shop"}, "assertion.subject"),
        ({"sub": "system:serviceaccount:shop:buyer:x"}, "assertion.subject"),
        ({"sub": "system:node:buyer"}, "assertion.subject"),
        ({"sub": None}, "assertion.subject"),
    ],
)
def test_A43_a_token_of_another_cluster_or_of_the_old_kind_is_refused(
    domains: Path, claims: dict[str, object], why: str
) -> None:
    assert reason(configured(domains), signed(domains, "kubernetes", {}, **claims)) == why


@pytest.mark.parametrize(
    "iss", [OIDC.upper(), f"{OIDC}/", OIDC[:-1], f"{OIDC}.attacker.example", "", 1, [OIDC]]
)
def test_an_issuer_is_compared_as_exact_text(domains: Path, iss: object) -> None:
    assert reason(configured(domains), assertion(domains, "oidc", iss=iss)) in (
        "assertion.unknown_issuer",
        "jwt.iss",
    )


def test_an_oidc_assertion_has_a_subject(domains: Path) -> None:
    assert reason(configured(domains), signed(domains, "oidc", {}, sub=None)) == "assertion.subject"


@pytest.mark.parametrize("kind", KINDS)
def test_A48_an_assertion_that_lives_too_long_is_refused(domains: Path, kind: str) -> None:
    known = configured(domains, max_lifetime=600)
    begun = int(NOW.timestamp())
    assert known.verify(assertion(domains, kind, exp=begun + 600), NOW, audiences=HERE)
    assert reason(known, assertion(domains, kind, exp=begun + 601)) == "assertion.lifetime"
    assert reason(known, assertion(domains, kind, exp=begun + 10 * 31_536_000)) == "assertion.lifetime"


def test_A48_an_assertion_that_hides_its_beginning_counts_from_now(domains: Path) -> None:
    known = configured(domains, "spiffe", max_lifetime=600)
    end = int(NOW.timestamp()) + 900
    text = signed(domains, "spiffe", {}, iat=None, exp=end)
    assert reason(known, text) == "assertion.lifetime"
    assert known.verify(text, NOW + 300 * SECOND, audiences=HERE)


@pytest.mark.parametrize(
    ("jti", "why"), [(None, "jwt.jti"), ("", "jwt.jti"), (1, "jwt.jti"), ("a" * 257, "jwt.jti")]
)
def test_a_domain_that_refuses_repetition_needs_a_jti(domains: Path, jti: object, why: str) -> None:
    known = configured(domains, refuse_repeated_jti=True)
    assert known.verify(assertion(domains, "oidc"), NOW, audiences=HERE).refuse_repeated_jti
    assert reason(known, signed(domains, "oidc", {}, jti=jti)) == why


def test_A03_an_algorithm_that_the_domain_does_not_allow_is_refused(domains: Path) -> None:
    assert reason(configured(domains, algorithms=("RS256",)), assertion(domains, "oidc")) == "jws.alg"


@pytest.mark.parametrize(
    "header",
    [
        {"jku": "https://attacker.example/jwks.json"},
        {"x5u": "https://attacker.example/chain.pem"},
        {"x5c": ["MIIB"]},
        {"jwk": ECKey.generate_key("P-256").as_dict(private=False)},
    ],
)
def test_A05_no_header_chooses_where_keys_come_from(domains: Path, header: dict[str, object]) -> None:
    assert reason(configured(domains), signed(domains, "oidc", header)) == "jws.key_in_header"


class Web(Fetcher):
    """One JWK Set in place of the network; counts how often it is fetched."""

    def __init__(self, document: object) -> None:
        super().__init__()
        self.document = document
        self.asked: list[str] = []

    def get_json(self, url: str) -> object:
        self.asked.append(url)
        if self.document is None:
            raise FetchFailed("timeout")
        return self.document


def over_the_web(directory: Path, kind: str = "oidc") -> tuple[TrustDomains, Web]:
    """A domain whose keys are fetched, and the web that they come from."""
    found = Web(json.loads((directory / kind / "jwks.json").read_text()))
    settings = TrustDomainSettings(
        name=NAMES[kind], kind="oidc", issuer=ISSUERS[kind], jwks_url="https://keys.example/jwks.json"
    )
    return TrustDomains([settings], issuer=ISSUER, fetcher=lambda _: found), found


def test_A44_a_flood_of_unknown_kids_causes_one_fetch_and_known_keys_keep_working(domains: Path) -> None:
    known, found = over_the_web(domains)
    good = assertion(domains, "oidc")
    assert known.verify(good, NOW, audiences=HERE)
    now = NOW + 11 * SECOND
    for number in range(200):
        assert reason(known, signed(domains, "oidc", {"kid": f"k{number}"}), now) == "jws.unknown_kid"
        assert known.verify(good, now, audiences=HERE)
    assert len(found.asked) == 2  # at the start, and once for all these kids
    assert set(found.asked) == {"https://keys.example/jwks.json"}


def test_A44_what_is_refused_for_its_claims_causes_no_fetch(domains: Path) -> None:
    known, found = over_the_web(domains)
    assert reason(known, signed(domains, "oidc", {"kid": "x"}, aud="https://other.example")) == (
        "assertion.audience"
    )
    assert found.asked == []


def test_a_key_that_was_published_just_now_is_found(domains: Path) -> None:
    known, found = over_the_web(domains)
    document, found.document = found.document, {"keys": []}
    assert reason(known, assertion(domains, "oidc")) == "jws.unknown_kid"
    found.document = document
    assert known.verify(assertion(domains, "oidc"), NOW + 10 * SECOND, audiences=HERE)


def test_A47_an_assertion_is_refused_once_its_key_is_gone(domains: Path) -> None:
    known, found = over_the_web(domains)
    text = assertion(domains, "oidc", exp=int((NOW + HOUR).timestamp()))
    assert known.verify(text, NOW, audiences=HERE)
    found.document = {"keys": []}
    assert known.verify(text, NOW + 299 * SECOND, audiences=HERE)
    assert reason(known, text, NOW + 300 * SECOND) == "jws.unknown_kid"


def test_F08_known_keys_serve_an_hour_without_their_domain_and_then_no_more(domains: Path) -> None:
    known, found = over_the_web(domains)

    def fresh(now: datetime) -> str:
        return make_assertion(domains / "oidc", "repo:shop/buyer", ISSUER, timedelta(minutes=5), now)

    assert known.verify(fresh(NOW), NOW, audiences=HERE)
    found.document = None
    assert known.verify(fresh(NOW + HOUR), NOW + HOUR, audiences=HERE)
    assert known.freshness(NOW + HOUR)["ci"].state == "stale"
    end = NOW + HOUR + timedelta(seconds=301)
    assert reason(known, fresh(end), end) == "keys.unavailable"
    assert known.freshness(end)["ci"].state == "unavailable"


def test_a_remembered_assertion_is_not_verified_again(domains: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, text = configured(domains), assertion(domains, "oidc")
    first = known.verify(text, NOW, audiences=HERE)

    def never(*arguments: object) -> bool:
        raise AssertionError("verified again")

    monkeypatch.setattr(JWSRegistry.algorithms["ES256"], "verify", never)
    assert known.verify(text, NOW + SECOND, audiences=HERE) == first
    with pytest.raises(AssertionError, match="verified again"):
        known.verify(assertion(domains, "oidc"), NOW, audiences=HERE)


def test_a_remembered_assertion_still_ends(domains: Path) -> None:
    known, text = configured(domains), assertion(domains, "oidc")
    assert known.verify(text, NOW, audiences=HERE)
    assert reason(known, text, NOW + HOUR) == "assertion.expired"
    assert reason(known, text, NOW - HOUR) == "assertion.not_yet_valid"  # the clock was set back


def test_A15_the_same_assertion_under_another_signature_has_the_same_jti(domains: Path) -> None:
    known, text = configured(domains), assertion(domains, "oidc")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    signature = base64.urlsafe_b64decode(text.rpartition(".")[2] + "==")
    twin = signature[:32] + (order - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    other = f"{text.rpartition('.')[0]}.{base64.urlsafe_b64encode(twin).rstrip(b'=').decode()}"
    assert known.verify(other, NOW, audiences=HERE) == known.verify(text, NOW, audiences=HERE)


def test_a_remembered_token_is_never_good_for_a_changed_one(domains: Path) -> None:
    known, text = configured(domains), assertion(domains, "oidc")
    known.verify(text, NOW, audiences=HERE)
    for position in range(0, len(text), 7):
        changed = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
        with pytest.raises(TokenRefused):
            known.verify(changed, NOW, audiences=HERE)


@pytest.mark.parametrize("text", ["", "x", "\ud800", "a.b.c", "." * 100_000, "é.é.é"])
def test_whatever_is_no_token_is_refused(domains: Path, text: str) -> None:
    assert reason(configured(domains), text).startswith("jws.")


def test_a_certificate_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    settings = TrustDomainSettings(
        name="ci", kind="oidc", issuer=OIDC, discovery=True, ca_file=tmp_path / "missing.pem"
    )
    with pytest.raises(ConfigurationError, match=r"trust_domains\.ci\.ca_file"):
        TrustDomains([settings], issuer=ISSUER)


def test_an_rsa_domain_is_verified_too(tmp_path: Path) -> None:
    key = RSAKey.generate_key(2048)
    jwk = {**key.as_dict(private=False), "kid": "r1"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    settings = TrustDomainSettings(name="ci", kind="oidc", issuer=OIDC, jwks_file=tmp_path / "jwks.json")
    known = TrustDomains([settings], issuer=ISSUER)
    claims = {"iss": OIDC, "sub": "a", "aud": ISSUER, "iat": int(NOW.timestamp())}
    claims["exp"] = int(NOW.timestamp()) + 60
    parts = [{"alg": "RS256", "kid": "r1"}, claims]
    text = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = JWSRegistry.algorithms["RS256"].sign(text, key)
    token = text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")
    assert known.verify(token.decode(), NOW, audiences=HERE).subject == "a"


@pytest.mark.parametrize("kind", KINDS)
def test_a_trust_domain_in_files_is_ready_to_paste_and_private(tmp_path: Path, kind: str) -> None:
    block = create_domain(NAMES[kind], kind, tmp_path / "domain")
    (settings,) = _pasted(block)
    known = TrustDomains([settings], issuer=ISSUER)
    text = make_assertion(tmp_path / "domain", SUBJECTS[kind], ISSUER, timedelta(minutes=5), NOW)
    workload = known.verify(text, NOW, audiences=HERE)
    assert workload.subject == SUBJECTS[kind]
    assert workload.issuer == ("spiffe://example.org" if kind == "spiffe" else f"https://{NAMES[kind]}")
    assert (tmp_path / "domain" / "private_key.pem").stat().st_mode & 0o777 == 0o600
    assert '"d"' not in (tmp_path / "domain" / "jwks.json").read_text()


def _pasted(block: Path) -> list[TrustDomainSettings]:
    document = tomllib.loads(block.read_text())
    return [TrustDomainSettings.model_validate(domain) for domain in document["trust_domains"]]


def test_a_trust_domain_in_files_is_never_overwritten(tmp_path: Path) -> None:
    create_domain("example.org", "spiffe", tmp_path)
    before = (tmp_path / "private_key.pem").read_bytes()
    with pytest.raises(DomainExists):
        create_domain("example.org", "spiffe", tmp_path)
    assert (tmp_path / "private_key.pem").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "kind", "issuer"),
    [("example.org", "saml", None), ("example.org", "spiffe", OIDC), ("Example.org", "spiffe", None)],
)
def test_a_trust_domain_that_no_configuration_takes_is_not_made(
    tmp_path: Path, name: str, kind: str, issuer: str | None
) -> None:
    with pytest.raises(ValueError):
        create_domain(name, kind, tmp_path / "domain", issuer)
    assert not (tmp_path / "domain").exists()
