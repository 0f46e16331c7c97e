"""Streams as rows, and what is pending for each."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, delete, exists, func, select, update

from authserver.ids import new_id
from authserver.schema import EventStream, PendingEvent, ResourceServer, SecurityEvent, table_of
from authserver.streams.sets import SUPPORTED, VERIFICATION, Pending, Said, new_jti

_TABLE, _PENDING, _SERVERS = table_of(EventStream), table_of(PendingEvent), table_of(ResourceServer)
_HAPPENINGS = table_of(SecurityEvent)

Status = Literal["enabled", "paused", "disabled"]
Method = Literal["push", "poll"]
MOST = 10  # streams of one receiver
# Seconds until the next attempt, after so many that did not arrive; then always the last one.
_PAUSES = (1, 2, 5, 15, 60, 300, 900)
# Whoever took it to push has it for so long.
_LEASE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a receiver gets its events; `encrypted_authorization` is sealed for the purpose `event-stream:ID`."""

    method: Method
    endpoint_url: str | None = None
    encrypted_authorization: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of one resource server. `read_event` and `read_within` say how far it was told."""

    id: str
    resource_server_id: str
    status: Status
    reason: str | None
    delivery: Delivery
    events_requested: tuple[str, ...] | None
    description: str | None
    created_at: datetime
    read_event: int
    read_within: str
    due_at: datetime
    failures: int
    failing_since: datetime | None
    trouble: str | None
    verified_at: datetime | None
    heard_at: datetime

    @property
    def events_delivered(self) -> tuple[str, ...]:
        """What it is told of: what was asked for, as far as there is such a thing."""
        asked = self.events_requested
        return SUPPORTED if asked is None else tuple(event for event in SUPPORTED if event in asked)


def authorization_purpose(stream_id: str) -> str:
    """What the seal of a stream's `authorization_header` is for."""
    return f"event-stream:{stream_id}"


# --- the receiver's side of it --------------------------------------------------------------------------------------


def create(
    connection: Connection,
    resource_server_id: str,
    delivery: Delivery,
    events_requested: Sequence[str] | None,
    description: str | None,
    read_event: int,
    now: datetime,
    *,
    stream_id: str,
) -> None:
    """Write a stream that is told of what comes after `read_event`."""
    row = {
        "id": stream_id,
        "resource_server_id": resource_server_id,
        "status": "enabled",
        "created_at": now,
        "read_event": read_event,
        "read_within": "",
        "due_at": now,
        "failures": 0,
        "heard_at": now,
    }
    connection.execute(_TABLE.insert(), row | _configured(delivery, events_requested, description))


def new_stream_id() -> str:
    """A name for a stream."""
    return new_id()


def configure(
    connection: Connection,
    stream: Stream,
    delivery: Delivery,
    events_requested: Sequence[str] | None,
    description: str | None,
    now: datetime,
) -> None:
    """Write what a receiver may choose; an attempt is made at once."""
    values = _configured(delivery, events_requested, description)
    _change(connection, stream.id, **values, due_at=now, failures=0, failing_since=None, trouble=None)


def set_status(
    connection: Connection, stream: Stream, status: Status, reason: str | None, newest: int, now: datetime
) -> None:
    """Enable, pause or disable it. One that was disabled is told of nothing that happened meanwhile (SSF §8.1.2.1)."""
    values: dict[str, object] = {"status": status, "reason": reason, "due_at": now}
    if stream.status == "disabled" and status != "disabled":
        values |= {"read_event": newest, "read_within": "", "failures": 0, "failing_since": None}
    if status == "disabled":
        connection.execute(delete(_PENDING).where(_PENDING.c.stream_id == stream.id))
    _change(connection, stream.id, **values)


def remove(connection: Connection, stream: Stream) -> None:
    """Forget a stream and all that is pending for it."""
    connection.execute(delete(_PENDING).where(_PENDING.c.stream_id == stream.id))
    connection.execute(delete(_TABLE).where(_TABLE.c.id == stream.id))


def heard(connection: Connection, stream: Stream, now: datetime) -> None:
    """Note that its receiver lives."""
    _change(connection, stream.id, heard_at=now)


def verifying(connection: Connection, stream: Stream, before: datetime, now: datetime) -> int:
    """Note that its receiver asked for a verification; returns 1, or 0 where it did so since `before`."""
    not_lately = _TABLE.c.verified_at.is_(None) | (_TABLE.c.verified_at <= before)
    asked = update(_TABLE).where(_TABLE.c.id == stream.id, not_lately)
    return connection.execute(asked.values(heard_at=now, verified_at=now)).rowcount


