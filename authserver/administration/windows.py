"""A stretch of the audit by ids: what happened since an instant, found without an index on time.

Events are numbered in the order in which they are written, so the first one of an instant is found by halving; clocks
of several servers may put a few on the wrong side of the edge, which no figure here minds.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, select

from authserver.schema import AuditEvent, table_of

EVENTS = table_of(AuditEvent)
# How many rows one page looks through for what its filters want, so that nobody's question costs more than that: the
# way on is the cursor.
MOST_LOOKED_THROUGH = 50_000


@dataclass(frozen=True, slots=True)
class Window:
    """The events with ids from `first` to `last`, both included; `since` is when they begin.

    `whole` is false where there were more since then than are looked through: then it holds the newest of them.
    """

    first: int
    last: int
    since: datetime
    whole: bool = True

    @property
    def holds(self) -> ColumnElement[bool]:
        """Whether an event is in it."""
        return EVENTS.c.id.between(self.first, self.last)


def window_since(connection: Connection, since: datetime, most: int) -> Window:
    """The newest events since that instant, at most `most` of them."""
    low, last = _bounds(connection)
    first = _first_since(connection, since, low, last)
    if last - first < most:
        return Window(first, last, since)
    first = last - most + 1
    found = _next(connection, first)
    return Window(first, last, since if found is None else found[1], whole=False)


def _bounds(connection: Connection) -> tuple[int, int]:
    low, high = connection.execute(select(func.min(EVENTS.c.id), func.max(EVENTS.c.id))).one()
    return (1, 0) if high is None else (low, high)


def _first_since(connection: Connection, since: datetime, low: int, last: int) -> int:
    high = last + 1
    while low < high:
        middle = (low + high) // 2
        found = _next(connection, middle)
        if found is None or found[1] >= since:
            high = middle
        else:
            low = found[0] + 1
    return low


def _next(connection: Connection, id: int) -> tuple[int, datetime] | None:
    query = select(EVENTS.c.id, EVENTS.c.at).where(EVENTS.c.id >= id).order_by(EVENTS.c.id).limit(1)
    row = connection.execute(query).first()
    return None if row is None else (row.id, row.at)
