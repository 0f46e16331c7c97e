"""What happened before under the same root delegation: asked for only where a policy wants to know.

A token that was issued counts for `since`. For payments count debits that were neither voided nor expired; for the
first payment to a merchant, only those that were redeemed.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection, case, exists, func, select

from authserver import strict_json
from authserver.policy.details import ActionDetails
from authserver.policy.facts import FIRST_PAYMENT, RECENT, SINCE, History
from authserver.schema import Action, ResourceServer, table_of

_ACTIONS, _SERVERS = table_of(Action), table_of(ResourceServer)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_PAID = ("authorized", "captured", "refunded")


def history_of(
    connection: Connection, root_id: str, action: ActionDetails, uses: Collection[str], at: datetime
) -> History:
    """What policies that use `uses` want to know of what happened under `root_id` before `at`; the rest is left out."""
    return History(
        since=_since(connection, root_id, uses, at) if SINCE in uses else {},
        first_payment=_first_payment(connection, root_id, action, at) if FIRST_PAYMENT in uses else None,
        recent=_recent(connection, root_id, at) if not set(RECENT).isdisjoint(uses) else {},
    )


def _since(connection: Connection, root_id: str, uses: Collection[str], at: datetime) -> dict[str, int]:
    query = (
        select(_ACTIONS.c.action, func.max(_ACTIONS.c.issued_at).label("newest"))
        .where(_ACTIONS.c.root_id == root_id, _ACTIONS.c.issued_at < at, _ACTIONS.c.action.in_(sorted(uses)))
        .group_by(_ACTIONS.c.action)
    )
    return {row.action: int((at - row.newest).total_seconds()) for row in connection.execute(query)}


def _first_payment(connection: Connection, root_id: str, action: ActionDetails, at: datetime) -> bool:
    """Whether nothing was paid to the merchant yet; one without an id is always new."""
    merchant = action.merchant
    if merchant is None or merchant.id is None:
        return True
    # No other member of an agent_action is called `id`; in JSON a quotation mark inside a value is escaped.
    named = f'"id":{strict_json.write(merchant.id)}'
    paid = exists().where(
        _ACTIONS.c.root_id == root_id,
        _ACTIONS.c.issued_at < at,
        _ACTIONS.c.state.in_(_PAID),
        _ACTIONS.c.budget == "debit",
        _ACTIONS.c.resource_server_id == _SERVERS.c.id,
        _SERVERS.c.identifier == action.location,
        # Not LIKE: on SQLite that takes capital letters for small ones.
        func.replace(_ACTIONS.c.details, named, "") != _ACTIONS.c.details,
    )
    return not connection.scalar(select(paid))


def _recent(connection: Connection, root_id: str, at: datetime) -> dict[str, int]:
    in_the_hour = _ACTIONS.c.issued_at >= at - _HOUR
    query = select(
        func.coalesce(func.sum(case((in_the_hour, 1), else_=0)), 0),
        func.count(),
        func.coalesce(func.sum(case((in_the_hour, _ACTIONS.c.amount), else_=0)), 0),
        func.coalesce(func.sum(_ACTIONS.c.amount), 0),
    ).where(
        _ACTIONS.c.root_id == root_id,
        _ACTIONS.c.issued_at < at,
        _ACTIONS.c.issued_at >= at - _DAY,
        _ACTIONS.c.budget == "debit",
        _ACTIONS.c.state.not_in(("voided", "expired")),
    )
    return dict(zip(RECENT, map(int, connection.execute(query).one()), strict=True))
