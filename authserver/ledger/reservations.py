"""Reserve for a token that is about to be signed; give back what a token did not use.

An amount is held against the budget of the delegation and of every one above it, root first, in one transaction.
The conditional update is the check; the CHECK constraints of the tables stand behind it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, Insert, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from authserver.db import Conflict, Row, write_together
from authserver.delegations.records import Chain, DelegationRecord, load_chain
from authserver.delegations.stored_details import StoredDetails
from authserver.ledger import actions, transfers
from authserver.ledger.actions import ActionRecord
from authserver.ledger.spending import windows_of
from authserver.ledger.steps import Kind, Move, State
from authserver.ledger.transfers import Moved
from authserver.policy.details import Merchant
from authserver.schema import Action, Budget, BudgetWindow, table_of
from authserver.statements import Prepared

_ACTIONS, _BUDGETS = table_of(Action), table_of(Budget)
_WINDOWS = table_of(BudgetWindow)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is to be held: the action, with the merchant that decides which `per_period` rules it counts for.

    `open_most` is how many reservations of one delegation may stand at once, this one included.
    """

    action: ActionRecord
    merchant: Merchant | None
    open_most: int


def reserve(connection: Connection, chain: Chain, reservation: Reservation, *alongside: Row) -> None:
    """Write the action and hold its amount; `alongside` is written with them, such as the audit's event.

    Only debits hold anything (contract §4); every action has a row. Raises `Conflict` where a budget no longer covers
    it.
    """
    action = reservation.action
    rows = [actions.row_of(action), *alongside]
    if action.budget != "debit":
        write_together(connection, rows)
        return
    rows.append(transfers.first_row(action, Move("reserve", action.amount), action.issued_at))
    for link in chain.links:
        counted = windows_of(link.details, link.not_before, reservation.merchant, action.issued_at)
        for rule, window, limit in counted:
            _hold_in_window(connection, link, rule, window, limit, action.amount)
        _hold_in_budget(connection, link, reservation, rows if link is chain.leaf else ())


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
        _BUDGETS.c.open_count < bindparam("open_most"),
    )
    .values(
        reserved=_BUDGETS.c.reserved + bindparam("held"),
        action_count=_BUDGETS.c.action_count + 1,
        open_count=_BUDGETS.c.open_count + 1,
    )
)


def _hold_in_budget(
    connection: Connection, link: DelegationRecord, reservation: Reservation, rows: Sequence[Row]
) -> None:
    # INVARIANT: reserved + authorized + captured - refunded <= total, count <= limit
    # (test_A70_a_hundred_at_once_get_exactly_what_the_budget_covers).
    held = write_together(
        connection,
        rows,
        _HOLD,
        root=link.root_id,
        delegation=link.id,
        held=reservation.action.amount,
        open_most=reservation.open_most,
    )
    if held != 1:
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
    if _HOLD_IN_WINDOW.change(connection, row) != 1:
        raise Conflict


def _window_upsert(dialect_insert: type[postgresql.Insert] | type[sqlite.Insert]) -> Insert:
    statement = dialect_insert(_WINDOWS)
    more = _WINDOWS.c.spent + statement.excluded.spent
    return statement.on_conflict_do_update(
        index_elements=["root_id", "delegation_id", "rule", "window"],
        set_={"spent": more},
        # The limit of today: that of the row is older where the delegation was changed (`ledger.terms`).
        where=more <= statement.excluded.spend_limit,
    )


_HOLD_IN_WINDOW = Prepared(
    {"postgresql": _window_upsert(postgresql.Insert), "sqlite": _window_upsert(sqlite.Insert)},
    ("root_id", "delegation_id", "rule", "window", "spend_limit", "spent"),
)

