"""The memory of tokens that may be used once, shared by all processes."""

import hashlib
from datetime import datetime

from sqlalchemy import Connection, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from authserver.jose import LEEWAY
from authserver.schema import SeenToken, table_of
from authserver.statements import Prepared

_SEEN = table_of(SeenToken)

# The primary key is the check: whoever inserts the row first has used the token (threats A49).
_INSERT = Prepared(
    {
        "sqlite": sqlite.insert(_SEEN).on_conflict_do_nothing(),
        "postgresql": postgresql.insert(_SEEN).on_conflict_do_nothing(),
    },
    ("issuer", "jti_hash", "expires_at"),
)


class Replayed(Exception):
    """A token with this `jti` was used before."""


def remember(connection: Connection, issuer: str, jti: str, expires_at: datetime) -> None:
    """Use up the `jti` of a token of `issuer` that ends at `expires_at`. Raises `Replayed`.

    It counts once the caller's transaction commits. The row is kept for the leeway with which `exp` is read,
    too.
    """
    if not _insert(connection, issuer, jti, expires_at):
        raise Replayed


def remember_quietly(connection: Connection, issuer: str, jti: str, expires_at: datetime) -> None:
    """The same for a token whose request was refused anyway: it stays used, whoever used it first."""
    _insert(connection, issuer, jti, expires_at)


def _insert(connection: Connection, issuer: str, jti: str, expires_at: datetime) -> bool:
    row = {
        "issuer": issuer,
        # Keyed on the jti, never on the text: an ECDSA signature can be written in more than one way (A15).
        "jti_hash": hashlib.sha256(jti.encode()).digest(),
        "expires_at": expires_at + LEEWAY,
    }
    return _INSERT.change(connection, row) == 1


def forget(connection: Connection, now: datetime, most: int) -> int:
    """Forget tokens that have ended, at most so many; returns how many."""
    due = select(_SEEN.c.issuer, _SEEN.c.jti_hash).where(_SEEN.c.expires_at <= now).limit(most)
    return connection.execute(delete(_SEEN).where(tuple_(_SEEN.c.issuer, _SEEN.c.jti_hash).in_(due))).rowcount
