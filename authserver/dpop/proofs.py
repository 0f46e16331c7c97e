"""A DPoP proof, checked against the request that it came with (RFC 9449 §4.3)."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta

from authserver import jose
from authserver.dpop.nonces import Nonces
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


def read_proof(
    unverified: str,
    *,
    method: str,
    url: str,
    now: datetime,
    nonces: Nonces | None,
    access_token: str | None = None,
) -> Proof:
    """Check a `DPoP` header against RFC 9449 §4.3, for a request of `method` to `url`.

    `url` is compared letter by letter, without query and fragment. `nonces` is None where none are asked for.
    `access_token` is the token that the request carries, if any: the proof must then be for it (`ath`), and the caller
    holds `jkt` against the token's `cnf`. The caller remembers `jti` until `forget_at` (§11.1).
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
    if access_token is not None and not _is_for(token.claims.get("ath"), access_token):
        raise _refused("dpop.ath")
    if nonces is not None and not nonces.is_good(token.claims.get("nonce"), now):
        raise _nonce_due(nonces, now)
    return Proof(jkt, jti, issued_at + _LIFE + _LEEWAY)


def token_hash(access_token: str) -> str:
    """The `ath` of a token (RFC 9449 §4.2): base64url of its SHA-256."""
    digest = hashlib.sha256(access_token.encode("ascii")).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _verified_thumbprint(token: jose.UnverifiedToken) -> str:
    if token.header.typ != "dpop+jwt" or token.header.jwk is None or token.header.alg not in ALGORITHMS:
        raise jose.TokenRefused("header")
    key = jose.public_key(token.header.jwk)
    jose.verify_with(token, key)
    return key.identity


def _is_for(unverified: object, access_token: str) -> bool:
    return (
        isinstance(unverified, str)
        and access_token.isascii()
        and hmac.compare_digest(unverified.encode("utf-8", "replace"), token_hash(access_token).encode())
    )


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
