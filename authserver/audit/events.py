"""One append-only event for each decision, permitted or refused, and for each change by an operator; never a token."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy import Row as DatabaseRow

from authserver import strict_json
from authserver.db import Row, write_together
from authserver.errors import Refusal
from authserver.policy.reading import instant_text
from authserver.schema import AuditEvent, table_of

_TABLE = table_of(AuditEvent)


@dataclass(slots=True)
class Record:
    """An event being written: a use case fills in who and what as it learns them, so that a refusal can tell."""

    event: str  # the use case: exchange, introspection, revocation, …
    client_id: str | None = None
    delegation_id: str | None = None
    action_id: str | None = None
    rule: str | None = None
    data: dict[str, object] = field(default_factory=dict)

    def reset(self, event: str) -> None:
        """Begin anew: what a try that was rolled back had learned is forgotten."""
        self.event, self.rule, self.data = event, None, {}
        self.client_id = self.delegation_id = self.action_id = None

    def permitted(self, connection: Connection, now: datetime) -> None:
        """Write that the use case said yes, in the transaction that makes it true."""
        write_together(connection, (self.permitted_row(now),))

    def permitted_row(self, now: datetime) -> Row:
        """The same as a row, for a use case that writes it together with others."""
        return self._row(now, "permitted")

    def refused(self, connection: Connection, now: datetime, refusal: Refusal) -> None:
        """Write that the use case said no, and why."""
        self.rule = refusal.rule or refusal.error
        self.data |= {"error": refusal.error, "description": refusal.description}
        if refusal.violations:
            self.data["violations"] = [violation.to_json() for violation in refusal.violations]
        self._write(connection, now, "refused")

    def changed(self, connection: Connection, now: datetime, **data: object) -> None:
        """Write that somebody changed a record."""
        self.data |= data
        self._write(connection, now, None)

    def _write(self, connection: Connection, now: datetime, outcome: str | None) -> None:
        write_together(connection, (self._row(now, outcome),))

    def _row(self, now: datetime, outcome: str | None) -> Row:
        values = {
            "at": now,
            "event": f"{self.event}.{outcome}" if outcome else self.event,
            "client_id": self.client_id,
            "delegation_id": self.delegation_id,
            "action_id": self.action_id,
            "rule": self.rule,
            "data": strict_json.write(self.data),
        }
        return Row(_TABLE, values)


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it was written."""

    id: int
    at: datetime
    event: str
    client_id: str | None
    delegation_id: str | None
    action_id: str | None
    rule: str | None
    data: Mapping[str, object]

    def to_json(self) -> dict[str, object]:
        """The event as it is exported; members that say nothing are left out."""
        members = {
            "id": self.id,
            "at": instant_text(self.at),
            "event": self.event,
            "client_id": self.client_id,
            "delegation_id": self.delegation_id,
            "action_id": self.action_id,
            "rule": self.rule,
            "data": dict(self.data),
        }
        return {name: value for name, value in members.items() if value is not None}


def of_delegation(connection: Connection, delegation_id: str, before: int | None, most: int) -> list[Event]:
    """Up to `most` events of a delegation, the last first; those earlier than the event `before`, if it is given."""
    query = (
        select(_TABLE).where(_TABLE.c.delegation_id == delegation_id).order_by(_TABLE.c.id.desc()).limit(most)
    )
    if before is not None:
        query = query.where(_TABLE.c.id < before)
    return [event_of(row) for row in connection.execute(query)]


def all_events(
    connection: Connection,
    *,
    after: int = 0,
    since: datetime | None = None,
    until: datetime | None = None,
    page: int = 1_000,
) -> Iterator[Event]:
    """Every event after the event `after`, from `since` and before `until` where they are given, oldest first."""
    query, last = select(_TABLE).order_by(_TABLE.c.id).limit(page), after
    if since is not None:
        query = query.where(_TABLE.c.at >= since)
    if until is not None:
        query = query.where(_TABLE.c.at < until)
    while rows := connection.execute(query.where(_TABLE.c.id > last)).all():
        yield from map(event_of, rows)
        last = rows[-1].id


def newest_of(connection: Connection, names: Collection[str], after: int, most: int) -> list[Event]:
    """The newest events of these names, the last first, beyond the event `after`."""
    query = select(_TABLE).where(_TABLE.c.event.in_(sorted(names)), _TABLE.c.id > after)
    return [event_of(row) for row in connection.execute(query.order_by(_TABLE.c.id.desc()).limit(most))]


def find_event(connection: Connection, name: str) -> Event | None:
    """The event of that id, or the first one about the action of that id."""
    is_number = name.isdecimal() and len(name) < 19
    chosen = _TABLE.c.id == int(name) if is_number else _TABLE.c.action_id == name
    row = connection.execute(select(_TABLE).where(chosen).order_by(_TABLE.c.id).limit(1)).first()
    return None if row is None else event_of(row)


def count_between(connection: Connection, names: Collection[str], since: datetime, until: datetime) -> int:
    """How many events of these names there are from `since` and before `until`."""
    return (
        connection.scalar(select(func.count()).select_from(_TABLE).where(_between(names, since, until))) or 0
    )


def events_between(
    connection: Connection,
    names: Collection[str],
    since: datetime,
    until: datetime,
    *,
    after: int = 0,
    page: int = 1_000,
) -> Iterator[Event]:
    """Those events, oldest first; only those after the event `after`, which saves looking at all before it."""
    query, last = select(_TABLE).where(_between(names, since, until)).order_by(_TABLE.c.id).limit(page), after
    while rows := connection.execute(query.where(_TABLE.c.id > last)).all():
        yield from map(event_of, rows)
        last = rows[-1].id


def _between(names: Collection[str], since: datetime, until: datetime) -> ColumnElement[bool]:
    return _TABLE.c.event.in_(sorted(names)) & (_TABLE.c.at >= since) & (_TABLE.c.at < until)


def event_of(row: DatabaseRow[tuple[object, ...]]) -> Event:
    """A row of the table as an event."""
    return Event(
        row.id,
        row.at,
        row.event,
        row.client_id,
        row.delegation_id,
        row.action_id,
        row.rule,
        json.loads(row.data),
    )
