"""Whether the audit is what it was: every event against its leaf, every leaf against the heads, here and elsewhere.

INVARIANT: a change to any sealed event, batch or head is found, and so is one that is missing
(test_A126_one_flipped_bit_anywhere_is_found).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, select

from authserver import jose
from authserver.audit import batches, heads
from authserver.audit.batches import Batch, EventRow, Leaf
from authserver.audit.heads import Head, HeadRefused
from authserver.audit.spans import Numbers
from authserver.audit.tree import Tree
from authserver.schema import AuditEvent, AuditRetention, table_of

_EVENTS, _RETENTION = table_of(AuditEvent), table_of(AuditRetention)
MOST_PROBLEMS = 100
RETENTION, RESTORED = "audit.retention", "audit.restored"
# Never taken away themselves: without them, what is missing could not be told from what somebody removed.
SAYS_WHAT_IS_MISSING = (RETENTION, RESTORED)


@dataclass(frozen=True, slots=True)
class Lost:
    """Leaves that a restored back-up did not have, as an event of the audit says it: positions, the end excluded."""

    start: int
    end: int


@dataclass(slots=True)
class Verified:
    """What was found. `problems` is empty where all is as it was written."""

    sealed: int = 0
    unsealed: int = 0
    removed_by_retention: int = 0
    heads: int = 0
    lost: list[Lost] = field(default_factory=list)
    root: bytes = b""
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """For output."""
        return {
            "ok": not self.problems,
            "sealed": self.sealed,
            "unsealed": self.unsealed,
            "removed_by_retention": self.removed_by_retention,
            "heads": self.heads,
            "lost_in_restores": [[lost.start, lost.end] for lost in self.lost],
            "root_hash": self.root.hex(),
            "problems": self.problems,
        }


def verify(
    connection: Connection, keys: Sequence[jose.VerificationKey], issuer: str, witnessed: Sequence[Head] = ()
) -> Verified:
    """Hold the audit in the database to itself, and to heads that were kept elsewhere, in the order they came in.

    All of it has to be read at one instant (`db.see_one_instant`) where servers run meanwhile.
    """
    check = _Check(keys, issuer, frozenset(head.tree_size for head in witnessed))
    check.said(_said(connection))
    check.retention(_retention(connection))
    for batch in batches.all_batches(connection):
        check.batch(batch, batches.events_of(connection, [leaf.event_id for leaf in batch.leaves]))
    check.inserted(_numbers(connection), batches.newest_numbers(connection).passed_over)
    check.witnessed(witnessed)
    return check.found


def went_back_after(witnessed: Sequence[Head]) -> list[bool]:
    """Of each head, in the order they came in, whether a later one is of no more events: a back-up was restored."""
    went_back, smallest = list[bool](), None
    for head in reversed(witnessed):
        went_back.append(smallest is not None and smallest <= head.tree_size)
        smallest = head.tree_size if smallest is None else min(smallest, head.tree_size)
    return went_back[::-1]


def was_lost(head: Head, lost: Iterable[Lost]) -> bool:
    """Whether the audit says that the head's events were lost: the history goes on from fewer."""
    return any(one.start < head.tree_size <= one.end for one in lost)


def lost_by(name: object, data: object) -> Lost | None:
    """What an event says was lost; None where it says nothing of that."""
    if name != RESTORED or not isinstance(data, dict):
        return None
    start, end = data.get("tree_size"), data.get("witnessed_size")
    return Lost(start, end) if type(start) is int and type(end) is int else None


def against(head: Head, tree: Tree, issuer: str) -> list[str]:
    """What is wrong with a head, held to the tree as it was then."""
    if not head.signed:
        return [f"the head after {head.tree_size} events is signed by no key of this server"]
    if head.issuer != issuer:
        return [f"the head after {head.tree_size} events is of another server, {head.issuer}"]
    if head.root != tree.root():
        return [
            f"the head after {head.tree_size} events has another root: something before it is not as it was"
        ]
    return []


