"""Delegation grants: a signed name for a delegation, worthless without the workload of the agent that it names."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from authserver import jose
from authserver.tokens.action_tokens import Actor
from authserver.tokens.own_tokens import OwnTokens
from authserver.tokens.signing_keys import SigningKeys

TYPE = "delegation-grant+jwt"
TOKEN_TYPE = "urn:authserver:token-type:delegation-grant"  # noqa: S105


@dataclass(frozen=True, slots=True)
class GrantClaims:
    """What a grant says (contract §5). The database row decides; the claims inform."""

    issuer: str
    subject: str
    client_id: str
    may_act: Actor
    grant_id: str
    issued_at: datetime
    expires_at: datetime
    authorization_details: dict[str, object]
    authenticated_at: datetime | None = None  # of the user, at the consent; with `acr` where it is known
    acr: str | None = None

    def to_json(self) -> dict[str, object]:
        """The claim set."""
        at = self.authenticated_at
        signed_in = {"auth_time": at and int(at.timestamp()), "acr": self.acr}
        return {
            "iss": self.issuer,
            "aud": self.issuer,
            "sub": self.subject,
            "client_id": self.client_id,
            "may_act": {"iss": self.may_act.issuer, "sub": self.may_act.subject},
            "jti": self.grant_id,
            "iat": int(self.issued_at.timestamp()),
            "exp": int(self.expires_at.timestamp()),
            "authorization_details": [self.authorization_details],
            **{name: value for name, value in signed_in.items() if value is not None},
        }


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant that this server signed: which delegation, and who may act (RFC 8693 §4.4)."""

    delegation_id: str
    may_act: Actor
    client_id: str


def sign(claims: GrantClaims, keys: SigningKeys) -> str:
    """Sign a grant with the key that is active now."""
    return jose.sign(claims.to_json(), key=keys.active(), typ=TYPE)


def read_own(issuer: str, keys: SigningKeys) -> OwnTokens[Grant]:
    """Reads this server's grants, addressed to itself; whether one still stands is for its row to say."""

    def parse(token: jose.UnverifiedToken) -> Grant:
        if jose.single_audience(token.claims) != issuer:
            raise jose.TokenRefused("token.aud")
        return _grant(token.claims)

    return OwnTokens(issuer, TYPE, keys, parse)


def _grant(claims: Mapping[str, object]) -> Grant:
    may_act = claims.get("may_act")
    if not isinstance(may_act, dict):
        raise jose.TokenRefused("token.may_act")
    return Grant(
        delegation_id=_required(claims, "jti"),
        may_act=Actor(_required(may_act, "iss"), _required(may_act, "sub")),
        client_id=_required(claims, "client_id"),
    )


def _required(claims: Mapping[str, object], name: str) -> str:
    value = jose.text_claim(claims, name, 2_048)
    if value is None:
        raise jose.TokenRefused(f"token.{name}")
    return value
