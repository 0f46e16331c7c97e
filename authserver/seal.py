"""Seal what the audit has written, and take away what is older than it must be kept. Any process may do either."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.exc import IntegrityError

from authserver.audit import batches, deliveries, heads
from authserver.audit.events import Record
from authserver.audit.tree import Tree
from authserver.audit.verification import RETENTION, SAYS_WHAT_IS_MISSING, removal
from authserver.db import Conflict
from authserver.schema import AuditBatch, AuditEvent, AuditRetention, table_of
from authserver.services import Services

_BATCH = 2_000
_BATCHES, _EVENTS, _RETENTION = table_of(AuditBatch), table_of(AuditEvent), table_of(AuditRetention)
_REMOVED_AT_ONCE = 500


def seal(services: Services, now: datetime) -> int:
    """Seal all events that are not sealed yet, in bounded transactions; returns how many. Raises `Refusal` (503)."""
    key = services.signing_keys.active()  # before any transaction: it may need one of its own
    at = now.replace(microsecond=0)  # as the head says it

    def some(connection: Connection) -> int:
        # First what was sealed last: whoever seals after that takes the place of this batch, which then is a conflict.
        before = batches.latest(connection)
        leaves = batches.unsealed(connection, _BATCH)
        if not leaves:
            return 0
        tree = (before.tree if before else Tree()).with_leaves([leaf.hash for leaf in leaves])
        head = heads.sign(tree, services.issuer, key, at)
        batches.append(connection, before, leaves, tree, head, at)
        return len(leaves)

    if not services.database.read(lambda connection: batches.unsealed(connection, 1)):
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
    configured stream has not taken yet stays too, however old it is. Once a day: each removal is an event itself.
    """
    days = services.settings.audit.keep_days
    if not days:
        return 0
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    before = today - timedelta(days=days)
    streams = [f"stream:{stream.name}" for stream in services.settings.audit.streams]
    if services.database.read(lambda connection: _due(connection, streams, before)):
        services.database.write(lambda connection: _announce(connection, streams, before, now))
    removed = 0
    while some := services.database.write(_remove_some):
        removed += some
    return removed


def _due(connection: Connection, streams: list[str], removed_before: datetime) -> int:
    """Up to which position all was sealed before then, and every stream has it; 0 where nothing is left to be said."""
    newest = select(_RETENTION.c.below, _RETENTION.c.removed_before).order_by(_RETENTION.c.below.desc())
    said = connection.execute(newest.limit(1)).first()
    if said is not None and said.removed_before >= removed_before:
        return 0
    kept_from = said.below if said is not None else 0
    first = _BATCHES.c.first
    young = select(first).where(first >= kept_from, _BATCHES.c.sealed_at >= removed_before)
    below = connection.scalar(young.order_by(first).limit(1))
    if below is None:
        below = connection.scalar(select(func.max(_BATCHES.c.tree_size))) or 0
    reached = deliveries.reached(connection, streams)
    if reached is not None and reached < below:
        taken = select(func.max(_BATCHES.c.tree_size)).where(
            first <= reached, _BATCHES.c.tree_size <= reached
        )
        below = connection.scalar(taken) or 0
    return below if below > kept_from else 0


def _announce(connection: Connection, streams: list[str], removed_before: datetime, now: datetime) -> None:
    """Say that all batches go that were sealed before then and that every stream has, where nobody else just has."""
    below = _due(connection, streams, removed_before)
    if not below:
        return
    highest = batches.highest_within(connection, below)
    row = {"below": below, "highest_id": highest, "removed_before": removed_before}
    try:
        connection.execute(_RETENTION.insert(), row)
    except IntegrityError as error:
        raise Conflict from error
    Record(RETENTION).changed(connection, now, **removal(below, highest, removed_before))


def _remove_some(connection: Connection) -> int:
    """All that was announced and is still there, however long ago: whoever announced it may have been stopped."""
    said = connection.execute(select(_RETENTION).order_by(_RETENTION.c.below.desc()).limit(1)).first()
    if said is None:
        return 0
    due = select(_EVENTS.c.id).where(
        _EVENTS.c.id <= said.highest_id,
        _EVENTS.c.at < said.removed_before,
        _EVENTS.c.event.not_in(SAYS_WHAT_IS_MISSING),
    )
    ids = connection.scalars(due.order_by(_EVENTS.c.id).limit(_REMOVED_AT_ONCE)).all()
    return connection.execute(delete(_EVENTS).where(_EVENTS.c.id.in_(ids))).rowcount if ids else 0
