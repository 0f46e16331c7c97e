"""What counts against a delegation at one instant, and which windows an action counts in."""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection, bindparam, select

from authserver.delegations.records import Chain, DelegationRecord
from authserver.policy.decide import Allowance, Spent
from authserver.policy.delegation_details import DelegationDetails
from authserver.policy.details import Merchant
from authserver.policy.periods import window_index
from authserver.schema import BudgetWindow, table_of

_WINDOWS = table_of(BudgetWindow)
_CURRENT = select(_WINDOWS.c.rule, _WINDOWS.c.window, _WINDOWS.c.spent).where(
    _WINDOWS.c.root_id == bindparam("root"),
    _WINDOWS.c.delegation_id == bindparam("delegation"),
    _WINDOWS.c.window.in_(bindparam("windows", expanding=True)),
)


def windows_of(
    details: DelegationDetails, not_before: datetime, merchant: Merchant | None, at: datetime
) -> Iterator[tuple[int, int, int]]:
    """(rule, window, limit in minor units) of each `per_period` rule that a debit at this merchant counts for."""
    if details.limits is None:
        return
    for rule, period_rule in enumerate(details.limits.per_period):
        if period_rule.applies_to(merchant):
            yield rule, window_index(not_before, period_rule.period, at), period_rule.amount.minor


def allowances(connection: Connection, chain: Chain, now: datetime) -> tuple[Allowance, ...]:
    """Each delegation of the chain with what it has spent, root first, for `policy.decide`."""
    return tuple(Allowance(link.details, _spent(connection, link, now)) for link in chain.links)


def _spent(connection: Connection, link: DelegationRecord, now: datetime) -> Spent:
    rules = link.details.limits.per_period if link.details.limits else ()
    if not rules:
        return Spent(link.total_spent, link.action_count, (), link.open_count)
    current = [window_index(link.not_before, rule.period, now) for rule in rules]
    rows = connection.execute(
        _CURRENT, {"root": link.root_id, "delegation": link.id, "windows": sorted(set(current))}
    )
    spent = {(row.rule, row.window): row.spent for row in rows}
    return Spent(
        link.total_spent,
        link.action_count,
        tuple(spent.get((rule, window), 0) for rule, window in enumerate(current)),
        link.open_count,
    )
