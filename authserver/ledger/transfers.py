"""Moving amounts: the transfers of a step, and the running totals of every delegation of the chain with them."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, bindparam, func, select, update

from authserver.delegations.records import Chain, DelegationRecord, load_chain
from authserver.delegations.stored_details import StoredDetails
from authserver.ledger.actions import ActionRecord, merchant_of
from authserver.ledger.spending import windows_of
from authserver.ledger.steps import EFFECTS, Move
from authserver.schema import Budget, BudgetWindow, Transfer, table_of

_BUDGETS, _WINDOWS = table_of(Budget), table_of(BudgetWindow)
_TRANSFERS = table_of(Transfer)
_INSERT = _TRANSFERS.insert().inline()
_STEPS = select(func.count()).where(
    _TRANSFERS.c.root_id == bindparam("root"), _TRANSFERS.c.action_id == bindparam("action")
)


def record(
    connection: Connection, action: ActionRecord, moves: Sequence[Move], at: datetime, step: int
) -> None:
    """Write one row for each move; `step` is the number of the first."""
    for number, move in enumerate(moves, start=step):
        row = {
            "root_id": action.root_id,
            "action_id": action.id,
            "step": number,
            "kind": move.kind,
            "amount": move.amount,
            "at": at,
        }
        connection.execute(_INSERT, row)


def move(
    connection: Connection, action: ActionRecord, moves: Sequence[Move], stored: StoredDetails, at: datetime
) -> None:
    """Write the moves of a debit that was reserved before, and bring all totals along, root first.

    The caller has moved the action's own state in this transaction, so no other can be at it.
    """
    chain = load_chain(connection, action.delegation_id, stored)
    if chain is None:
        raise LookupError(action.delegation_id)  # no delegation is ever deleted
    steps = connection.execute(_STEPS, {"root": action.root_id, "action": action.id}).scalar_one()
    record(connection, action, moves, at, steps)
    _bring_along(connection, chain, action, moves)


def _bring_along(connection: Connection, chain: Chain, action: ActionRecord, moves: Sequence[Move]) -> None:
    in_windows = sum(EFFECTS[move.kind].windows * move.amount for move in moves)
    merchant = merchant_of(action)
    for link in chain.links:
        if in_windows:
            for rule, window, _ in windows_of(link.details, link.not_before, merchant, action.issued_at):
                _add_to_window(connection, link, rule, window, in_windows)
        _add_to_budget(connection, link, moves)


def _add_to_window(
    connection: Connection, link: DelegationRecord, rule: int, window: int, amount: int
) -> None:
    connection.execute(
        update(_WINDOWS)
        .where(
            _WINDOWS.c.root_id == link.root_id,
            _WINDOWS.c.delegation_id == link.id,
            _WINDOWS.c.rule == rule,
            _WINDOWS.c.window == window,
        )
        .values(spent=_WINDOWS.c.spent + amount)
    )


def _add_to_budget(connection: Connection, link: DelegationRecord, moves: Sequence[Move]) -> None:
    changes: dict[str, ColumnElement[int]] = {}
    for name in ("reserved", "authorized", "captured", "refunded"):
        if amount := sum(getattr(EFFECTS[move.kind], name) * move.amount for move in moves):
            changes[name] = _BUDGETS.c[name] + amount
    if count := sum(EFFECTS[move.kind].count for move in moves):
        changes["action_count"] = _BUDGETS.c.action_count + count
    connection.execute(
        update(_BUDGETS)
        .where(_BUDGETS.c.root_id == link.root_id, _BUDGETS.c.delegation_id == link.id)
        .values(changes)
    )
