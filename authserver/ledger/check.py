"""Compute every total again from the transfers, and say where the running totals differ."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, select

from authserver.db import see_one_instant
from authserver.delegations.records import DelegationRecord, list_delegations
from authserver.delegations.stored_details import StoredDetails
from authserver.ledger import actions
from authserver.ledger.actions import ActionRecord
from authserver.ledger.spending import windows_of
from authserver.ledger.steps import EFFECTS, Kind
from authserver.schema import Action, Budget, BudgetWindow, Transfer, table_of

_ACTIONS, _BUDGETS = table_of(Action), table_of(Budget)
_WINDOWS, _TRANSFERS = table_of(BudgetWindow), table_of(Transfer)

_TOTALS = ("reserved", "authorized", "captured", "refunded", "action_count", "open_count")


@dataclass(frozen=True, slots=True)
class Difference:
    """A running total that is not the sum of its transfers."""

    delegation_id: str
    total: str
    recorded: int
    computed: int


def check(connection: Connection, stored: StoredDetails) -> Iterator[Difference]:
    """Every difference; an empty answer means that the ledger is right, also while others write.

    To be run first in a transaction of `Database.read`. Reads everything: not for a hot path.
    """
    see_one_instant(connection)
    delegations = {link.id: link for link in list_delegations(connection, stored)}
    computed = _computed(connection, delegations)
    recorded = _recorded(connection)
    for key in sorted(computed.keys() | recorded.keys()):
        if computed.get(key, 0) != recorded.get(key, 0):
            yield Difference(*key, recorded.get(key, 0), computed.get(key, 0))


def _recorded(connection: Connection) -> dict[tuple[str, str], int]:
    totals = {
        (row.delegation_id, name): getattr(row, name)
        for row in connection.execute(select(_BUDGETS))
        for name in _TOTALS
    }
    for row in connection.execute(select(_WINDOWS)):
        totals[row.delegation_id, f"per_period {row.rule} window {row.window}"] = row.spent
    return totals


def _computed(connection: Connection, delegations: dict[str, DelegationRecord]) -> dict[tuple[str, str], int]:
    totals: dict[tuple[str, str], int] = defaultdict(int)
    joined = select(*actions.COLUMNS, _TRANSFERS.c.kind, _TRANSFERS.c.amount.label("moved")).join_from(
        _TRANSFERS,
        _ACTIONS,
        (_ACTIONS.c.root_id == _TRANSFERS.c.root_id) & (_ACTIONS.c.id == _TRANSFERS.c.action_id),
    )
    for *columns, kind, moved in connection.execute(joined):
        action = ActionRecord(*columns)
        for delegation_id in delegations[action.delegation_id].path:
            _add(totals, delegations[delegation_id], action, kind, moved)
    return totals


def _add(
    totals: dict[tuple[str, str], int], link: DelegationRecord, action: ActionRecord, kind: Kind, moved: int
) -> None:
    effect = EFFECTS[kind]
    for name in ("reserved", "authorized", "captured", "refunded"):
        totals[link.id, name] += getattr(effect, name) * moved
    totals[link.id, "action_count"] += effect.count
    totals[link.id, "open_count"] += effect.open
    merchant = actions.merchant_of(action)
    for rule, window, _ in windows_of(link.details, link.not_before, merchant, action.issued_at):
        totals[link.id, f"per_period {rule} window {window}"] += effect.windows * moved
