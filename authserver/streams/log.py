"""What ended or changed, one row each, written in the transaction that makes it true.

A revocation is one row, however much it ends: what follows for whom is worked out when it is told (`concerned`).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, delete, func, select, text

from authserver.schema import EventStream, SecurityEvent, table_of

_TABLE, _STREAMS = table_of(SecurityEvent), table_of(EventStream)
# Any number will do, as long as all processes use the same.
_LOCK = 0x65766E74

Kind = Literal["revoked", "paused", "resumed", "lowered"]
Level = Literal["delegation", "agent", "user", "trust_domain", "task", "all", "token"]
Initiator = Literal["admin", "user", "system"]


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that ended or changed. `party` is whose task it is, empty for everybody's and for all else."""

    id: int
    kind: Kind
    level: Level
    target: str
    party: str
    revocation_id: int | None
    initiator: Initiator
    at: datetime


_COLUMNS = tuple(_TABLE.c[name] for name in Happening.__dataclass_fields__)


def tell(
    connection: Connection,
    kind: Kind,
    level: Level,
    target: str,
    *,
    by: str,
    now: datetime,
    party: str = "",
    revocation_id: int | None = None,
) -> None:
    """Write down what this transaction ends or changes, as its last statement but for the audit's.

    `by` is who does it, as the audit names them; `revocation_id` the row in `revocations`, which ends nothing newer.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock_shared({_LOCK})"))
    row = {
        "kind": kind,
        "level": level,
        "target": target,
        "party": party,
        "revocation_id": revocation_id,
        "initiator": initiator(by),
        "at": now,
    }
    connection.execute(_TABLE.insert(), row)


def initiator(by: str) -> Initiator:
    """Who it was as CAEP §2 has it: `initiating_entity`."""
    who = by.partition(":")[0]
    if who == "user":
        return "user"
    return "system" if who in ("agent", "server") else "admin"


def newest(connection: Connection) -> int:
    """The last id that was given; 0 where there is none."""
    return connection.scalar(select(func.coalesce(func.max(_TABLE.c.id), 0))) or 0


def newest_of_all(connection: Connection) -> int:
    """The last id of which it is sure that none before it will still appear. For a transaction of its own.

    Ids are given before they are committed, and PostgreSQL commits in any order: so it waits for who is writing one.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    return newest(connection)


def after(connection: Connection, event_id: int, up_to: int) -> Happening | None:
    """The first one after `event_id`, and not after `up_to`."""
    query = select(*_COLUMNS).where(_TABLE.c.id > event_id, _TABLE.c.id <= up_to)
    row = connection.execute(query.order_by(_TABLE.c.id).limit(1)).first()
    return None if row is None else Happening(*row)


def forget(connection: Connection, before: datetime, most: int) -> int:
    """Take away what every stream has read, if it is older than `before`; returns how many."""
    reading = select(func.min(_STREAMS.c.read_event)).where(_STREAMS.c.status != "disabled")
    read_by_all = connection.scalar(reading)
    old = select(_TABLE.c.id).where(_TABLE.c.at < before).order_by(_TABLE.c.id).limit(most)
    if read_by_all is not None:
        old = old.where(_TABLE.c.id <= read_by_all)
    return connection.execute(delete(_TABLE).where(_TABLE.c.id.in_(old))).rowcount
