"""How often somebody may try to sign in: counted in rows, so that all processes share the count (threats A117)."""

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from authserver.errors import Refusal
from authserver.schema import Tries, table_of

_TABLE = table_of(Tries)


@dataclass(frozen=True, slots=True)
class Bound:
    """At most `most` tries in each `window`."""

    most: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class Taken:
    """Which one of its window this one is, from 1 on, and until when the window lasts; more than `most` is too many."""

    number: int
    until: datetime


def count(connection: Connection, key: str, bound: Bound, now: datetime) -> None:
    """Count one try for `key`. Raises `Refusal` (429) where there were too many; that one is not counted."""
    if take(connection, key, bound, now).number > bound.most:
        raise Refusal(
            "access_denied",
            "too many tries; wait a few minutes",
            rule="sign_in.too_many",
            status=429,
            headers={"Retry-After": str(int(bound.window.total_seconds()))},
        )


def take(connection: Connection, key: str, bound: Bound, now: datetime) -> Taken:
    """Count one more for `key`; where there were as many as there may be already, it is not counted."""
    row = {
        "key_hash": _hash_of(key),
        "tries": 1,
        "window_ends_at": now + bound.window,
        "now": now,
        "most": bound.most,
    }
    counted = connection.execute(_UPSERTS[connection.dialect.name], row).first()
    if counted is not None:
        return Taken(counted.tries, counted.window_ends_at)
    full = select(_TABLE.c.window_ends_at).where(_TABLE.c.key_hash == _hash_of(key))
    return Taken(bound.most + 1, connection.scalars(full).one())


def forget(connection: Connection, key: str) -> None:
    """Begin the count of `key` anew: whoever it was has signed in."""
    connection.execute(delete(_TABLE).where(_TABLE.c.key_hash == _hash_of(key)))


def prune(connection: Connection, now: datetime, most: int) -> int:
    """Forget up to `most` counts whose window has ended; returns how many."""
    ended = select(_TABLE.c.key_hash).where(_TABLE.c.window_ends_at <= now).limit(most)
    return connection.execute(delete(_TABLE).where(_TABLE.c.key_hash.in_(ended))).rowcount


def of_account(username: str) -> str:
    """The key that counts for a user name, whether or not there is such a user."""
    return f"account:{username}"


def of_address(address: str) -> str:
    """The key that counts for where a request comes from; of IPv6, the /64 that one household has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return f"address:{address}"
    if parsed.version == 6:
        return f"address:{ipaddress.ip_network((parsed, 64), strict=False)}"
    return f"address:{parsed}"


def _hash_of(key: str) -> bytes:
    # A password that was typed as a user name is not kept in clear.
    return hashlib.sha256(key.encode()).digest()


def _upsert(dialect_insert: type[postgresql.Insert] | type[sqlite.Insert]) -> ReturningInsert[Any]:
    statement = dialect_insert(_TABLE).values(
        {name: bindparam(name, type_=_TABLE.c[name].type) for name in ("key_hash", "tries", "window_ends_at")}
    )
    now = bindparam("now", type_=_TABLE.c.window_ends_at.type)
    over = _TABLE.c.window_ends_at <= now
    upsert = statement.on_conflict_do_update(
        index_elements=[_TABLE.c.key_hash],
        set_={
            "tries": case((over, 1), else_=_TABLE.c.tries + 1),
            "window_ends_at": case((over, statement.excluded.window_ends_at), else_=_TABLE.c.window_ends_at),
        },
        where=over | (_TABLE.c.tries < bindparam("most")),
    )
    return upsert.returning(_TABLE.c.tries, _TABLE.c.window_ends_at)


_UPSERTS = {"postgresql": _upsert(postgresql.Insert), "sqlite": _upsert(sqlite.Insert)}
