"""DPoP proofs (RFC 9449) at this server's endpoints, with nonces that all processes share without storing them."""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta

from authserver import jose
from authserver.errors import Refusal

ALGORITHMS = ("ES256", "ES384", "ES512", "RS256", "PS256")
_LEEWAY = timedelta(seconds=30)
_LIFE = timedelta(seconds=300)


@dataclass(frozen=True, slots=True)
class Proof:
    """A good proof: the key's thumbprint, and what must be remembered against its replay."""

    jkt: str
    jti: str
    forget_at: datetime


class Nonces:
    """Server nonces (RFC 9449 §8): the time they were made, under a key that all processes share."""

    def __init__(self, secret: bytes, lifetime: timedelta) -> None:
        self._secret, self._lifetime = secret, lifetime

    def make(self, now: datetime) -> str:
        """A nonce that is good for the configured lifetime."""
        made = int(now.timestamp()).to_bytes(8, "big")
        return urlsafe_b64encode(made + self._tag(made)).decode()

    def is_good(self, unverified: object, now: datetime) -> bool:
        """Whether this server made the nonce, not too long ago."""
        if not isinstance(unverified, str) or len(unverified) != 32:
            return False
        try:
            raw = urlsafe_b64decode(unverified.encode("ascii"))
        except ValueError:
            return False
        made, tag = raw[:8], raw[8:]
        if not hmac.compare_digest(tag, self._tag(made)):
            return False
        age = now.timestamp() - int.from_bytes(made, "big")
        return -_LEEWAY.total_seconds() <= age <= self._lifetime.total_seconds()

    def _tag(self, made: bytes) -> bytes:
        return hmac.digest(self._secret, made, hashlib.sha256)[:16]


def read_proof(unverified: str, *, method: str, url: str, now: datetime, nonces: Nonces | None) -> Proof:
    """Check a `DPoP` header against RFC 9449 §4.3, for a request of `method` to `url` that carries no access token.

    `nonces` is None where none are asked for. The caller remembers `jti` until `forget_at` (§11.1).
    Raises `Refusal` with `invalid_dpop_proof`, or `use_dpop_nonce` and a fresh nonce in its header.
    """
    try:
        token = jose.read_compact(unverified, key_in_header=True)
        jkt = _verified_thumbprint(token)
        issued_at, jti = jose.numeric_date(token.claims, "iat"), jose.text_claim(token.claims, "jti", 256)
    except jose.TokenRefused as error:
        raise _refused(f"dpop.{error.reason}") from error
    except jose.KeysRefused as error:
        raise _refused("dpop.key") from error
    if issued_at is None or jti is None:
        raise _refused("dpop.claims")
    if token.claims.get("htm") != method or not _same_url(token.claims.get("htu"), url):
        raise _refused("dpop.htm_htu")
    if not now - _LIFE <= issued_at <= now + _LEEWAY:
        raise _refused("dpop.iat")
    if nonces is not None and not nonces.is_good(token.claims.get("nonce"), now):
        raise _nonce_due(nonces, now)
    return Proof(jkt, jti, issued_at + _LIFE + _LEEWAY)


def _verified_thumbprint(token: jose.UnverifiedToken) -> str:
    if token.header.typ != "dpop+jwt" or token.header.jwk is None or token.header.alg not in ALGORITHMS:
        raise jose.TokenRefused("header")
    key = jose.public_key(token.header.jwk)
    jose.verify_with(token, key)
    return key.identity


def _same_url(unverified: object, url: str) -> bool:
    # RFC 9449 §4.3: compared without query and fragment.
    if not isinstance(unverified, str):
        return False
    return unverified.split("#", 1)[0].split("?", 1)[0] == url


def _refused(rule: str) -> Refusal:
    return Refusal("invalid_dpop_proof", "the DPoP proof is not acceptable", rule=rule)


def _nonce_due(nonces: Nonces, now: datetime) -> Refusal:
    return Refusal(
        "use_dpop_nonce",
        "the DPoP proof needs the nonce of this server",
        rule="dpop.nonce",
        headers={"DPoP-Nonce": nonces.make(now)},
    )
