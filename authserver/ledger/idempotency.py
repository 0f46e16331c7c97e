"""Which request an `Idempotency-Key` stood for, so that a retry gets the same action and holds nothing twice."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from authserver.db import Conflict, Row, write_together
from authserver.errors import Refusal
from authserver.schema import IdempotencyKey, table_of
from authserver.statements import Prepared

KEPT = timedelta(days=1)  # how long a key is remembered after what it led to has ended, or was answered
_TABLE = table_of(IdempotencyKey)
_BY_KEY = Prepared(
    select(_TABLE.c.request_hash, _TABLE.c.action_id, _TABLE.c.answer).where(
        _TABLE.c.caller == bindparam("caller"), _TABLE.c.key == bindparam("key")
    )
)


@dataclass(frozen=True, slots=True)
class Request:
    """A caller's key, and the SHA-256 of all that makes two requests the same."""

    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Earlier:
    """The action that an earlier request with the same key led to, and its answer where one is kept."""

    request_hash: bytes
    action_id: str
    answer: str | None


def parse_key(unverified: str | None) -> str | None:
    """The header's value: 1 to 128 visible ASCII characters. Raises `Refusal` (`invalid_request`)."""
    if unverified is not None and not re.fullmatch(r"[\x21-\x7e]{1,128}", unverified):
        raise Refusal(
            "invalid_request",
            "Idempotency-Key takes 1 to 128 visible ASCII characters",
            rule="idempotency_key",
        )
    return unverified


def find(connection: Connection, caller: str, key: str) -> Earlier | None:
    """What this caller's key stood for. Keys of different callers are independent."""
    row = _BY_KEY.first(connection, {"caller": caller, "key": key})
    return None if row is None else Earlier(row.request_hash, row.action_id, row.answer)


def remember(
    connection: Connection,
    caller: str,
    request: Request,
    *,
    root_id: str,
    action_id: str,
    expires_at: datetime,
    answer: str | None = None,
) -> None:
    """Bind the key to the action, in the transaction that makes it. Raises `Conflict` where another was quicker."""
    row = {
        "caller": caller,
        "key": request.key,
        "request_hash": request.fingerprint,
        "root_id": root_id,
        "action_id": action_id,
        "answer": answer,
        "expires_at": expires_at,
    }
    try:
        write_together(connection, (Row(_TABLE, row),))
    except IntegrityError as error:
        raise Conflict from error


def answered(connection: Connection, caller: str, key: str, answer: str, expires_at: datetime) -> None:
    """Keep what a request led to, for whoever sends it again."""
    mine = (_TABLE.c.caller == caller) & (_TABLE.c.key == key)
    connection.execute(update(_TABLE).where(mine).values(answer=answer, expires_at=expires_at))


def forget(connection: Connection, caller: str, key: str) -> None:
    """Let the key stand for nothing again: its request was refused, and nothing has happened."""
    connection.execute(delete(_TABLE).where(_TABLE.c.caller == caller, _TABLE.c.key == key))


def prune(connection: Connection, now: datetime, most: int) -> int:
    """Forget keys whose time is over, at most so many; returns how many."""
    due = select(_TABLE.c.caller, _TABLE.c.key).where(_TABLE.c.expires_at <= now).limit(most)
    return connection.execute(delete(_TABLE).where(tuple_(_TABLE.c.caller, _TABLE.c.key).in_(due))).rowcount
