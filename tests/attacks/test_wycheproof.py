"""Wycheproof's vectors for the signatures that tokens carry (threat A16; origin in tests/data/wycheproof/README.md)."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from joserfc.jwk import ECKey, RSAKey

from authserver.jose import (
    ALGORITHMS,
    TokenRefused,
    UnverifiedToken,
    VerificationKey,
    read_compact,
    usable_keys,
    verify,
    verify_bytes,
)

DATA = Path(__file__).parent.parent / "data" / "wycheproof"


def vectors(file_name: str, key: str) -> list[ParameterSet]:
    """One parameter set for each vector: its group's public key (None where it has none) and the vector itself."""
    document = json.loads((DATA / file_name).read_text(encoding="utf-8"))
    found = [
        pytest.param(group.get(key), vector, id=f"{vector['tcId']}: {vector['comment']}")
        for group in document["testGroups"]
        for vector in group["tests"]
    ]
    assert len(found) == document["numberOfTests"]
    return found


def is_good(vector: Mapping[str, object]) -> bool:
    """What the vector says must come out.

    One is "acceptable": a hash whose AlgorithmIdentifier lacks its NULL. It is refused (RFC 8017 §9.2, step 2).
    """
    if vector["result"] == "acceptable":
        assert vector["flags"] == ["MissingNull"]
        return False
    return vector["result"] == "valid"


def verdict(key: VerificationKey, alg: str, vector: dict[str, str]) -> bool:
    """Whether the signature is accepted, by the function that every token's signature goes through.

    The signed messages are not JWS signing inputs (some are empty), so they cannot be wrapped into a token.
    """
    message, signature = bytes.fromhex(vector["msg"]), bytes.fromhex(vector["sig"])
    try:
        verify_bytes(message, signature, alg, key)
    except TokenRefused as refused:
        if refused.reason != "jws.signature":
            raise
        return False
    return True


@pytest.mark.parametrize(("pem", "vector"), vectors("ecdsa_secp256r1_sha256_p1363_test.json", "publicKeyPem"))
def test_A16_an_es256_signature_counts_exactly_when_the_vector_says_so(
    pem: str, vector: dict[str, str]
) -> None:
    assert verdict(VerificationKey(None, ECKey.import_key(pem)), "ES256", vector) == is_good(vector)


@pytest.mark.parametrize(("pem", "vector"), vectors("rsa_signature_2048_sha256_test.json", "publicKeyPem"))
def test_A16_an_rs256_signature_counts_exactly_when_the_vector_says_so(
    pem: str, vector: dict[str, str]
) -> None:
    assert verdict(VerificationKey(None, RSAKey.import_key(pem)), "RS256", vector) == is_good(vector)


def jws_verdict(jwk: Mapping[str, object] | None, jws: str) -> bool:
    """Whether a key set with this key accepts the JWS, claims apart: what most vectors sign is no claims set."""
    try:
        read_compact(jws)
    except TokenRefused as refused:
        if refused.reason != "jws.claims":
            return False
    head, _, signature = jws.split(".")
    token = UnverifiedToken(jws, read_compact(f"{head}.e30.{signature}").header, {})
    try:
        verify(token, usable_keys({"keys": [jwk] if jwk else []}, uses=frozenset({None, "sig"})), ALGORITHMS)
    except TokenRefused:
        return False
    return True


# No token has an empty payload; and of RFC 7520, figure 20, the token says PS384 and its key PS256.
NOT_HERE = ("emptyPayload", "Figure20")


def is_token(jwk: Mapping[str, object] | None, vector: Mapping[str, str]) -> bool:
    """Whether the vector says that it is good, and it may be a token here: no key is symmetric."""
    return (
        vector["result"] == "valid"
        and jwk is not None
        and jwk["alg"] in ALGORITHMS
        and vector["comment"] not in NOT_HERE
    )


@pytest.mark.parametrize(("jwk", "vector"), vectors("json_web_signature_test.json", "public"))
def test_A16_a_jws_counts_exactly_when_the_vector_says_so_and_tokens_may_be_so(
    jwk: Mapping[str, object] | None, vector: dict[str, str]
) -> None:
    assert jws_verdict(jwk, vector["jws"]) == is_token(jwk, vector)


def test_A16_some_of_the_vectors_for_jws_are_accepted() -> None:
    """Whoever refuses everything would agree with nearly all of them."""
    accepted = [
        vector
        for jwk, vector in (each.values for each in vectors("json_web_signature_test.json", "public"))
        if is_token(jwk, vector)
    ]
    assert len(accepted) >= 8
