"""New limits for a delegation that has been used: what was spent under the old ones counts under the new ones, too."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, bindparam, delete, select, update

from authserver.delegations.records import DelegationRecord
from authserver.ledger import actions
from authserver.ledger.actions import ActionRecord
from authserver.ledger.spending import windows_of
from authserver.ledger.steps import EFFECTS
from authserver.policy.delegation_details import DelegationDetails
from authserver.schema import Action, Budget, BudgetWindow, Delegation, Transfer, table_of

_ACTIONS, _BUDGETS = table_of(Action), table_of(Budget)
_WINDOWS, _TRANSFERS = table_of(BudgetWindow), table_of(Transfer)
_DELEGATIONS = table_of(Delegation)
_SPENT = _BUDGETS.c.reserved + _BUDGETS.c.authorized + _BUDGETS.c.captured - _BUDGETS.c.refunded

# All that can still move; whoever moves one of them has changed its row first, and is waited for.
_MOVING = (
    select(_ACTIONS.c.id)
    .where(_ACTIONS.c.root_id == bindparam("root"), _ACTIONS.c.state.not_in(("voided", "expired")))
    .order_by(_ACTIONS.c.id)
    .with_for_update()
)


@dataclass(frozen=True, slots=True)
class AlreadySpent(Exception):
    """More was spent, or is held, than the new limits allow: `total` in minor units, `count` debits."""

    total: int
    count: int


def change(
    connection: Connection, link: DelegationRecord, details: DelegationDetails, not_before: datetime
) -> None:
    """Hold the budget of `link` to the limits of `details`, whose windows begin at `not_before`.

    No exchange may be under way (`db.wait_for_exchanges`), and the caller writes the details in the same transaction.
    Raises `AlreadySpent`, after which nothing may be committed.
    """
    connection.execute(_MOVING, {"root": link.root_id}).all()
    _change_totals(connection, link, details)
    mine = (_WINDOWS.c.root_id == link.root_id) & (_WINDOWS.c.delegation_id == link.id)
    connection.execute(delete(_WINDOWS).where(mine))
    rows = _windows(connection, link, details, not_before)
    if rows:
        connection.execute(_WINDOWS.insert(), rows)


def _change_totals(connection: Connection, link: DelegationRecord, details: DelegationDetails) -> None:
    limits = details.limits
    total, count = (limits.total.minor, limits.count) if limits else (None, None)
    mine = (_BUDGETS.c.root_id == link.root_id) & (_BUDGETS.c.delegation_id == link.id)
    fits: list[ColumnElement[bool]] = [mine]
    if total is not None:
        fits.append(total >= _SPENT)
    if count is not None:
        fits.append(_BUDGETS.c.action_count <= count)
    new = update(_BUDGETS).where(*fits).values(total_limit=total, count_limit=count)
    if connection.execute(new).rowcount != 1:
        spent = connection.execute(select(_SPENT.label("total"), _BUDGETS.c.action_count).where(mine)).one()
        raise AlreadySpent(int(spent.total), int(spent.action_count))


def _windows(
    connection: Connection, link: DelegationRecord, details: DelegationDetails, not_before: datetime
) -> list[dict[str, object]]:
    """The rows of all windows in which something counts, computed from the transfers."""
    limits = details.limits
    if limits is None or not limits.per_period:
        return []
    below = _and_below(connection, link)
    spent: Counter[tuple[int, int]] = Counter()
    moved = select(*actions.COLUMNS, _TRANSFERS.c.kind, _TRANSFERS.c.amount.label("moved")).join_from(
        _TRANSFERS,
        _ACTIONS,
        (_ACTIONS.c.root_id == _TRANSFERS.c.root_id) & (_ACTIONS.c.id == _TRANSFERS.c.action_id),
    )
    for *columns, kind, amount in connection.execute(moved.where(_TRANSFERS.c.root_id == link.root_id)):
        action = ActionRecord(*columns)
        if action.delegation_id in below:
            merchant = actions.merchant_of(action)
            for rule, window, _ in windows_of(details, not_before, merchant, action.issued_at):
                spent[rule, window] += EFFECTS[kind].windows * amount
    return [
        {
            "root_id": link.root_id,
            "delegation_id": link.id,
            "rule": rule,
            "window": window,
            # What was spent before may be more than the new limit; the exchange holds to the limit itself.
            "spend_limit": max(amount, limits.per_period[rule].amount.minor),
            "spent": amount,
        }
        for (rule, window), amount in sorted(spent.items())
    ]


def _and_below(connection: Connection, link: DelegationRecord) -> set[str]:
    family = select(_DELEGATIONS.c.id, _DELEGATIONS.c.path).where(_DELEGATIONS.c.root_id == link.root_id)
    return {row.id for row in connection.execute(family) if link.id in row.path.split(" ")}
