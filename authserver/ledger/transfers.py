"""Moving amounts: the transfers of a step, and the running totals of every delegation of the chain with them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select, update

from authserver.db import Row
from authserver.delegations.records import Chain, load_chain
from authserver.delegations.stored_details import StoredDetails
from authserver.ledger.actions import ActionRecord, merchant_of
from authserver.ledger.spending import windows_of
from authserver.ledger.steps import EFFECTS, Move
from authserver.schema import Budget, BudgetWindow, Transfer, table_of

_BUDGETS, _WINDOWS = table_of(Budget), table_of(BudgetWindow)
_TRANSFERS = table_of(Transfer)
_INSERT = _TRANSFERS.insert().inline()
_STEPS = (
    select(_TRANSFERS.c.action_id, func.count().label("steps"))
    .where(
        _TRANSFERS.c.root_id == bindparam("root"),
        _TRANSFERS.c.action_id.in_(bindparam("actions", expanding=True)),
    )
    .group_by(_TRANSFERS.c.action_id)
)


@dataclass(frozen=True, slots=True)
class Moved:
    """A debit that was reserved before, and the moves of its next step."""

    action: ActionRecord
    moves: Sequence[Move]


def first_row(action: ActionRecord, move: Move, at: datetime) -> Row:
    """The first transfer of a new action, to be written together with it."""
    (values,) = _rows(Moved(action, (move,)), at, 0)
    return Row(_TRANSFERS, values)


def move(
    connection: Connection, action: ActionRecord, moves: Sequence[Move], stored: StoredDetails, at: datetime
) -> None:
    """Write the moves of one debit, and bring all totals along; see `move_all`."""
    move_all(connection, [Moved(action, moves)], stored, at)


def move_all(connection: Connection, moved: Sequence[Moved], stored: StoredDetails, at: datetime) -> None:
    """Write the moves of debits of one root, each once, and bring the totals of their chains along, root first.

    The caller has moved the state of each in this transaction, so no other can be at it.
    """
    if not moved:
        return
    totals, chains = _Totals(moved[0].action.root_id), dict[str, Chain]()
    ids = [one.action.id for one in moved]
    written = connection.execute(_STEPS, {"root": totals.root_id, "actions": ids})
    steps = {row.action_id: row.steps for row in written}
    rows = [row for one in moved for row in _rows(one, at, steps[one.action.id])]
    connection.execute(_INSERT, rows if len(rows) > 1 else rows[0])
    for one in moved:
        delegation_id = one.action.delegation_id
        if delegation_id not in chains:
            chains[delegation_id] = _chain(connection, delegation_id, stored)
        totals.add(chains[delegation_id], one)
    totals.bring_along(connection)


def _rows(moved: Moved, at: datetime, step: int) -> list[dict[str, object]]:
    return [
        {
            "root_id": moved.action.root_id,
            "action_id": moved.action.id,
            "step": number,
            "kind": move.kind,
            "amount": move.amount,
            "at": at,
        }
        for number, move in enumerate(moved.moves, start=step)
    ]


def _chain(connection: Connection, delegation_id: str, stored: StoredDetails) -> Chain:
    chain = load_chain(connection, delegation_id, stored)
    if chain is None:
        raise LookupError(delegation_id)  # no delegation is ever deleted
    return chain


@dataclass(slots=True)
class _Totals:
    """What some moves change in the totals of one root: (depth, delegation) to columns, with its windows apart."""

    root_id: str
    budgets: dict[tuple[int, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    windows: dict[str, Counter[tuple[int, int]]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, chain: Chain, moved: Moved) -> None:
        """Count the moves of one action for every delegation of its chain."""
        changes = _changes(moved.moves)
        in_windows = sum(EFFECTS[move.kind].windows * move.amount for move in moved.moves)
        merchant = merchant_of(moved.action) if in_windows else None
        for depth, link in enumerate(chain.links):
            self.budgets[depth, link.id].update(changes)
            if in_windows:
                counted = windows_of(link.details, link.not_before, merchant, moved.action.issued_at)
                for rule, window, _ in counted:
                    self.windows[link.id][rule, window] += in_windows

    def bring_along(self, connection: Connection) -> None:
        """Write the sums in the order in which `reservations.reserve` takes its locks: nobody waits in a circle."""
        for (_, delegation_id), changes in sorted(self.budgets.items()):
            for (rule, window), amount in sorted(self.windows.get(delegation_id, {}).items()):
                _add_to_window(connection, self.root_id, delegation_id, rule, window, amount)
            _add_to_budget(connection, self.root_id, delegation_id, changes)


def _changes(moves: Sequence[Move]) -> Counter[str]:
    changes: Counter[str] = Counter()
    for move in moves:
        effect = EFFECTS[move.kind]
        for name in ("reserved", "authorized", "captured", "refunded"):
            changes[name] += getattr(effect, name) * move.amount
        changes["action_count"] += effect.count
        changes["open_count"] += effect.open
    return changes


def _add_to_window(
    connection: Connection, root_id: str, delegation_id: str, rule: int, window: int, amount: int
) -> None:
    connection.execute(
        update(_WINDOWS)
        .where(
            _WINDOWS.c.root_id == root_id,
            _WINDOWS.c.delegation_id == delegation_id,
            _WINDOWS.c.rule == rule,
            _WINDOWS.c.window == window,
        )
        .values(spent=_WINDOWS.c.spent + amount)
    )


def _add_to_budget(
    connection: Connection, root_id: str, delegation_id: str, changes: Mapping[str, int]
) -> None:
    connection.execute(
        update(_BUDGETS)
        .where(_BUDGETS.c.root_id == root_id, _BUDGETS.c.delegation_id == delegation_id)
        .values({name: _BUDGETS.c[name] + amount for name, amount in changes.items() if amount})
    )
