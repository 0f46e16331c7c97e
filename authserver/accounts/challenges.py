"""What this server asked a browser for: taken once, within minutes, and from that browser only (threats A118)."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, delete, select

from authserver.schema import Challenge, table_of

_TABLE = table_of(Challenge)
_LASTS = timedelta(minutes=10)
Purpose = Literal["enrol", "passkey", "upstream"]


def make(
    connection: Connection,
    purpose: Purpose,
    bound_to: str,
    now: datetime,
    data: Mapping[str, str] | None = None,
) -> bytes:
    """A new challenge for the browser that holds the token `bound_to`; `data` is given back when it is used."""
    challenge = secrets.token_bytes(32)
    row = {
        "challenge_hash": _hash_of(challenge),
        "purpose": purpose,
        "bound_to": _hash_of(bound_to.encode()),
        "data": json.dumps(dict(data or {})),
        "expires_at": now + _LASTS,
    }
    connection.execute(_TABLE.insert(), row)
    return challenge


def use(
    connection: Connection, unverified_challenge: bytes, purpose: Purpose, bound_to: str, now: datetime
) -> dict[str, str] | None:
    """The data of that challenge, which is used up, or None where there is no such one.

    To be committed whatever comes of it: who fails with a challenge does not get another try with it.
    """
    row = connection.execute(
        delete(_TABLE)
        .where(
            _TABLE.c.challenge_hash == _hash_of(unverified_challenge),
            _TABLE.c.purpose == purpose,
            _TABLE.c.bound_to == _hash_of(bound_to.encode()),
            _TABLE.c.expires_at > now,
        )
        .returning(_TABLE.c.data)
    ).first()
    if row is None:
        return None
    data: dict[str, str] = json.loads(row.data)
    return data


def prune(connection: Connection, now: datetime, most: int) -> int:
    """Forget up to `most` challenges that nobody used in time; returns how many."""
    ended = select(_TABLE.c.challenge_hash).where(_TABLE.c.expires_at <= now).limit(most)
    return connection.execute(delete(_TABLE).where(_TABLE.c.challenge_hash.in_(ended))).rowcount


def _hash_of(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
