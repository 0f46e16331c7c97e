"""What a Security Event Token says (RFC 8417, SSF 1.0 §4, CAEP 1.0 §3), by names that only its receiver knows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from authserver import jose, strict_json
from authserver.ids import new_id

TYPE = "secevent+jwt"  # RFC 8417 §2.3
_CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
_SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
SESSION_REVOKED = f"{_CAEP}session-revoked"
TOKEN_CLAIMS_CHANGE = f"{_CAEP}token-claims-change"
DELEGATION_REVOKED = "https://schemas.authserver/event/delegation-revoked"
VERIFICATION = f"{_SSF}verification"
STREAM_UPDATED = f"{_SSF}stream-updated"
SUPPORTED = (SESSION_REVOKED, TOKEN_CLAIMS_CHANGE, DELEGATION_REVOKED)

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Said:
    """One event about one subject; `cause` is the same for all that follow from one cause, where there is one."""

    type: str
    subject: Mapping[str, object]
    event: Mapping[str, object]
    cause: str | None = None

    def to_json(self) -> str:
        """What is kept until it is sent."""
        return strict_json.write(
            {"type": self.type, "subject": dict(self.subject), "event": dict(self.event), "cause": self.cause}
        )

    @classmethod
    def from_json(cls, text: str) -> "Said":
        """What was kept."""
        kept: dict[str, Any] = json.loads(text)
        return cls(kept["type"], kept["subject"], kept["event"], kept["cause"])


@dataclass(frozen=True, slots=True)
class Pending:
    """An event that a receiver has not taken yet; `jti` is the same however often it is sent."""

    id: int
    jti: str
    said: Said


def new_jti() -> str:
    """A name for a token that nobody else has."""
    return new_id()


def signed(pending: Pending, key: jose.SigningKey, *, issuer: str, audience: str, now: datetime) -> str:
    """The token, as it is sent. It never expires (SSF §4.1.7) and has no `sub` (§4.1.2): it is about the past."""
    said = pending.said
    claims: Json = {
        "iss": issuer,
        "jti": pending.jti,
        "iat": int(now.timestamp()),
        "aud": audience,
        "sub_id": dict(said.subject),
        "events": {said.type: dict(said.event)},
    }
    if said.cause is not None:
        claims["txn"] = said.cause
    return jose.sign(claims, key=key, typ=TYPE)


# --- subjects (RFC 9493) --------------------------------------------------------------------------------------------


def stream_subject(stream_id: str) -> Json:
    """The stream itself (SSF §8.1.4.1)."""
    return {"format": "opaque", "id": stream_id}


def grant_subject(grant_id: str) -> Json:
    """A delegation, by the `grant_id` that this receiver's tokens have."""
    return {"format": "opaque", "id": grant_id}


def session_subject(issuer: str, grant_id: str, user: str) -> Json:
    """All that was let in by the tokens of one delegation: the session, and the user whose it is."""
    return {
        "format": "complex",
        "session": {"format": "opaque", "id": grant_id},
        "user": {"format": "iss_sub", "iss": issuer, "sub": user},
    }


def token_subject(issuer: str, jti: str) -> Json:
    """One action token (SSF §3.5.1)."""
    return {"format": "jwt_id", "iss": issuer, "jti": jti}


def everything(issuer: str) -> Json:
    """All that this issuer ever let in: of a complex subject, what is not named may be anything (SSF §8.1.3.1)."""
    return {"format": "complex", "tenant": {"format": "opaque", "id": issuer}}
