"""Sealed batches as rows: which events are which leaves of the tree, and the signed head after each batch.

Events are sealed in the order in which they are found. That is the order of their ids, but for those few that were
written under a lower id and committed later (PostgreSQL numbers rows before they are committed); those follow.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Row, bindparam, func, select
from sqlalchemy.exc import IntegrityError

from authserver import strict_json
from authserver.audit.tree import HASH_BYTES, Tree, leaf_hash
from authserver.db import Conflict
from authserver.schema import AuditBatch, AuditEvent, table_of

_BATCHES, _EVENTS = table_of(AuditBatch), table_of(AuditEvent)
# A transaction that has taken a number ends within seconds, whatever becomes of it (`database.statement_timeout`).
_LATEST_COMMIT = timedelta(minutes=10)
_MOST_GAPS = 10_000
_LATE_BATCHES = 20
_AT_ONCE = 500  # parameters of one statement; SQLite takes 32,766
_ID_BYTES = 8
_MEMBERS = ("id", "at", "event", "client_id", "delegation_id", "action_id", "rule", "data")
_ALL_EVENTS = select(*(_EVENTS.c[name] for name in _MEMBERS))


@dataclass(frozen=True, slots=True)
class Leaf:
    """An event as a leaf: its number, and the hash over all that it says."""

    event_id: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Some leaves, from position `first` on, and the tree after them."""

    first: int
    leaves: tuple[Leaf, ...]
    tree: Tree
    head: str
    sealed_at: datetime


def leaf_of(members: Mapping[str, object]) -> bytes:
    """The hash of an event, given as it is exported.

    It is over the event as one JSON text in ASCII, without spaces, members sorted at every level.
    """
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return leaf_hash(text.encode("ascii"))


def members_of(row: Row[tuple[object, ...]]) -> dict[str, object]:
    """The event in a row of the audit, as it is exported; members that say nothing are left out."""
    members = dict(zip(_MEMBERS, row, strict=True))
    members["at"] = row.at.isoformat().replace("+00:00", "Z")
    members["data"] = json.loads(row.data)
    return {name: value for name, value in members.items() if value is not None}


def leaf_in(row: Row[tuple[object, ...]]) -> Leaf:
    """The leaf that a row of the audit stands for.

    A text that says the same in other characters is another leaf: what was written is what was sealed.
    """
    try:
        members = members_of(row)
        as_written = strict_json.write(members["data"]) == row.data
    except (ValueError, TypeError):  # no JSON any more
        members, as_written = {}, False
    return Leaf(row.id, leaf_of(members if as_written else {"id": row.id, "altered": row.data}))


def latest(connection: Connection) -> Batch | None:
    """The newest batch."""
    row = connection.execute(select(_BATCHES).order_by(_BATCHES.c.first.desc()).limit(1)).first()
    return None if row is None else _batch(row)


def after(connection: Connection, position: int, most: int) -> list[Batch]:
    """Batches with leaves at `position` and after it, in order."""
    query = select(_BATCHES).where(_BATCHES.c.tree_size > position).order_by(_BATCHES.c.first).limit(most)
    return [_batch(row) for row in connection.execute(query)]


def at_size(connection: Connection, size: int) -> Tree | None:
    """The tree as it was after so many events; None where no batch ended there."""
    if size == 0:
        return Tree()
    row = connection.execute(select(_BATCHES).where(_BATCHES.c.tree_size == size)).first()
    return None if row is None else _batch(row).tree


def all_batches(connection: Connection, *, page: int = 50) -> Iterator[Batch]:
    """Every batch in order."""
    last = -1
    while rows := connection.execute(
        select(_BATCHES).where(_BATCHES.c.first > last).order_by(_BATCHES.c.first).limit(page)
    ).all():
        yield from map(_batch, rows)
        last = rows[-1].first


def unsealed(connection: Connection, now: datetime, most: int) -> list[Leaf]:
    """Events that are in no batch yet, oldest first."""
    newest = _highest_sealed(connection)
    late = events_of(connection, _gaps(connection, now))
    query = _ALL_EVENTS.where(_EVENTS.c.id > newest).order_by(_EVENTS.c.id).limit(most)
    return [leaf_in(row) for row in [*late.values(), *connection.execute(query)][:most]]


def events_of(connection: Connection, ids: Sequence[int]) -> dict[int, Row[tuple[object, ...]]]:
    """The events of these numbers that there are."""
    found = dict[int, Row[tuple[object, ...]]]()
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        query = _ALL_EVENTS.where(_EVENTS.c.id.in_(bindparam("ids", expanding=True))).order_by(_EVENTS.c.id)
        found |= {row.id: row for row in connection.execute(query, {"ids": some})}
    return found


def append(
    connection: Connection, before: Batch | None, leaves: Sequence[Leaf], tree: Tree, head: str, now: datetime
) -> None:
    """Write the batch after `before`. Raises `Conflict` where another process was faster."""
    first = before.tree.size if before else 0
    row = {
        "first": first,
        "event_ids": struct.pack(f">{len(leaves)}q", *(leaf.event_id for leaf in leaves)),
        "leaf_hashes": b"".join(leaf.hash for leaf in leaves),
        "peaks": b"".join(tree.peaks),
        "tree_size": tree.size,
        "head": head,
        "sealed_at": now,
    }
    try:
        connection.execute(_BATCHES.insert(), row)
    except IntegrityError as error:
        raise Conflict from error


def lag(connection: Connection, now: datetime) -> tuple[int, float]:
    """How many events are not sealed yet, and for how many seconds the oldest of them has waited."""
    waiting = _EVENTS.c.id > _highest_sealed(connection)
    count, oldest = connection.execute(select(func.count(), func.min(_EVENTS.c.at)).where(waiting)).one()
    return count, max(0.0, (now - oldest).total_seconds()) if oldest is not None else 0.0


def _highest_sealed(connection: Connection) -> int:
    # Of several batches, since one may have nothing but late events in it.
    newest = select(_BATCHES.c.event_ids).order_by(_BATCHES.c.first.desc()).limit(_LATE_BATCHES)
    return max((max(numbers(event_ids)) for event_ids in connection.scalars(newest) if event_ids), default=0)


def _gaps(connection: Connection, now: datetime) -> list[int]:
    """Numbers between sealed events of the last minutes that nobody has used: what has them may yet be committed."""
    query = select(_BATCHES.c.event_ids).where(_BATCHES.c.sealed_at > now - _LATEST_COMMIT)
    recent = set[int]()
    for event_ids in connection.scalars(query.order_by(_BATCHES.c.first)):
        recent.update(numbers(event_ids))
    if not recent:
        return []
    lowest, highest = min(recent), max(recent)
    return [number for number in range(max(lowest, highest - _MOST_GAPS), highest) if number not in recent]


def _batch(row: Row[tuple[object, ...]]) -> Batch:
    hashes, peaks = _hashes(row.leaf_hashes), _hashes(row.peaks)
    leaves = tuple(Leaf(*pair) for pair in zip(numbers(row.event_ids), hashes, strict=False))
    return Batch(row.first, leaves, Tree(row.tree_size, tuple(peaks)), row.head, row.sealed_at)


def numbers(event_ids: bytes) -> tuple[int, ...]:
    """The numbers of events as a batch keeps them."""
    count = len(event_ids) // _ID_BYTES
    return struct.unpack(f">{count}q", event_ids[: count * _ID_BYTES])


def _hashes(joined: bytes) -> list[bytes]:
    return [joined[start : start + HASH_BYTES] for start in range(0, len(joined), HASH_BYTES)]
