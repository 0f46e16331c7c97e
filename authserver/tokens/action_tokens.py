"""Action tokens: the access token of RFC 9068 for one action, signed from its committed row."""

from dataclasses import dataclass
from datetime import datetime

from authserver import jose
from authserver.tokens.own_tokens import OwnTokens
from authserver.tokens.signing_keys import SigningKeys

TYPE = "at+jwt"


@dataclass(frozen=True, slots=True)
class Actor:
    """One agent of a chain, as `act` names it (RFC 8693 §4.1)."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class ApprovalClaim:
    """Which approval a token came of, and the hash of what was shown (contract §8)."""

    id: str
    details_hash: str


@dataclass(frozen=True, slots=True)
class ActionClaims:
    """What an action token says (contract §6). `actors` has the current one first; only that one decides."""

    issuer: str
    subject: str
    audience: str
    client_id: str
    actors: tuple[Actor, ...]
    issued_at: datetime
    expires_at: datetime
    jti: str
    authorization_details: tuple[dict[str, object], ...]
    grant_id: str
    status_uri: str
    status_index: int
    task_id: str | None = None
    jkt: str | None = None
    scope: str | None = None
    approval: ApprovalClaim | None = None

    def to_json(self) -> dict[str, object]:
        """The claim set; what does not apply is left out."""
        claims: dict[str, object] = {
            "iss": self.issuer,
            "sub": self.subject,
            "aud": self.audience,
            "client_id": self.client_id,
            "act": _nested(self.actors),
            "iat": int(self.issued_at.timestamp()),
            "exp": int(self.expires_at.timestamp()),
            "jti": self.jti,
            "authorization_details": list(self.authorization_details),
            "grant_id": self.grant_id,
            "status": {"status_list": {"uri": self.status_uri, "idx": self.status_index}},
        }
        if self.task_id is not None:
            claims["task_id"] = self.task_id
        if self.jkt is not None:
            claims["cnf"] = {"jkt": self.jkt}
        if self.scope is not None:
            claims["scope"] = self.scope
        if self.approval is not None:
            claims["approval"] = {"id": self.approval.id, "details_hash": self.approval.details_hash}
        return claims


def _nested(actors: tuple[Actor, ...]) -> dict[str, object]:
    current, *earlier = actors
    act: dict[str, object] = {"iss": current.issuer, "sub": current.subject}
    return act | {"act": _nested(tuple(earlier))} if earlier else act


def mint(claims: ActionClaims, key: jose.SigningKey) -> str:
    """Sign an action token with `key`, which is active now."""
    return jose.sign(claims.to_json(), key=key, typ=TYPE)


def read_own(issuer: str, keys: SigningKeys) -> OwnTokens[str]:
    """Reads this server's action tokens: their `jti`; the row tells the rest."""
    return OwnTokens(issuer, TYPE, keys, _jti)


def _jti(token: jose.UnverifiedToken) -> str:
    jti = jose.text_claim(token.claims, "jti", 64)
    if jti is None:
        raise jose.TokenRefused("token.jti")
    return jti
