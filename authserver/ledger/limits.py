"""Lowering what a budget may hold. Nothing is moved, and nothing that was spent or is held is touched."""

from sqlalchemy import Connection, bindparam, case, select, update

from authserver.delegations.records import DelegationRecord
from authserver.errors import Refusal, Violation
from authserver.policy.delegation_details import Limits
from authserver.schema import Budget, BudgetWindow, table_of
from authserver.values import Money

_BUDGETS, _WINDOWS = table_of(Budget), table_of(BudgetWindow)
_SPENT = _BUDGETS.c.reserved + _BUDGETS.c.authorized + _BUDGETS.c.captured - _BUDGETS.c.refunded
_OF = (_BUDGETS.c.root_id == bindparam("root")) & (_BUDGETS.c.delegation_id == bindparam("delegation"))
_LOWER = (
    update(_BUDGETS)
    .where(_OF, _BUDGETS.c.total_limit >= bindparam("total"), bindparam("total") >= _SPENT)
    .values(total_limit=bindparam("total"))
)
_LOWER_WINDOWS = (
    update(_WINDOWS)
    .where(
        _WINDOWS.c.root_id == bindparam("root"),
        _WINDOWS.c.delegation_id == bindparam("delegation"),
        _WINDOWS.c.rule == bindparam("number"),
        _WINDOWS.c.spend_limit > bindparam("most"),
    )
    .values(
        spend_limit=case((_WINDOWS.c.spent > bindparam("most"), _WINDOWS.c.spent), else_=bindparam("most"))
    )
)


def lower(connection: Connection, link: DelegationRecord, limits: Limits) -> None:
    """Hold the budget of `link` to lower limits from now on; exchanges must be held off.

    The total stays at or above what is spent or held, since no limit can take that back: raises `Refusal` (409) that
    says how much it is. A window that has spent more than its new limit has nothing left; the windows after it have the
    new one.
    """
    of = {"root": link.root_id, "delegation": link.id}
    if connection.execute(_LOWER, of | {"total": limits.total.minor}).rowcount != 1:
        spent = connection.scalar(select(_SPENT).where(_OF), of)
        least = Money(limits.currency, int(spent or 0))
        violation = Violation("limits.total", limits.total.text, least.text)
        raise Refusal("conflict", "more is spent or held already", "lower.spent", (violation,), status=409)
    for number, rule in enumerate(limits.per_period):
        connection.execute(_LOWER_WINDOWS, of | {"number": number, "most": rule.amount.minor})