def add_verification(connection: Connection, stream: Stream, said: Said, now: datetime) -> None:
    """Let a verification be told in place of one that nobody took: so that there is never more than one."""
    # What a receiver says stands in it with its quotation marks escaped, and so is never taken for this.
    is_one = _PENDING.c.claims.contains(f'"type":"{VERIFICATION}"', autoescape=True)
    connection.execute(delete(_PENDING).where(_PENDING.c.stream_id == stream.id, is_one))
    add(connection, stream.id, [said], now)


def of_receiver(connection: Connection, resource_server_id: str) -> list[Stream]:
    """The streams of one resource server, oldest first."""
    query = select(_TABLE).where(_TABLE.c.resource_server_id == resource_server_id)
    return [_stream(row) for row in connection.execute(query.order_by(_TABLE.c.created_at, _TABLE.c.id))]


def find(connection: Connection, stream_id: str, resource_server_id: str | None = None) -> Stream | None:
    """The stream of that id; with a resource server, only one of its own."""
    query = select(_TABLE).where(_TABLE.c.id == stream_id)
    if resource_server_id is not None:
        query = query.where(_TABLE.c.resource_server_id == resource_server_id)
    row = connection.execute(query).first()
    return None if row is None else _stream(row)


def all_streams(connection: Connection) -> list[tuple[Stream, int]]:
    """Every stream, oldest first, each with how many events are pending for it."""
    pending = (
        select(func.count()).where(_PENDING.c.stream_id == _TABLE.c.id).scalar_subquery().label("pending")
    )
    rows = connection.execute(select(_TABLE, pending).order_by(_TABLE.c.created_at, _TABLE.c.id))
    return [(_stream(row), row.pending) for row in rows]


def abandoned(connection: Connection, before: datetime) -> list[Stream]:
    """Streams of whose receiver nothing was heard since `before`, or that have not told what happened before that."""
    return [_stream(row) for row in connection.execute(select(_TABLE).where(_is_abandoned(before)))]


def end_abandoned(connection: Connection, stream: Stream, before: datetime, reason: str) -> int:
    """Disable it and drop what is pending; returns 1, or 0 where its receiver has come back meanwhile."""
    ended = update(_TABLE).where(_TABLE.c.id == stream.id, _is_abandoned(before))
    if not connection.execute(ended.values(status="disabled", reason=reason)).rowcount:
        return 0
    connection.execute(delete(_PENDING).where(_PENDING.c.stream_id == stream.id))
    return 1


def _is_abandoned(before: datetime) -> ColumnElement[bool]:
    # However much a receiver says otherwise: a stream that is paused, or never read, would hold everything for ever.
    untaken = exists().where(_PENDING.c.stream_id == _TABLE.c.id, _PENDING.c.created_at < before)
    next_one = select(_HAPPENINGS.c.at).where(_HAPPENINGS.c.id > _TABLE.c.read_event)
    untold = next_one.order_by(_HAPPENINGS.c.id).limit(1).correlate(_TABLE).scalar_subquery() < before
    return (_TABLE.c.status != "disabled") & ((_TABLE.c.heard_at < before) | untaken | untold)


# --- the server's side of it ----------------------------------------------------------------------------------------


def add(connection: Connection, stream_id: str, said: Iterable[Said], now: datetime) -> None:
    """Let these be told, in this order, after all that is pending."""
    rows = [
        {"stream_id": stream_id, "jti": new_jti(), "claims": one.to_json(), "created_at": now} for one in said
    ]
    if rows:
        connection.execute(_PENDING.insert(), rows)


def move_on(connection: Connection, stream: Stream, read_event: int, read_within: str) -> int:
    """Write down how far it was told; returns 1, or 0 where another process was quicker."""
    as_it_was = (
        _TABLE.c.id == stream.id,
        _TABLE.c.read_event == stream.read_event,
        _TABLE.c.read_within == stream.read_within,
    )
    moved = update(_TABLE).where(*as_it_was).values(read_event=read_event, read_within=read_within)
    return connection.execute(moved).rowcount


def pending(connection: Connection, stream_id: str, most: int) -> list[Pending]:
    """What it has not taken yet, oldest first."""
    columns = (_PENDING.c.id, _PENDING.c.jti, _PENDING.c.claims)
    query = select(*columns).where(_PENDING.c.stream_id == stream_id).order_by(_PENDING.c.id).limit(most)
    return [Pending(row.id, row.jti, Said.from_json(row.claims)) for row in connection.execute(query)]


