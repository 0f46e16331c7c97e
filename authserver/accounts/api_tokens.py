"""API tokens as rows: what programs call the administrators' API with. Of the token itself only a hash is kept."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, literal, select, update

from authserver.ids import new_id
from authserver.schema import ApiToken as ApiTokenRow
from authserver.schema import Instant, table_of

_TABLE = table_of(ApiTokenRow)
PREFIX = "asapi_"  # so that people, and whoever searches files for secrets, see what it is
_SEEN_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token as operators see it; `expires_at` is None for one that ends when it is revoked."""

    id: str
    name: str
    role: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None

    def is_good(self, now: datetime) -> bool:
        """Whether it still opens anything."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


_ALL = select(*(_TABLE.c[name] for name in ApiToken.__dataclass_fields__))


def create(
    connection: Connection, name: str, role: str, expires_at: datetime | None, by: str, now: datetime
) -> tuple[ApiToken, str]:
    """Record a token; returns it with its text, to be shown once."""
    secret, token = (
        PREFIX + secrets.token_urlsafe(32),
        ApiToken(new_id(), name, role, now, by, expires_at, None, None),
    )
    row = {field: getattr(token, field) for field in ApiToken.__dataclass_fields__}
    connection.execute(_TABLE.insert(), {**row, "token_hash": _hash_of(secret)})
    return token, secret


def find_by_text(connection: Connection, unverified_text: str) -> ApiToken | None:
    """The token of that text, good or not."""
    return _one(connection.execute(_ALL.where(_TABLE.c.token_hash == _hash_of(unverified_text))).first())


def find(connection: Connection, id: str) -> ApiToken | None:
    """The token of that id."""
    return _one(connection.execute(_ALL.where(_TABLE.c.id == id)).first())


def list_all(connection: Connection) -> list[ApiToken]:
    """All tokens, oldest first, those that have ended too."""
    return [ApiToken(*row) for row in connection.execute(_ALL.order_by(_TABLE.c.created_at, _TABLE.c.id))]


def has_lasting_owner(connection: Connection) -> bool:
    """Whether some token of an owner has no end."""
    lasting = (_TABLE.c.role == "owner", _TABLE.c.revoked_at.is_(None), _TABLE.c.expires_at.is_(None))
    return connection.execute(select(_TABLE.c.id).where(*lasting).limit(1)).first() is not None


def see(connection: Connection, token: ApiToken, now: datetime) -> None:
    """Write down that the token is in use."""
    connection.execute(update(_TABLE).where(_TABLE.c.id == token.id).values(used_at=now))


def should_be_seen(token: ApiToken, now: datetime) -> bool:
    """Whether it is a minute or more since that was written down."""
    return token.used_at is None or now - token.used_at >= _SEEN_EVERY


def revoke(connection: Connection, id: str, now: datetime) -> int:
    """End a token; the first time counts. Returns 1, or 0 where there is none of that id."""
    first = func.coalesce(_TABLE.c.revoked_at, literal(now, Instant()))
    return connection.execute(update(_TABLE).where(_TABLE.c.id == id).values(revoked_at=first)).rowcount


def _hash_of(text: str) -> bytes:
    # It has 256 random bits, so one round of SHA-256 is as good as many.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _one(row: Row[Any] | None) -> ApiToken | None:
    return None if row is None else ApiToken(**row._mapping)
