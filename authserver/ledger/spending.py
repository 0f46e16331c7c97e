"""What counts against a delegation at one instant, and which windows an action counts in."""

from collections.abc import Iterator
from datetime import datetime
from functools import cache

from sqlalchemy import Connection, and_, bindparam, or_, select

from authserver.delegations.records import Chain, DelegationRecord
from authserver.policy.decide import Allowance, Spent
from authserver.policy.delegation_details import DelegationDetails
from authserver.policy.details import Merchant
from authserver.policy.periods import window_index
from authserver.schema import BudgetWindow, table_of
from authserver.statements import Prepared

_WINDOWS = table_of(BudgetWindow)


@cache
def _current(rules: int) -> Prepared:
    """What is spent in one window of each of so many rules."""
    windows = (
        and_(_WINDOWS.c.rule == rule, _WINDOWS.c.window == bindparam(f"window_{rule}"))
        for rule in range(rules)
    )
    of_delegation = (
        _WINDOWS.c.root_id == bindparam("root"),
        _WINDOWS.c.delegation_id == bindparam("delegation"),
    )
    return Prepared(select(_WINDOWS.c.rule, _WINDOWS.c.spent).where(*of_delegation, or_(*windows)))


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
    windows = {f"window_{rule}": window for rule, window in enumerate(current)}
    parameters = {"root": link.root_id, "delegation": link.id, **windows}
    spent = {row.rule: row.spent for row in _current(len(rules)).all(connection, parameters)}
    return Spent(
        link.total_spent,
        link.action_count,
        tuple(spent.get(rule, 0) for rule in range(len(rules))),
        link.open_count,
    )
