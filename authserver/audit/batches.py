"""Sealed batches as rows: which events are which leaves of the tree, and the signed head after each batch.

Events are sealed in the order in which they are found. That is the order of their ids, but for those few that were
written under a lower id and committed later (PostgreSQL numbers rows before they are committed); those follow.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from sqlalchemy import Connection, Row, bindparam, func, select
from sqlalchemy.exc import IntegrityError

from authserver import strict_json
from authserver.audit.events import event_of
from authserver.audit.tree import HASH_BYTES, Tree, leaf_hash
from authserver.db import Conflict
from authserver.schema import AuditBatch, AuditEvent, table_of

_BATCHES, _EVENTS = table_of(AuditBatch), table_of(AuditEvent)
# A transaction that has taken a number ends within seconds, whatever becomes of it (`database.statement_timeout`).
_LATEST_COMMIT = timedelta(minutes=2)
_FEWEST, _MOST = 20, 1_000  # batches that are looked through for numbers that were passed over
_WIDEST_GAP = 10_000
_AT_ONCE = 500  # parameters of one statement; SQLite takes 32,766
_ID_BYTES = 8
_ALL_EVENTS = select(_EVENTS)
EventRow = Row[tuple[object, ...]]


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


def leaf_in(row: EventRow) -> Leaf:
    """The leaf that a row of the audit stands for.

    A text that says the same in other characters is another leaf: what was written is what was sealed.
    """
    try:
        members = event_of(row).to_json()
        as_written = strict_json.write(members["data"]) == row.data
    except (ValueError, TypeError, RecursionError):  # no JSON any more, or none that can be read
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


def head_at(connection: Connection, size: int) -> str | None:
    """The signed head after so many events; None where no batch ended there."""
    return connection.scalar(select(_BATCHES.c.head).where(_BATCHES.c.tree_size == size))


def all_numbers(connection: Connection, *, page: int = 200) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Of every batch in order, its first position and the numbers of its events."""
    last = -1
    columns = select(_BATCHES.c.first, _BATCHES.c.event_ids).order_by(_BATCHES.c.first).limit(page)
    while rows := connection.execute(columns.where(_BATCHES.c.first > last)).all():
        for row in rows:
            yield row.first, numbers(row.event_ids)
        last = rows[-1].first


def all_batches(connection: Connection, *, page: int = 50) -> Iterator[Batch]:
    """Every batch in order."""
    last = -1
    while rows := connection.execute(
        select(_BATCHES).where(_BATCHES.c.first > last).order_by(_BATCHES.c.first).limit(page)
    ).all():
        yield from map(_batch, rows)
        last = rows[-1].first


@dataclass(frozen=True, slots=True)
class Sealed:
    """Which numbers are sealed, at the end of the tree: `highest`, and those below it that were passed over.

    What has one of the latter may yet be committed. Those of longer ago were given to nothing.
    """

    highest: int
    passed_over: frozenset[int]


def unsealed(connection: Connection, most: int) -> list[Leaf]:
    """Events that are in no batch yet: those that come late, then the others, oldest first."""
    sealed = newest_numbers(connection)
    late = events_of(connection, sorted(sealed.passed_over))
    query = _ALL_EVENTS.where(_EVENTS.c.id > sealed.highest).order_by(_EVENTS.c.id).limit(most)
    return [leaf_in(row) for row in [*late.values(), *connection.execute(query)][:most]]


def newest_numbers(connection: Connection) -> Sealed:
    """What the newest batches have sealed, by the times of the batches: how long ago that is does not matter.

    A server that stops has events that were committed after its last batch, under numbers below.
    """
    begin = _first_of_the_newest(connection)
    earlier = select(_BATCHES.c.event_ids).where(_BATCHES.c.first < begin).order_by(_BATCHES.c.first.desc())
    # A batch may have nothing but late events, so that the highest number is before it.
    before = map(numbers, connection.scalars(earlier.limit(_FEWEST)))
    highest, passed_over = max(chain.from_iterable(before), default=0), set[int]()
    newest = select(_BATCHES.c.event_ids).where(_BATCHES.c.first >= begin).order_by(_BATCHES.c.first)
    for event_ids in connection.scalars(newest):
        found = numbers(event_ids)
        # Nearly always, and on SQLite without exception; late ones would be at the beginning.
        if found and found[0] == highest + 1 and found[-1] == highest + len(found):
            highest = found[-1]
            continue
        for number in found:
            if number > highest:
                passed_over.update(range(max(highest + 1, number - _WIDEST_GAP), number))
                highest = number
            else:
                passed_over.discard(number)
    return Sealed(highest, frozenset(passed_over))


def _first_of_the_newest(connection: Connection) -> int:
    """The batch before which nothing that is missing can come any more."""
    firsts = select(_BATCHES.c.first).order_by(_BATCHES.c.first.desc()).limit(1)
    newest = connection.scalar(select(_BATCHES.c.sealed_at).order_by(_BATCHES.c.first.desc()).limit(1))
    if newest is None:
        return 0
    by_time = connection.scalar(firsts.where(_BATCHES.c.sealed_at <= newest - _LATEST_COMMIT)) or 0
    by_count = connection.scalar(firsts.offset(_FEWEST)) or 0
    return max(min(by_time, by_count), connection.scalar(firsts.offset(_MOST)) or 0)


def events_of(connection: Connection, ids: Sequence[int]) -> dict[int, EventRow]:
    """The events of these numbers that there are."""
    found = dict[int, EventRow]()
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
    sealed = newest_numbers(connection)
    late = [row.at for row in events_of(connection, sorted(sealed.passed_over)).values()]
    waiting = _EVENTS.c.id > sealed.highest
    count, oldest = connection.execute(select(func.count(), func.min(_EVENTS.c.at)).where(waiting)).one()
    since = min((at for at in (oldest, *late) if at is not None), default=now)
    return count + len(late), max(0.0, (now - since).total_seconds())


def highest_within(connection: Connection, size: int) -> int:
    """The highest number up to which all events that are sealed are among the first `size` leaves."""
    ids, most = _BATCHES.c.event_ids, _FEWEST
    within = select(ids).where(_BATCHES.c.first < size).order_by(_BATCHES.c.first.desc()).limit(most)
    beyond = select(ids).where(_BATCHES.c.first >= size).order_by(_BATCHES.c.first).limit(_MOST)
    highest = max(chain.from_iterable(map(numbers, connection.scalars(within))), default=0)
    lowest = min(chain.from_iterable(map(numbers, connection.scalars(beyond))), default=highest + 1)
    return min(highest, lowest - 1)


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