def pending_count(connection: Connection, stream_id: str) -> int:
    """How much it has not taken yet, of what was worked out."""
    return connection.scalar(select(func.count()).where(_PENDING.c.stream_id == stream_id)) or 0


def taken(connection: Connection, stream_id: str, jtis: Collection[str]) -> int:
    """Forget what its receiver has; returns how many there were. What is unknown was forgotten before."""
    done = delete(_PENDING).where(_PENDING.c.stream_id == stream_id, _PENDING.c.jti.in_(jtis))
    return connection.execute(done).rowcount if jtis else 0


def oldest_pending(connection: Connection) -> datetime | None:
    """Since when the oldest event waits to be taken."""
    since: datetime | None = connection.scalar(select(func.min(_PENDING.c.created_at)))
    return since


def has_news(connection: Connection, stream_id: str, newest: int) -> bool:
    """Whether there is anything to be told on a stream, where `newest` is the last thing that happened."""
    working = (_TABLE.c.id == stream_id) & (_TABLE.c.status == "enabled")
    return connection.scalar(select(_TABLE.c.id).where(working, _has_news(newest))) is not None


def _has_news(newest: int) -> ColumnElement[bool]:
    waiting = exists().where(_PENDING.c.stream_id == _TABLE.c.id)
    return waiting | (_TABLE.c.read_event < newest)


def to_push(connection: Connection, newest: int, now: datetime, most: int) -> list[tuple[str, str]]:
    """Streams on which something is due to be pushed now, each with its resource server."""
    due = (_TABLE.c.method == "push", _TABLE.c.status == "enabled", _TABLE.c.due_at <= now, _has_news(newest))
    query = select(_TABLE.c.id, _TABLE.c.resource_server_id).where(*due, _receiver_is_enabled())
    found = connection.execute(query.order_by(_TABLE.c.due_at).limit(most))
    return [(row.id, row.resource_server_id) for row in found]


def claim(connection: Connection, stream_id: str, now: datetime) -> Stream | None:
    """Take a stream to push on; None where another process has it."""
    mine = (_TABLE.c.id == stream_id) & (_TABLE.c.due_at <= now) & (_TABLE.c.status == "enabled")
    took = update(_TABLE).where(mine).values(due_at=now + _LEASE).returning(*_TABLE.c)
    row = connection.execute(took).first()
    return None if row is None else _stream(row)


def arrived(connection: Connection, stream: Stream, jtis: Collection[str], now: datetime) -> None:
    """These were taken; the rest is due at once."""
    taken(connection, stream.id, jtis)
    _change(connection, stream.id, due_at=now, failures=0, failing_since=None, trouble=None, heard_at=now)


def failed(connection: Connection, stream: Stream, trouble: str, now: datetime) -> None:
    """The last attempt did not arrive: the next is made after a while."""
    pause = _PAUSES[min(stream.failures, len(_PAUSES) - 1)]
    _change(
        connection,
        stream.id,
        due_at=now + timedelta(seconds=pause),
        failures=stream.failures + 1,
        failing_since=stream.failing_since or now,
        trouble=trouble,
    )


def _receiver_is_enabled() -> ColumnElement[bool]:
    return exists().where(_SERVERS.c.id == _TABLE.c.resource_server_id, _SERVERS.c.disabled_at.is_(None))


def _change(connection: Connection, stream_id: str, **values: object) -> None:
    connection.execute(update(_TABLE).where(_TABLE.c.id == stream_id).values(**values))


def _configured(
    delivery: Delivery, events_requested: Sequence[str] | None, description: str | None
) -> dict[str, object]:
    return {
        "method": delivery.method,
        "endpoint_url": delivery.endpoint_url,
        "encrypted_authorization": delivery.encrypted_authorization,
        "events_requested": None if events_requested is None else json.dumps(list(events_requested)),
        "description": description,
    }


def _stream(row: Row[Any]) -> Stream:
    requested = row.events_requested
    return Stream(
        id=row.id,
        resource_server_id=row.resource_server_id,
        status=row.status,
        reason=row.reason,
        delivery=Delivery(row.method, row.endpoint_url, row.encrypted_authorization),
        events_requested=None if requested is None else tuple(json.loads(requested)),
        description=row.description,
        created_at=row.created_at,
        read_event=row.read_event,
        read_within=row.read_within,
        due_at=row.due_at,
        failures=row.failures,
        failing_since=row.failing_since,
        trouble=row.trouble,
        verified_at=row.verified_at,
        heard_at=row.heard_at,
    )
