"""What happened before under the same root delegation: asked for only where a policy wants to know.

A token that was issued counts for `since`. For payments count debits that were neither voided nor expired; for the
first payment to a merchant, only those that were redeemed. Requests whose policies count come one after the other under
one root (`judging.gather`), so that two at once are both seen.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, case, exists, func, select

from authserver import strict_json
from authserver.policy.details import ActionDetails
from authserver.policy.facts import FIRST_PAYMENT, RECENT, SINCE, History
from authserver.schema import Action, ResourceServer, table_of

_ACTIONS, _SERVERS = table_of(Action), table_of(ResourceServer)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_PAID = ("authorized", "captured", "refunded")


@dataclass(frozen=True, slots=True)
class Past:
    """What is looked at: all that was recorded under one root, seen from `at`.

    `before` leaves out what was issued then or later, for a decision that is asked again; None leaves out nothing.
    What became of an action is always what is known of it today.
    """

    connection: Connection
    root_id: str
    at: datetime
    before: datetime | None = None

    @property
    def here(self) -> ColumnElement[bool]:
        under_it = _ACTIONS.c.root_id == self.root_id
        return under_it if self.before is None else under_it & (_ACTIONS.c.issued_at < self.before)


def history_of(past: Past, action: ActionDetails, uses: Collection[str]) -> History:
    """What policies that use `uses` want to know of the past; the rest is left out."""
    return History(
        since=_since(past, uses) if SINCE in uses else {},
        first_payment=_first_payment(past, action) if FIRST_PAYMENT in uses else None,
        recent=_recent(past) if not set(RECENT).isdisjoint(uses) else {},
    )


def _since(past: Past, uses: Collection[str]) -> dict[str, int]:
    query = (
        select(_ACTIONS.c.action, func.max(_ACTIONS.c.issued_at).label("newest"))
        .where(past.here, _ACTIONS.c.action.in_(sorted(uses)))
        .group_by(_ACTIONS.c.action)
    )
    rows = past.connection.execute(query)
    # A clock that was wrong may have issued something in what is the future now.
    return {row.action: max(0, int((past.at - row.newest).total_seconds())) for row in rows}


def _first_payment(past: Past, action: ActionDetails) -> bool:
    """Whether nothing was paid to the merchant yet; one without an id is always new."""
    merchant = action.merchant
    if merchant is None or merchant.id is None:
        return True
    # No other member of an agent_action is called `id`, and a quotation mark inside a value is escaped.
    named = f'"id":{strict_json.write(merchant.id)}'
    paid = exists().where(
        past.here,
        _ACTIONS.c.state.in_(_PAID),
        _ACTIONS.c.budget == "debit",
        _ACTIONS.c.resource_server_id == _SERVERS.c.id,
        _SERVERS.c.identifier == action.location,
        # Not LIKE: on SQLite that takes capital letters for small ones.
        func.replace(_ACTIONS.c.details, named, "") != _ACTIONS.c.details,
    )
    return not past.connection.scalar(select(paid))


def _recent(past: Past) -> dict[str, int]:
    in_the_hour = _ACTIONS.c.issued_at >= past.at - _HOUR
    query = select(
        func.coalesce(func.sum(case((in_the_hour, 1), else_=0)), 0),
        func.count(),
        func.coalesce(func.sum(case((in_the_hour, _ACTIONS.c.amount), else_=0)), 0),
        func.coalesce(func.sum(_ACTIONS.c.amount), 0),
    ).where(
        past.here,
        _ACTIONS.c.issued_at >= past.at - _DAY,
        _ACTIONS.c.budget == "debit",
        _ACTIONS.c.state.not_in(("voided", "expired")),
    )
    return dict(zip(RECENT, map(int, past.connection.execute(query).one()), strict=True))
