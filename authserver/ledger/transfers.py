"""Moving amounts: the transfers of a step, and the running totals of every delegation of the chain with them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select, update

from authserver.db import Row, write_together
from authserver.delegations.records import Chain
from authserver.ledger.actions import ActionRecord, merchant_of
from authserver.ledger.spending import windows_of
from authserver.ledger.steps import EFFECTS, Move
from authserver.schema import Budget, BudgetWindow, Transfer, table_of
from authserver.statements import Prepared

_BUDGETS, _WINDOWS = table_of(Budget), table_of(BudgetWindow)
_TRANSFERS = table_of(Transfer)
_STEPS_OF_ONE = Prepared(
    select(func.count().label("steps")).where(
        _TRANSFERS.c.root_id == bindparam("root"), _TRANSFERS.c.action_id == bindparam("action")
    )
)
_AMOUNTS = ("reserved", "authorized", "captured", "refunded")
_TOTALS = (*_AMOUNTS, "action_count", "open_count")
_ADD_TO_BUDGET = Prepared(
    update(_BUDGETS)
    .where(_BUDGETS.c.root_id == bindparam("root"), _BUDGETS.c.delegation_id == bindparam("delegation"))
    .values({name: _BUDGETS.c[name] + bindparam(f"added_{name}") for name in _TOTALS})
)
_ADD_TO_WINDOW = Prepared(
    update(_WINDOWS)
    .where(
        _WINDOWS.c.root_id == bindparam("root"),
        _WINDOWS.c.delegation_id == bindparam("delegation"),
        _WINDOWS.c.rule == bindparam("rule_number"),
        _WINDOWS.c.window == bindparam("window_number"),
    )
    .values(spent=_WINDOWS.c.spent + bindparam("added"))
)
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
    connection: Connection, action: ActionRecord, moves: Sequence[Move], chain: Chain, at: datetime
) -> None:
    """Write the moves of one debit, and bring all totals along; see `move_all`."""
    move_all(connection, [Moved(action, moves)], lambda _: chain, at)


def move_all(
    connection: Connection, moved: Sequence[Moved], chain_of: Callable[[str], Chain], at: datetime
) -> None:
    """Write the moves of debits of one root, each once, and bring the totals of their chains along, root first.

    The caller has moved the state of each in this transaction, so no other can be at it. `chain_of` gives the chain of
    a delegation by its id.
    """
    if not moved:
        return
    totals, chains = _Totals(moved[0].action.root_id), dict[str, Chain]()
    steps = _steps(connection, totals.root_id, [one.action.id for one in moved])
    rows = [row for one in moved for row in _rows(one, at, steps[one.action.id])]
    if len(moved) == 1:
        write_together(connection, [Row(_TRANSFERS, row) for row in rows])
    else:
        connection.execute(_TRANSFERS.insert(), rows)
    for one in moved:
        delegation_id = one.action.delegation_id
        if delegation_id not in chains:
            chains[delegation_id] = chain_of(delegation_id)
        totals.add(chains[delegation_id], one)
    totals.bring_along(connection)


def _steps(connection: Connection, root_id: str, ids: Sequence[str]) -> dict[str, int]:
    if len(ids) == 1:
        row = _STEPS_OF_ONE.first(connection, {"root": root_id, "action": ids[0]})
        return {ids[0]: row.steps if row else 0}
    written = connection.execute(_STEPS, {"root": root_id, "actions": ids})
    return {row.action_id: row.steps for row in written}


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
        for name in _AMOUNTS:
            changes[name] += getattr(effect, name) * move.amount
        changes["action_count"] += effect.count
        changes["open_count"] += effect.open
    return changes


def _add_to_window(
    connection: Connection, root_id: str, delegation_id: str, rule: int, window: int, amount: int
) -> None:
    of_window = {"root": root_id, "delegation": delegation_id, "rule_number": rule, "window_number": window}
    _ADD_TO_WINDOW.change(connection, {**of_window, "added": amount})


def _add_to_budget(
    connection: Connection, root_id: str, delegation_id: str, changes: Mapping[str, int]
) -> None:
    added = {f"added_{name}": changes[name] for name in _TOTALS}
    _ADD_TO_BUDGET.change(connection, {"root": root_id, "delegation": delegation_id, **added})
