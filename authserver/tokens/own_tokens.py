"""How this server tells its own tokens of one kind from everything else."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar

from authserver import jose
from authserver.tokens.signing_keys import SigningKeys

Facts = TypeVar("Facts")
_FAR = datetime(9999, 1, 1, tzinfo=UTC)
_REMEMBERED = 10_000


class OwnTokens(Generic[Facts]):
    """Reads this server's tokens of one `typ`; a text that was good is not verified again while its key stands."""

    def __init__(
        self, issuer: str, typ: str, keys: SigningKeys, parse: Callable[[jose.UnverifiedToken], Facts]
    ) -> None:
        """`parse` takes a token whose signature and issuer are good."""
        self._issuer, self._typ, self._keys, self._parse = issuer, typ, keys, parse
        self._verified: jose.VerifiedTokens[Facts] = jose.VerifiedTokens(_REMEMBERED)

    def read(self, unverified: str, now: datetime) -> Facts:
        """What the token says, expired or not: its row tells when it ended. Raises `jose.TokenRefused`."""
        remembered = self._verified.recall(unverified, now)
        if remembered is not None:
            identity, facts = remembered
            if facts is not None and any(key.identity == identity for key in self._keys.published()):
                return facts
        return self._verify(unverified)

    def signed(self, token: str, key: jose.SigningKey, facts: Facts) -> None:
        """This server signed it just now: `facts` are what `parse` would find in it."""
        self._verified.remember(token, key.kid, _FAR, facts)

    def _verify(self, unverified: str) -> Facts:
        token = jose.read_compact(unverified)
        # RFC 8725 §3.11: the kind of token is part of what was signed.
        if token.header.typ != self._typ:
            raise jose.TokenRefused("token.typ")
        key = jose.key_for(token, self._keys.for_token(token.header.kid), ("ES256",))
        jose.verify_with(token, key)
        if token.claims.get("iss") != self._issuer:
            raise jose.TokenRefused("token.iss")
        facts = self._parse(token)
        self._verified.remember(unverified, key.identity, _FAR, facts)
        return facts
