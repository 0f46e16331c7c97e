"""Wycheproof's vectors for the signatures that tokens carry (threat A16; origin in tests/data/wycheproof/README.md)."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from joserfc.jwk import ECKey, RSAKey

from authserver.jose import TokenRefused, VerificationKey, verify_bytes

DATA = Path(__file__).parent.parent / "data" / "wycheproof"


def vectors(file_name: str) -> list[ParameterSet]:
    """One parameter set for each vector: its group's public key (PEM) and the vector itself."""
    document = json.loads((DATA / file_name).read_text(encoding="utf-8"))
    found = [
        pytest.param(group["publicKeyPem"], vector, id=f"{vector['tcId']}: {vector['comment']}")
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


@pytest.mark.parametrize(("pem", "vector"), vectors("ecdsa_secp256r1_sha256_p1363_test.json"))
def test_A16_an_es256_signature_counts_exactly_when_the_vector_says_so(
    pem: str, vector: dict[str, str]
) -> None:
    assert verdict(VerificationKey(None, ECKey.import_key(pem)), "ES256", vector) == is_good(vector)


@pytest.mark.parametrize(("pem", "vector"), vectors("rsa_signature_2048_sha256_test.json"))
def test_A16_an_rs256_signature_counts_exactly_when_the_vector_says_so(
    pem: str, vector: dict[str, str]
) -> None:
    assert verdict(VerificationKey(None, RSAKey.import_key(pem)), "RS256", vector) == is_good(vector)
