"""A client's own key, and the proofs that it makes with it (RFC 9449 §4)."""

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from joserfc.jwk import ECKey

from authserver import jose
from authserver.dpop.proofs import token_hash


@dataclass(frozen=True, slots=True)
class ProofKey:
    """A P-256 key pair that proofs are signed with. `jkt` is the thumbprint that a token bound to it has in `cnf`."""

    key: ECKey = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A new key; it need not outlive the tokens that are bound to it."""
        return cls(ECKey.generate_key("P-256"))

    @property
    def jkt(self) -> str:
        """The RFC 7638 thumbprint of the public half."""
        return self.key.thumbprint()

    def proof(
        self,
        method: str,
        url: str,
        *,
        now: datetime,
        access_token: str | None = None,
        nonce: str | None = None,
    ) -> str:
        """The `DPoP` header of one request, good once.

        `url` may have query and fragment; they are left out (§4.2). `access_token` is the token of the `Authorization`
        header, `nonce` the last one that this server gave (`DPoP-Nonce`).
        """
        claims: dict[str, object] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url.split("#", 1)[0].split("?", 1)[0],
            "iat": int(now.timestamp()),
        }
        if access_token is not None:
            claims["ath"] = token_hash(access_token)
        if nonce is not None:
            claims["nonce"] = nonce
        return jose.sign_with_own_key(claims, key=self.key, typ="dpop+jwt")
