"""What is still to be sent. A row is written with what it tells of, and goes when it was delivered: a crash loses none.

Any process delivers, without a leader: whoever moves a row's `due_at` ahead has it until then.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, case, delete, func, literal, select, update

from authserver.ids import new_id
from authserver.schema import Instant, Notification, table_of

_TABLE = table_of(Notification)
_NAMES = ("id", "approval_id", "channel", "address_id", "event", "attempts")
# Seconds until the next attempt, after so many; then always the last one, for as long as the approval waits.
_PAUSES = (30, 60, 120, 300, 900)

Event = Literal["opened", "escalated", "confirm"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one place; `address_id` is None for the webhook, `approval_id` for the question to confirm."""

    id: str
    approval_id: str | None
    channel: str
    address_id: str | None
    event: Event
    attempts: int


def put(
    connection: Connection,
    approval_id: str | None,
    event: Event,
    channel: str,
    address_id: str | None,
    now: datetime,
) -> None:
    """Write a message to be sent, in the transaction that makes true what it tells."""
    row = {
        "id": new_id(),
        "approval_id": approval_id,
        "channel": channel,
        "address_id": address_id,
        "event": event,
        "due_at": now,
        "attempts": 0,
    }
    connection.execute(_TABLE.insert(), row)


def claim(connection: Connection, now: datetime, most: int) -> list[Message]:
    """Take messages that are due, the oldest first. They are due again after a while, unless they are `done`."""
    due = select(_TABLE.c.id).where(_TABLE.c.due_at <= now).order_by(_TABLE.c.due_at).limit(most)
    ids = connection.scalars(due.with_for_update(skip_locked=True)).all()
    later = [literal(now + timedelta(seconds=pause), Instant()) for pause in _PAUSES]
    by_attempts = ((_TABLE.c.attempts == number, due_at) for number, due_at in enumerate(later))
    again = case(*by_attempts, else_=later[-1])
    take = update(_TABLE).where(_TABLE.c.id.in_(ids), _TABLE.c.due_at <= now)
    take = take.values(due_at=again, attempts=_TABLE.c.attempts + 1)
    taken = connection.execute(take.returning(*(_TABLE.c[name] for name in _NAMES))) if ids else ()
    return [Message(*row) for row in taken]


def done(connection: Connection, message_id: str) -> None:
    """Forget a message: it was delivered, or nobody needs it any more."""
    connection.execute(delete(_TABLE).where(_TABLE.c.id == message_id))


def pending(connection: Connection) -> int:
    """How many messages are still to be sent."""
    return connection.scalar(select(func.count()).select_from(_TABLE)) or 0