Why = Literal["void", "expire"]
_ENDS: dict[str, State] = {"void": "voided", "expire": "expired"}
_GIVES_BACK: dict[tuple[str, str], Kind] = {
    ("void", "reserved"): "void",
    ("void", "authorized"): "cancel",
    ("expire", "reserved"): "expire",
    ("expire", "authorized"): "lapse",
}


_END = (
    update(_ACTIONS)
    .where(
        _ACTIONS.c.root_id == bindparam("root"),
        _ACTIONS.c.id.in_(bindparam("actions", expanding=True)),
        _ACTIONS.c.state == bindparam("before"),
    )
    .values(state=bindparam("after"), ends_at=None)
    .returning(_ACTIONS.c.id)
)


def release(
    connection: Connection, action: ActionRecord, why: Why, stored: StoredDetails, now: datetime
) -> bool:
    """End an action that was not captured and give back all that it holds; False where it had ended before."""
    return release_all(connection, [action], why, stored, now) == 1


def release_all(
    connection: Connection, ending: Iterable[ActionRecord], why: Why, stored: StoredDetails, now: datetime
) -> int:
    """`release` for many, which may be of several roots; returns how many it ended."""
    by_root: dict[str, dict[str, ActionRecord]] = defaultdict(dict)
    for action in ending:
        by_root[action.root_id][action.id] = action
    return sum(
        _release_of_one_root(connection, root_id, by_root[root_id], why, stored, now)
        for root_id in sorted(by_root)  # in one order, so that two who do this do not wait for each other
    )


def _release_of_one_root(
    connection: Connection,
    root_id: str,
    ending: Mapping[str, ActionRecord],
    why: Why,
    stored: StoredDetails,
    now: datetime,
) -> int:
    ended = []
    for before in ("reserved", "authorized"):
        ids = [action.id for action in ending.values() if action.state == before]
        if ids:
            change = {"root": root_id, "actions": ids, "before": before, "after": _ENDS[why]}
            ended += [ending[id] for id in connection.scalars(_END, change)]
    debits = [action for action in ended if action.budget == "debit"]
    moved = [Moved(action, (Move(_GIVES_BACK[why, action.state], _held(action)),)) for action in debits]
    transfers.move_all(connection, moved, lambda id: _chain(connection, id, stored), now)
    return len(ended)


def _chain(connection: Connection, delegation_id: str, stored: StoredDetails) -> Chain:
    chain = load_chain(connection, delegation_id, stored)
    if chain is None:
        raise LookupError(delegation_id)  # no delegation is ever deleted
    return chain


def _held(action: ActionRecord) -> int:
    return action.amount if action.state == "reserved" else action.authorized


_DUE = (
    select(*actions.COLUMNS)
    .where(_ACTIONS.c.ends_at <= bindparam("now"), _ACTIONS.c.state.in_(("reserved", "authorized")))
    .order_by(_ACTIONS.c.ends_at, _ACTIONS.c.id)
    .limit(bindparam("most"))
)
_DUE_OF_ROOT = _DUE.where(_ACTIONS.c.root_id == bindparam("root")).with_for_update()
_AT_ONCE = 500


def release_expired(connection: Connection, stored: StoredDetails, now: datetime, most: int) -> int:
    """Give back what tokens held that died unused, and authorizations that nobody captured; returns how many.

    At most `most` of them, the oldest first. Any number of processes may do it at once.
    """
    due = [ActionRecord(*row) for row in connection.execute(_DUE, {"now": now, "most": most})]
    return release_all(connection, due, "expire", stored, now)


def release_expired_of(connection: Connection, root_id: str, stored: StoredDetails, now: datetime) -> None:
    """The same for one root, all of it: what others are giving back just now is waited for.

    What is still held against the budgets of that root afterwards is held by tokens and authorizations that live.
    """
    parameters = {"now": now, "most": _AT_ONCE, "root": root_id}
    while due := [ActionRecord(*row) for row in connection.execute(_DUE_OF_ROOT, parameters)]:
        release_all(connection, due, "expire", stored, now)
