"""How far each witness and collector has come. Whoever moves a row's `due_at` ahead has it until then."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import IntegrityError

from authserver.db import Conflict
from authserver.schema import AuditBatch, AuditDelivery, table_of

WITNESS_FILE, WITNESS_URL = "witness:file", "witness:http"  # destinations of heads; the others are of events
_TABLE, _BATCHES = table_of(AuditDelivery), table_of(AuditBatch)
# Seconds until the next attempt, after so many; then always the last one. Nothing is ever given up: the audit waits.
_PAUSES = (30, 30, 60, 120, 300)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A destination that is due, and how many leaves of the tree it has."""

    destination: str
    position: int
    attempts: int


def waiting(connection: Connection, destinations: Collection[str], now: datetime) -> list[str]:
    """Those of them that have not everything and may be tried now."""
    sealed = connection.scalar(select(func.max(_BATCHES.c.tree_size))) or 0
    rows = {row.destination: row for row in connection.execute(select(_TABLE))}
    return [
        name
        for name in destinations
        if sealed > (rows[name].position if name in rows else 0)
        and (name not in rows or rows[name].due_at <= now)
    ]


def claim(connection: Connection, destination: str, now: datetime) -> Delivery | None:
    """Take the destination for a while; None where another process has it, or it failed a moment ago."""
    row = connection.execute(select(_TABLE).where(_TABLE.c.destination == destination)).first()
    if row is None:
        first = {"destination": destination, "position": 0, "attempts": 0, "due_at": now}
        try:
            connection.execute(_TABLE.insert(), first)
        except IntegrityError as error:
            raise Conflict from error
        row = connection.execute(select(_TABLE).where(_TABLE.c.destination == destination)).one()
    pause = _PAUSES[min(row.attempts, len(_PAUSES) - 1)]
    taken = (
        update(_TABLE)
        .where(_TABLE.c.destination == destination, _TABLE.c.due_at <= now, _TABLE.c.due_at == row.due_at)
        .values(due_at=now + timedelta(seconds=pause), attempts=row.attempts + 1)
    )
    if connection.execute(taken).rowcount != 1:
        return None
    return Delivery(destination, row.position, row.attempts)


def taken(connection: Connection, delivery: Delivery, position: int, now: datetime) -> None:
    """It has everything before `position` now."""
    done = update(_TABLE).where(
        _TABLE.c.destination == delivery.destination, _TABLE.c.position == delivery.position
    )
    connection.execute(done.values(position=position, attempts=0, due_at=now))


def position(connection: Connection, destination: str) -> int:
    """How many leaves of the tree the destination knows of."""
    return connection.scalar(select(_TABLE.c.position).where(_TABLE.c.destination == destination)) or 0


def reached(connection: Connection, destinations: Collection[str]) -> int | None:
    """How many leaves all of them have; None where there are no destinations."""
    rows = connection.execute(select(_TABLE.c.destination, _TABLE.c.position))
    positions = {row.destination: row.position for row in rows}
    return min((positions.get(name, 0) for name in destinations), default=None)


def failing(connection: Connection) -> dict[str, int]:
    """The destinations whose last attempts failed, and how many attempts."""
    rows = connection.execute(select(_TABLE.c.destination, _TABLE.c.attempts).where(_TABLE.c.attempts > 1))
    return {row.destination: row.attempts for row in rows}