class _Check:
    def __init__(
        self, keys: Sequence[jose.VerificationKey], issuer: str, witnessed_sizes: frozenset[int]
    ) -> None:
        self.found = Verified()
        self._keys, self._issuer = keys, issuer
        self._tree = Tree()
        self._wanted = witnessed_sizes
        self._roots = dict[int, bytes]()  # by the size of the tree, where a witness has such a head
        self._sealed = Numbers()
        self._kept_from = 0  # retention took away leaves before this position, and nothing after
        self._said_removed = list[Mapping[str, object]]()

    def said(self, events: Iterable[tuple[str, Mapping[str, object]]]) -> None:
        """What the audit itself says of events that are not there."""
        for name, data in events:
            if name == RETENTION:
                self._said_removed.append(data)
            elif (lost := lost_by(name, data)) is not None:
                self.found.lost.append(lost)

    def retention(self, removed: Iterable[Mapping[str, object]]) -> None:
        """Hold what retention has taken away to what the audit says of it."""
        for row in removed:
            below = row["below"]
            if row in self._said_removed and isinstance(below, int):
                self._kept_from = max(self._kept_from, below)
            else:
                self._problem(f"the audit does not say that events below {below} were taken away")

    def batch(self, batch: Batch, rows: Mapping[int, EventRow]) -> None:
        if batch.first != self._tree.size:
            self._problem(
                f"batch {batch.first}: the batch before it is missing, the tree has {self._tree.size}"
            )
        for position, leaf in enumerate(batch.leaves, start=batch.first):
            self._leaf(position, leaf, rows.get(leaf.event_id))
        self._tree = self._tree.with_leaves([leaf.hash for leaf in batch.leaves])
        if self._tree != batch.tree:
            self._problem(f"batch {batch.first}: its leaves do not lead to its tree")
        self._head(batch)
        if self._tree.size in self._wanted:
            self._roots[self._tree.size] = self._tree.root()
        self.found.sealed, self.found.root = self._tree.size, self._tree.root()

    def _leaf(self, position: int, leaf: Leaf, row: EventRow | None) -> None:
        if leaf.event_id in self._sealed:
            self._problem(f"event {leaf.event_id}: is sealed twice, at {position} too")
        self._sealed.add(leaf.event_id)
        if row is not None:
            if batches.leaf_in(row) != leaf:
                self._problem(f"event {leaf.event_id}: was changed after it was sealed")
        elif position < self._kept_from:
            self.found.removed_by_retention += 1
        else:
            self._problem(f"event {leaf.event_id}: was removed")

    def _head(self, batch: Batch) -> None:
        try:
            head = heads.read(batch.head, self._keys)
        except HeadRefused as error:
            self._problem(f"batch {batch.first}: its head {error}")
            return
        if head.issued_at != batch.sealed_at:
            self._problem(f"batch {batch.first}: its head is of another time")
        if head.tree_size != self._tree.size:
            self._problem(f"batch {batch.first}: its head is of {head.tree_size} events")
            return
        for problem in against(head, self._tree, self._issuer):
            self._problem(problem)

    def inserted(self, numbers: Iterable[int], passed_over: frozenset[int]) -> None:
        """Events that are in no batch: new ones, which are sealed soon; or old ones that were not there then.

        One whose number was passed over a moment before is new, too: it was committed late.
        """
        newest = self._sealed.highest()
        for number in numbers:
            if number in self._sealed:
                continue
            self.found.unsealed += 1
            if number < newest and number not in passed_over:
                self._problem(f"event {number}: was not there when those around it were sealed")

    def witnessed(self, witnessed: Sequence[Head]) -> None:
        """Hold the tree to heads that were kept elsewhere."""
        for head, went_back in zip(witnessed, went_back_after(witnessed), strict=True):
            self.found.heads += 1
            problem = self._contradiction(head)
            if problem is not None and not (went_back and was_lost(head, self.found.lost)):
                self._problem(problem)

    def _contradiction(self, head: Head) -> str | None:
        if not head.signed:
            return (
                f"a witness has a head after {head.tree_size} events that is signed by no key of this server"
            )
        if head.issuer != self._issuer:
            return f"a witness has a head of another server, {head.issuer}"
        if head.tree_size > self._tree.size:
            missing = head.tree_size - self._tree.size
            return f"the newest {missing} events are cut off: a witness has seen {head.tree_size}"
        if self._root_at(head.tree_size) != head.root:
            return f"a witness has seen another history up to event {head.tree_size}"
        return None

    def _root_at(self, size: int) -> bytes | None:
        return Tree().root() if size == 0 else self._roots.get(size)

    def _problem(self, text: str) -> None:
        if len(self.found.problems) < MOST_PROBLEMS:
            self.found.problems.append(text)


def _said(connection: Connection) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The events that say what is missing, sealed or not yet; whether they are as written shows elsewhere."""
    query = select(_EVENTS.c.event, _EVENTS.c.data).where(_EVENTS.c.event.in_(SAYS_WHAT_IS_MISSING))
    for row in connection.execute(query.order_by(_EVENTS.c.id)):
        try:
            data = json.loads(row.data)
        except ValueError:
            continue
        if isinstance(data, dict):
            yield row.event, data


def _retention(connection: Connection) -> Iterator[Mapping[str, object]]:
    for row in connection.execute(select(_RETENTION).order_by(_RETENTION.c.below)):
        yield removal(row.below, row.highest_id, row.removed_before)


def removal(below: int, highest_id: int, removed_before: datetime) -> dict[str, object]:
    """What the event of a removal says, which is what its row does."""
    return {"below": below, "highest_id": highest_id, "removed_before": removed_before.isoformat()}


def _numbers(connection: Connection, *, page: int = 10_000) -> Iterator[int]:
    last = -(2**63)
    while found := connection.scalars(
        select(_EVENTS.c.id).where(_EVENTS.c.id > last).order_by(_EVENTS.c.id).limit(page)
    ).all():
        yield from found
        last = found[-1]
