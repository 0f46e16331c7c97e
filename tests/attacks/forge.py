"""Tokens that no honest library would write: by hand, from bytes, signed with whatever key is at hand."""

import hashlib
import hmac
import json
import warnings
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

Key = ECKey | RSAKey
Part = Mapping[str, Any] | bytes

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P256_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1


class _Absent:
    def __repr__(self) -> str:
        return "absent"  # in a test's name, the same in every process


ABSENT: object = _Absent()
"""As a change: the member is left out."""


def encoded(value: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The bytes of base64url without padding."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def as_bytes(part: Part) -> bytes:
    """A header or claims: bytes as they are, members as JSON."""
    return part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()


def signing_input(header: Part, claims: Part) -> str:
    """What a signature is over (RFC 7515 §5.1)."""
    return f"{encoded(as_bytes(header))}.{encoded(as_bytes(claims))}"


def sign_text(signed: str, key: Key, alg: str = "ES256") -> str:
    """A compact JWS of that signing input, whatever it says, with a good signature of `key` by `alg`."""
    return f"{signed}.{encoded(JWSRegistry.algorithms[alg].sign(signed.encode(), key))}"


def mac_text(signed: str, secret: bytes, alg: str = "HS256") -> str:
    """The same with an HMAC of any bytes, which no library lets one do with a public key."""
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), getattr(hashlib, 'sha' + alg[2:])))}"


def with_signature(token: str, signature: bytes) -> str:
    """The same token with another signature."""
    return f"{token.rpartition('.')[0]}.{encoded(signature)}"


def signature_of(token: str) -> bytes:
    """The signature of a token."""
    return decoded(token.rpartition(".")[2])


def header_of(token: str) -> dict[str, Any]:
    """What a token's header says."""
    header: dict[str, Any] = json.loads(decoded(token.split(".")[0]))
    return header


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, whoever signed it."""
    claims: dict[str, Any] = json.loads(decoded(token.split(".")[1]))
    return claims


def r_and_s(token: str) -> tuple[int, int]:
    """The two numbers of an ES256 signature."""
    signature = signature_of(token)
    return int.from_bytes(signature[:32]), int.from_bytes(signature[32:])


def with_numbers(token: str, r: int, s: int) -> str:
    """The same token with these two numbers as its ES256 signature."""
    return with_signature(token, r.to_bytes(32) + s.to_bytes(32))


def twisted(token: str) -> str:
    """The same token with the other signature that is as good: (r, n - s) for (r, s)."""
    r, s = r_and_s(token)
    return with_numbers(token, r, P256_ORDER - s)


def der_signature(token: str) -> bytes:
    """The signature as X.509 writes it and JWS does not (RFC 7518 §3.4)."""
    return encode_dss_signature(*r_and_s(token))


def public(key: Key, **members: Any) -> dict[str, Any]:
    """The JWK of the public half, with more members."""
    return {**key.as_dict(private=False), **members}


def faces(key: Key) -> dict[str, bytes]:
    """Every form in which a public key is passed around, as somebody's HMAC secret (CVE-2022-29217)."""
    pem, jwk = key.as_pem(private=False), public(key)
    thumbprint_input = {name: jwk[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in jwk}
    return {
        "PEM": pem,
        "PEM without its last line end": pem.rstrip(),
        "DER": key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "JWK text": json.dumps(jwk).encode(),
        "compact JWK text": json.dumps(jwk, separators=(",", ":")).encode(),
        "thumbprint input": json.dumps(thumbprint_input, separators=(",", ":")).encode(),
        "thumbprint": key.thumbprint().encode(),
        "nothing": b"",
    }


def weak_rsa() -> RSAKey:
    """An RSA key of 1024 bits."""
    with warnings.catch_warnings(action="ignore", category=SecurityWarning):
        return RSAKey.generate_key(1024)


def certificate(key: Key, name: str = "example.org") -> str:
    """A certificate that the key's holder made for itself, as `x5c` carries it (RFC 7515 §4.1.6)."""
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).serial_number(1)
    builder = (
        builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).public_key(key.public_key)
    )
    return b64encode(builder.sign(key.private_key, SHA256()).public_bytes(Encoding.DER)).decode()


@dataclass(frozen=True)
class Draft:
    """A token that would be good, before somebody changes it. `key` is the one that it would be verified with."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    key: Key

    def changed(self, header: Mapping[str, Any] | None = None, **claims: Any) -> "Draft":
        """The same with other members; `ABSENT` leaves one out."""
        return Draft(_laid_over(self.header, header or {}), _laid_over(self.claims, claims), self.key)

    @property
    def signing_input(self) -> str:
        """Its first two parts."""
        return signing_input(self.header, self.claims)

    def signed(self, key: Key | None = None, alg: str = "ES256") -> str:
        """The token, with a good signature by `alg`, whatever its header says."""
        return sign_text(self.signing_input, key or self.key, alg)

    def signed_bytes(self, header: bytes | None = None, claims: bytes | None = None) -> str:
        """The token with a header or claims of exactly these bytes, and a good signature."""
        return sign_text(signing_input(header or self.header, claims or self.claims), self.key)


def _laid_over(members: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if value is not ABSENT}
