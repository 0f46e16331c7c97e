"""Seal what the audit has written, and take away what is older than it must be kept. Any process may do either."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, select

from authserver.audit import batches, deliveries, heads
from authserver.audit.events import Record
from authserver.audit.tree import Tree
from authserver.audit.verification import RETENTION
from authserver.schema import AuditEvent, AuditRetention, table_of
from authserver.services import Services

_BATCH = 2_000
_EVENTS, _RETENTION = table_of(AuditEvent), table_of(AuditRetention)
_REMOVED_AT_ONCE = 500
_BATCHES_AT_ONCE = 1_000
_LATE_BATCHES = 100  # after which nothing is that late any more


def seal(services: Services, now: datetime) -> int:
    """Seal all events that are not sealed yet, in bounded transactions; returns how many. Raises `Refusal` (503)."""
    key = services.signing_keys.active()  # before any transaction: it may need one of its own
    at = now.replace(microsecond=0)  # as the head says it

    def some(connection: Connection) -> int:
        # First what was sealed last: whoever seals after that takes the place of this batch, which then is a conflict.
        before = batches.latest(connection)
        leaves = batches.unsealed(connection, now, _BATCH)
        if not leaves:
            return 0
        tree = (before.tree if before else Tree()).with_leaves([leaf.hash for leaf in leaves])
        head = heads.sign(tree, services.issuer, key, at)
        batches.append(connection, before, leaves, tree, head, at)
        return len(leaves)

    if not services.database.read(lambda connection: batches.unsealed(connection, now, 1)):
        return 0
    sealed = 0
    while found := services.database.write(some):
        sealed += found
        if found < _BATCH:
            break
    return sealed


def remove_old(services: Services, now: datetime) -> int:
    """Take away the events of batches that were sealed longer ago than they are kept; returns how many.

    Their leaves stay, so that what is left, and any copy of what is gone, can still be held to the heads. What a
    configured stream has not taken yet stays too, however old it is.
    """
    days = services.settings.audit.keep_days
    if not days:
        return 0
    before = now - timedelta(days=days)
    streams = [f"stream:{stream.name}" for stream in services.settings.audit.streams]
    services.database.write(lambda connection: _announce(connection, streams, before, now))
    removed = 0
    while some := services.database.write(_remove_some):
        removed += some
    return removed


def _announce(connection: Connection, streams: list[str], removed_before: datetime, now: datetime) -> None:
    """Say that all batches go that were sealed before then and that every stream has, where there are such."""
    kept_from = connection.scalar(select(func.max(_RETENTION.c.below))) or 0
    old = [b for b in batches.after(connection, kept_from, _BATCHES_AT_ONCE) if b.sealed_at < removed_before]
    reached = deliveries.reached(connection, streams)
    if reached is not None:
        old = [batch for batch in old if batch.tree.size <= reached]
    if not old:
        return
    below, highest = old[-1].tree.size, max(leaf.event_id for batch in old for leaf in batch.leaves)
    # What was committed late has a lower number, and is in a later batch: it goes with that one.
    later = batches.after(connection, below, _LATE_BATCHES)
    highest = min([highest, *(leaf.event_id - 1 for batch in later for leaf in batch.leaves)])
    row = {"below": below, "highest_id": highest, "removed_before": removed_before}
    connection.execute(_RETENTION.insert(), row)
    Record(RETENTION).changed(connection, now, below=below, removed_before=removed_before.isoformat())


def _remove_some(connection: Connection) -> int:
    """All that was announced and is still there, however long ago: whoever announced it may have been stopped."""
    said = connection.execute(select(_RETENTION).order_by(_RETENTION.c.below.desc()).limit(1)).first()
    if said is None:
        return 0
    due = select(_EVENTS.c.id).where(_EVENTS.c.id <= said.highest_id, _EVENTS.c.at < said.removed_before)
    ids = connection.scalars(due.order_by(_EVENTS.c.id).limit(_REMOVED_AT_ONCE)).all()
    return connection.execute(delete(_EVENTS).where(_EVENTS.c.id.in_(ids))).rowcount if ids else 0
