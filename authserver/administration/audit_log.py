"""The audit's newest events for somebody who looks, by the filters of the API's list, and how it is sealed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from authserver import stream
from authserver.administration.decisions import MOST_LOOKED_THROUGH
from authserver.administration.lists import EVENTS, Looked
from authserver.audit import batches
from authserver.audit.events import Event, event_of
from authserver.schema import AuditEvent, table_of

_EVENTS = table_of(AuditEvent)


@dataclass(frozen=True, slots=True)
class Some:
    """Some events; `older` is the number before which there may be more, None where there are none."""

    events: tuple[Event, ...]
    older: int | None


@dataclass(frozen=True, slots=True)
class Sealing:
    """How much of the audit is in its tree, and who else is told of it: each name with whether that fails."""

    sealed: int
    sealed_at: datetime | None
    root: str | None
    waiting: int
    destinations: Mapping[str, bool]


def events(looked: Looked, filters: Mapping[str, str], before: int | None, most: int) -> Some:
    """Up to `most` events, the last first; with `before`, those earlier than the event of that number."""
    if before is None:
        before = (looked.connection.scalar(select(func.max(_EVENTS.c.id))) or 0) + 1
    # One page looks through so many at most: the way back to older ones is the cursor.
    floor = before - MOST_LOOKED_THROUGH
    wanted = (EVENTS.filters[name](looked, value) for name, value in filters.items())
    query = select(_EVENTS).where(_EVENTS.c.id < before, _EVENTS.c.id >= floor, *wanted)
    rows = looked.connection.execute(query.order_by(_EVENTS.c.id.desc()).limit(most + 1)).all()
    if len(rows) > most:
        return Some(tuple(map(event_of, rows[:most])), rows[most - 1].id)
    is_there = select(_EVENTS.c.id).where(_EVENTS.c.id < floor).limit(1)
    older = floor if looked.connection.scalar(is_there) is not None else None
    return Some(tuple(map(event_of, rows)), older)


def sealing(looked: Looked, failing: Mapping[str, int]) -> Sealing:
    """How it stands; `failing` are the destinations that took nothing lately."""
    newest = batches.latest(looked.connection)
    waiting, _seconds = batches.lag(looked.connection, looked.now)
    told = {name: name in failing for name in stream.destinations_of(looked.services)}
    if newest is None:
        return Sealing(0, None, None, waiting, told)
    return Sealing(newest.tree.size, newest.sealed_at, newest.tree.root().hex(), waiting, told)
