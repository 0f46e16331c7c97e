"""Reserve for a token that is about to be signed; give back what a token did not use.

An amount is held against the budget of the delegation and of every one above it, root first, in one transaction.
The conditional update is the check; the CHECK constraints of the tables stand behind it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, Insert, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from authserver.db import Conflict
from authserver.delegations.records import Chain, DelegationRecord
from authserver.delegations.stored_details import StoredDetails
from authserver.ledger import actions, transfers
from authserver.ledger.actions import ActionRecord
from authserver.ledger.spending import windows_of
from authserver.ledger.steps import Kind, Move, State
from authserver.policy.details import Merchant
from authserver.schema import Action, Budget, BudgetWindow, table_of

_ACTIONS, _BUDGETS = table_of(Action), table_of(Budget)
_WINDOWS = table_of(BudgetWindow)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is to be held: the action, with the merchant that decides which `per_period` rules it counts for."""

    action: ActionRecord
    merchant: Merchant | None


def reserve(connection: Connection, chain: Chain, reservation: Reservation) -> None:
    """Write the action and hold its amount. Raises `Conflict` where a budget no longer covers it.

    Only debits hold anything (contract §4); every action has a row.
    """
    action = reservation.action
    actions.insert(connection, action)
    if action.budget != "debit":
        return
    transfers.record(connection, action, (Move("reserve", action.amount),), action.issued_at, 0)
    for link in chain.links:
        counted = windows_of(link.details, link.not_before, reservation.merchant, action.issued_at)
        for rule, window, limit in counted:
            _hold_in_window(connection, link, rule, window, limit, action.amount)
        _hold_in_budget(connection, link, action.amount)


_HOLD = (
    update(_BUDGETS)
    .where(
        _BUDGETS.c.root_id == bindparam("root"),
        _BUDGETS.c.delegation_id == bindparam("delegation"),
        _BUDGETS.c.reserved
        + _BUDGETS.c.authorized
        + _BUDGETS.c.captured
        - _BUDGETS.c.refunded
        + bindparam("held")
        <= _BUDGETS.c.total_limit,
        _BUDGETS.c.count_limit.is_(None) | (_BUDGETS.c.action_count < _BUDGETS.c.count_limit),
    )
    .values(reserved=_BUDGETS.c.reserved + bindparam("held"), action_count=_BUDGETS.c.action_count + 1)
)


def _hold_in_budget(connection: Connection, link: DelegationRecord, amount: int) -> None:
    # INVARIANT: reserved + authorized + captured - refunded <= total, count <= limit
    # (test_A70_a_hundred_at_once_get_exactly_what_the_budget_covers).
    held = connection.execute(_HOLD, {"root": link.root_id, "delegation": link.id, "held": amount})
    if held.rowcount != 1:
        raise Conflict


def _hold_in_window(
    connection: Connection, link: DelegationRecord, rule: int, window: int, limit: int, amount: int
) -> None:
    row = {
        "root_id": link.root_id,
        "delegation_id": link.id,
        "rule": rule,
        "window": window,
        "spend_limit": limit,
        "spent": amount,
    }
    if connection.execute(_WINDOW_UPSERTS[connection.dialect.name], row).rowcount != 1:
        raise Conflict


def _window_upsert(dialect_insert: type[postgresql.Insert] | type[sqlite.Insert]) -> Insert:
    statement = dialect_insert(_WINDOWS)
    more = _WINDOWS.c.spent + statement.excluded.spent
    upsert = statement.on_conflict_do_update(
        index_elements=["root_id", "delegation_id", "rule", "window"],
        set_={"spent": more},
        where=more <= _WINDOWS.c.spend_limit,
    )
    # SQLAlchemy keeps the row count of an INSERT only where it is asked to.
    return upsert.execution_options(preserve_rowcount=True)


_WINDOW_UPSERTS = {
    "postgresql": _window_upsert(postgresql.Insert),
    "sqlite": _window_upsert(sqlite.Insert),
}

_ENDS: dict[str, State] = {"void": "voided", "expire": "expired"}
_GIVES_BACK: dict[tuple[str, str], Kind] = {
    ("void", "reserved"): "void",
    ("void", "authorized"): "cancel",
    ("expire", "reserved"): "expire",
    ("expire", "authorized"): "lapse",
}


def release(
    connection: Connection,
    action: ActionRecord,
    why: Literal["void", "expire"],
    stored: StoredDetails,
    now: datetime,
) -> bool:
    """End an action that was not captured and give back all that it holds; False where it had ended before."""
    if (why, action.state) not in _GIVES_BACK:
        return False
    ended = connection.execute(
        update(_ACTIONS)
        .where(
            _ACTIONS.c.root_id == action.root_id,
            _ACTIONS.c.id == action.id,
            _ACTIONS.c.state == action.state,
        )
        .values(state=_ENDS[why], ends_at=None)
    )
    if ended.rowcount != 1:
        return False
    if action.budget == "debit":
        held = action.amount if action.state == "reserved" else action.authorized
        kind = _GIVES_BACK[why, action.state]
        transfers.move(connection, action, (Move(kind, held),), stored, now)
    return True


def release_expired(
    connection: Connection,
    stored: StoredDetails,
    now: datetime,
    *,
    root_id: str | None = None,
    most: int = 100,
) -> int:
    """Give back what tokens held that died unused, and authorizations that nobody captured; returns how many.

    At most `most` at a time. Any number of processes may do it at once. Of one root it waits for what others are giving
    back just now, so that its caller may count on it; of all roots it leaves that to them.
    """
    query = select(*actions.COLUMNS).where(
        _ACTIONS.c.ends_at <= now, _ACTIONS.c.state.in_(("reserved", "authorized"))
    )
    if root_id is not None:
        query = query.where(_ACTIONS.c.root_id == root_id)
    query = query.order_by(_ACTIONS.c.ends_at).limit(most).with_for_update(skip_locked=root_id is None)
    due = [ActionRecord(*row) for row in connection.execute(query)]
    return sum(release(connection, action, "expire", stored, now) for action in due)
