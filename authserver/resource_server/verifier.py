"""Action tokens verified offline: a signature, a few claims, and no call to the server."""

from datetime import datetime

import httpx

from authserver import jose
from authserver.clock import Clock, SystemClock
from authserver.discovery import Issuer
from authserver.resource_server.action_token import ActionToken, read_action_token
from authserver.resource_server.keys import IssuerKeys
from authserver.resource_server.rejections import InvalidToken, ProofRequired, TokenMissing

_TYPE = "at+jwt"  # RFC 9068 §2.1
_ALGORITHMS = ("ES256",)


def bearer_token(unverified_header: str | None) -> str:
    """The token of an `Authorization` header (RFC 6750 §2.1). Raises `TokenMissing` or `ProofRequired`."""
    scheme, _, unverified_token = (unverified_header or "").partition(" ")
    if scheme.lower() == "dpop":
        raise ProofRequired("dpop.unchecked", "DPoP proofs are not checked here")
    if scheme.lower() != "bearer" or not unverified_token:
        raise TokenMissing("token.missing", "an action token is needed")
    return unverified_token.strip()


class Verifier:
    """Verifies the tokens that `issuer` signed for `audience`, this resource server's identifier.

    One for each process; threads may share it. Verifying is offline, so a token that was revoked a moment ago still
    passes until it expires: ask `Introspection` before money moves or data leave.
    """

    def __init__(
        self, issuer: str, audience: str, *, clock: Clock | None = None, http: httpx.Client | None = None
    ) -> None:
        """Raises `ValueError` where `issuer` is no https URL (http for loopback only)."""
        self._issuer, self._audience = Issuer(issuer, http), audience
        self._clock = clock or SystemClock()
        self._keys = IssuerKeys(self._issuer)
        self._verified: jose.VerifiedTokens[ActionToken] = jose.VerifiedTokens()

    def verify(self, unverified_token: str) -> ActionToken:
        """What the token allows.

        Raises `InvalidToken`, `ProofRequired` for one that is bound to a key, and `IssuerUnavailable` where the
        issuer's keys cannot be had.
        """
        now = self._clock.now()
        known = self._known(unverified_token, now)
        if known is not None:
            return known
        try:
            return self._verify(unverified_token, now)
        except jose.TokenRefused as refused:
            raise InvalidToken(refused.reason) from refused

    def _known(self, unverified_token: str, now: datetime) -> ActionToken | None:
        remembered = self._verified.recall(unverified_token, now)
        if remembered is None:
            return None
        identity, token = remembered
        if token is None or now < token.issued_at - jose.LEEWAY:
            return None  # the clock was set back since
        return token if any(key.identity == identity for key in self._keys.current(now)) else None

    def _verify(self, unverified_token: str, now: datetime) -> ActionToken:
        signed = jose.read_compact(unverified_token)
        # RFC 8725 §3.11: a grant or a status list of the same issuer is no access token.
        if signed.header.typ != _TYPE:
            raise jose.TokenRefused("token.typ")
        key = jose.key_for(signed, self._keys.current(now, signed.header.kid), _ALGORITHMS)
        jose.verify_with(signed, key)
        token = read_action_token(
            signed.claims, issuer=self._issuer.identifier, audience=self._audience, now=now
        )
        self._verified.remember(unverified_token, key.identity, token.expires_at, token)
        return token
