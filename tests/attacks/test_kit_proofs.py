"""Proofs of possession at a resource server that uses the kit (RFC 9449 §7, threats A100 and A101)."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from authserver.dpop import Proof, ProofKey, SeenProofs, SharedSeenProofs, token_hash
from authserver.errors import Refusal
from authserver.resource_server import (
    ActionToken,
    InvalidToken,
    NonceRequired,
    Presented,
    ProofRefused,
    ProofRequired,
    Verifier,
)
from tests.attacks.forge import (
    ABSENT,
    as_bytes,
    claims_of,
    encoded,
    header_of,
    mac_text,
    public,
    sign_text,
    signing_input,
    weak_rsa,
)
from tests.attacks.making import named
from tests.conformance.tokens import signed
from tests.issuer import FakeIssuer, running_issuer

URL = "https://shop.example/api/orders/1/payment"
KEY = ProofKey.generate()


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    with running_issuer() as fake:
        yield fake


@pytest.fixture
def shop(issuer: FakeIssuer) -> Verifier:
    return issuer.verifier()


def bound(issuer: FakeIssuer, key: ProofKey = KEY) -> str:
    return issuer.token(cnf={"jkt": key.jkt})


def proof(
    issuer: FakeIssuer, shop: Verifier, token: str, *, header: Any = None, key: Any = None, **claims: Any
) -> str:
    """A proof that is good but for `header` and `claims`, signed by `key`."""
    good = KEY.proof("POST", URL, now=issuer.clock.now(), access_token=token, nonce=shop.next_nonce())
    changed = {**claims_of(good), **claims}
    said = {name: value for name, value in changed.items() if value is not ABSENT}
    return signed({**header_of(good), **(header or {})}, said, key or KEY.key)


def present(
    token: str, *proofs: str, scheme: str = "DPoP", method: str = "POST", url: str = URL
) -> Presented:
    return Presented.parse([f"{scheme} {token}"], proofs, method=method, url=url)


def test_a_good_proof_is_taken(issuer: FakeIssuer, shop: Verifier) -> None:
    token = bound(issuer)
    read = shop.check(present(token, proof(issuer, shop, token)))
    assert isinstance(read, ActionToken)
    assert (read.jkt, read.scheme) == (KEY.jkt, "DPoP")


def test_the_nonce_dance_at_a_resource_server(issuer: FakeIssuer, shop: Verifier) -> None:
    """RFC 9449 §9: 401 with `use_dpop_nonce` and the nonce that the next proof takes."""
    token = bound(issuer)
    with pytest.raises(NonceRequired) as refused:
        shop.check(present(token, proof(issuer, shop, token, nonce=ABSENT)))
    headers = refused.value.headers()
    assert refused.value.status == 401
    assert headers["WWW-Authenticate"].startswith('DPoP error="use_dpop_nonce"')
    assert 'algs="ES256 ES384 ES512 RS256 PS256"' in headers["WWW-Authenticate"]
    shop.check(present(token, proof(issuer, shop, token, nonce=headers["DPoP-Nonce"])))


WRONG: dict[str, dict[str, Any]] = {
    "htm GET": {"htm": "GET"},
    "htm in lower case": {"htm": "post"},
    "htm absent": {"htm": ABSENT},
    "htu of another path": {"htu": "https://shop.example/api/orders/2/payment"},
    "htu of another host": {"htu": "https://evil.example/api/orders/1/payment"},
    "htu by http": {"htu": URL.replace("https", "http")},
    "htu prefix": {"htu": URL[:-1]},
    "htu absent": {"htu": ABSENT},
    "htu list": {"htu": [URL]},
    "ath absent": {"ath": ABSENT},
    "ath empty": {"ath": ""},
    "ath of another token": {"ath": token_hash("another")},
    "ath with padding": {"ath": token_hash("another") + "="},
    "ath number": {"ath": 1},
    "iat absent": {"iat": ABSENT},
    "iat text": {"iat": "now"},
    "jti absent": {"jti": ABSENT},
    "jti empty": {"jti": ""},
    "jti long": {"jti": "x" * 257},
}


@pytest.mark.parametrize("claims", named(WRONG))
def test_A100_a_proof_for_something_else_is_refused(
    issuer: FakeIssuer, shop: Verifier, claims: dict[str, Any]
) -> None:
    token = bound(issuer)
    with pytest.raises(ProofRefused) as refused:
        shop.check(present(token, proof(issuer, shop, token, **claims)))
    assert (refused.value.status, refused.value.error) == (401, "invalid_dpop_proof")
    assert refused.value.challenge.startswith('DPoP error="invalid_dpop_proof"')


@pytest.mark.parametrize("seconds", [-301, -3600, 31, 3600])
def test_A100_a_proof_from_another_time_is_refused(issuer: FakeIssuer, shop: Verifier, seconds: int) -> None:
    token, now = bound(issuer), int(issuer.clock.now().timestamp())
    with pytest.raises(ProofRefused, match=r"dpop\.iat"):
        shop.check(present(token, proof(issuer, shop, token, iat=now + seconds)))


@pytest.mark.parametrize("nonce", ["", "x", "A" * 32, 1, None, ["x"]], ids=str)
def test_A100_a_nonce_that_was_never_made_brings_one(
    issuer: FakeIssuer, shop: Verifier, nonce: object
) -> None:
    token = bound(issuer)
    with pytest.raises(NonceRequired) as refused:
        shop.check(present(token, proof(issuer, shop, token, nonce=nonce)))
    assert refused.value.nonce == shop.next_nonce()


def test_A100_an_old_nonce_and_another_servers_nonce_bring_a_new_one(
    issuer: FakeIssuer, shop: Verifier
) -> None:
    token, old, foreign = bound(issuer), shop.next_nonce(), issuer.verifier().next_nonce()
    issuer.clock.advance(seconds=301)
    token = bound(issuer)
    for nonce in (old, foreign):
        with pytest.raises(NonceRequired):
            shop.check(present(token, proof(issuer, shop, token, nonce=nonce)))


def test_A100_a_proof_is_good_once(issuer: FakeIssuer, shop: Verifier) -> None:
    token = bound(issuer)
    once = proof(issuer, shop, token)
    shop.check(present(token, once))
    with pytest.raises(ProofRefused, match=r"dpop\.replayed"):
        shop.check(present(token, once))
    with pytest.raises(ProofRefused, match=r"dpop\.replayed"):
        shop.check(present(token, proof(issuer, shop, token, jti=claims_of(once)["jti"])))


def test_A100_a_proof_is_good_once_in_all_processes_of_a_machine(issuer: FakeIssuer, tmp_path: Path) -> None:
    secret, token = bytes(range(32)), bound(issuer)
    workers = [
        issuer.verifier(nonce_secret=secret, proofs=SharedSeenProofs(tmp_path / "proofs.db"))
        for _ in range(2)
    ]
    once = proof(issuer, workers[0], token)
    workers[0].check(present(token, once))
    with pytest.raises(ProofRefused, match=r"dpop\.replayed"):
        workers[1].check(present(token, once))
    with pytest.raises(ProofRefused, match=r"dpop\.replayed"):
        asyncio.run(workers[1].check_async(present(token, once)))


@pytest.mark.parametrize("proofs", [0, 2])
def test_A100_there_is_exactly_one_proof(issuer: FakeIssuer, shop: Verifier, proofs: int) -> None:
    token = bound(issuer)
    with pytest.raises(ProofRefused):
        present(token, *[proof(issuer, shop, token)] * proofs)


def test_A100_two_proofs_joined_by_a_server_are_none(issuer: FakeIssuer, shop: Verifier) -> None:
    token = bound(issuer)
    both = f"{proof(issuer, shop, token)}, {proof(issuer, shop, token)}"
    with pytest.raises(ProofRefused, match=r"jws\.(form|size)"):
        shop.check(present(token, both))


HEADERS: dict[str, dict[str, Any]] = {
    "typ absent": {"typ": None},
    "typ JWT": {"typ": "JWT"},
    "typ at+jwt": {"typ": "at+jwt"},
    "no key": {"jwk": None},
    "private key": {"jwk": KEY.key.as_dict(private=True)},
    "symmetric key": {"jwk": OctKey.generate_key(256).as_dict(private=True)},
    "another key": {"jwk": public(ECKey.generate_key("P-256"))},
    "another curve": {"jwk": public(ECKey.generate_key("P-384"))},
    "a url": {"jku": "https://evil.example/keys"},
    "critical": {"crit": ["exp"]},
}


@pytest.mark.parametrize("header", named(HEADERS))
def test_A100_a_header_that_no_proof_has_is_refused(
    issuer: FakeIssuer, shop: Verifier, header: dict[str, Any]
) -> None:
    token = bound(issuer)
    good = proof(issuer, shop, token)
    said = {name: value for name, value in {**header_of(good), **header}.items() if value is not None}
    with pytest.raises(ProofRefused):
        shop.check(present(token, sign_text(signing_input(said, claims_of(good)), KEY.key)))


def test_A100_symmetric_and_unsigned_proofs_are_refused(issuer: FakeIssuer, shop: Verifier) -> None:
    token = bound(issuer)
    good = proof(issuer, shop, token)
    claims = good.split(".")[1]
    for alg in ("none", "None", "HS256"):
        header = encoded(as_bytes({**header_of(good), "alg": alg}))
        signature = mac_text(f"{header}.{claims}", b"x") if alg == "HS256" else ""
        with pytest.raises(ProofRefused):
            shop.check(present(token, f"{header}.{claims}.{signature}"))


def test_A100_a_weak_key_proves_nothing(issuer: FakeIssuer, shop: Verifier) -> None:
    key = weak_rsa()
    assert isinstance(key, RSAKey)
    token = issuer.token(cnf={"jkt": key.thumbprint()})
    with pytest.raises(ProofRefused):
        shop.check(
            present(token, proof(issuer, shop, token, header={"alg": "RS256", "jwk": public(key)}, key=key))
        )


# --- A101 -----------------------------------------------------------------------------------------------------------


def test_A101_a_bound_token_is_no_bearer_token(issuer: FakeIssuer, shop: Verifier) -> None:
    token = bound(issuer)
    for attempt in (lambda: shop.verify(token), lambda: shop.check(present(token, scheme="Bearer"))):
        with pytest.raises(ProofRequired) as refused:
            attempt()
        assert refused.value.status == 401
        assert refused.value.challenge.startswith("DPoP ")
    # Also where a proof lies beside it: the scheme is what counts (RFC 9449 §7.1).
    with pytest.raises(ProofRequired):
        shop.check(present(token, proof(issuer, shop, token), scheme="Bearer"))


def test_A101_another_keys_proof_is_refused(issuer: FakeIssuer, shop: Verifier) -> None:
    token, thief = bound(issuer), ProofKey.generate()
    made = thief.proof("POST", URL, now=issuer.clock.now(), access_token=token, nonce=shop.next_nonce())
    with pytest.raises(InvalidToken, match=r"dpop\.jkt") as refused:
        shop.check(present(token, made))
    assert refused.value.challenge.startswith('DPoP error="invalid_token"')


def test_A101_a_token_that_is_bound_to_nothing_is_not_made_better_by_a_proof(
    issuer: FakeIssuer, shop: Verifier
) -> None:
    token = issuer.token()
    with pytest.raises(InvalidToken, match=r"token\.cnf"):
        shop.check(present(token, proof(issuer, shop, token)))


@pytest.mark.parametrize(
    "cnf",
    [{}, None, [], {"x5t#S256": "x"}, {"jkt": KEY.jkt, "x5t#S256": "x"}, {"jkt": ""}],
    ids=["empty", "null", "array", "other", "jkt and other", "no jkt"],
)
def test_A101_a_binding_that_is_not_understood_is_refused(
    issuer: FakeIssuer, shop: Verifier, cnf: object
) -> None:
    changes = {"cnf": cnf} if cnf is not None else {"cnf": False}
    with pytest.raises(InvalidToken):
        shop.verify(issuer.token(**changes))


def test_A101_a_proof_without_its_token_does_not_go_far(issuer: FakeIssuer, shop: Verifier) -> None:
    """A stolen proof is for one token, one request, one key: none of it can be changed."""
    token, other = bound(issuer), issuer.token(cnf={"jkt": KEY.jkt}, jti="action-2")
    stolen = proof(issuer, shop, token)
    with pytest.raises(ProofRefused, match=r"dpop\.ath"):
        shop.check(present(other, stolen))
    with pytest.raises(ProofRefused, match="htm_htu"):
        shop.check(present(token, stolen, method="DELETE"))
    with pytest.raises(ProofRefused, match="htm_htu"):
        shop.check(present(token, stolen, url=URL + "/refund"))


def test_a_query_is_not_part_of_what_is_proved(issuer: FakeIssuer, shop: Verifier) -> None:
    """RFC 9449 §4.3 (9)."""
    token = bound(issuer)
    made = KEY.proof(
        "POST", f"{URL}?a=b#c", now=issuer.clock.now(), access_token=token, nonce=shop.next_nonce()
    )
    assert claims_of(made)["htu"] == URL
    shop.check(present(token, made))


def test_what_is_remembered_is_bounded_and_fails_closed(issuer: FakeIssuer) -> None:
    now = issuer.clock.now()
    seen = SeenProofs(most=3)
    for number in range(3):
        seen.use(Proof("k", str(number), now + timedelta(seconds=60)), now)
    with pytest.raises(Refusal) as refused:
        seen.use(Proof("k", "3", now + timedelta(seconds=60)), now)
    assert refused.value.status == 503
    with pytest.raises(Refusal, match="invalid_dpop_proof"):
        seen.use(Proof("k", "0", now + timedelta(seconds=60)), now)
    seen.use(Proof("k", "3", now + timedelta(seconds=120)), now + timedelta(seconds=60))
