"""Grant Management: what a delegation is to become when its agent asks for more (`merge`).

A merge adds. Lists are united, and of two numbers the higher counts; a bound that stands stays, and none is added that
did not stand: nothing that was granted gets lost, and no rule of the person's falls away in silence.
"""

from dataclasses import replace
from typing import TypeVar

from authserver.errors import Refusal
from authserver.policy.delegation_details import DelegationDetails, Limits, Merchants, PeriodRule
from authserver.policy.reading import ANY
from authserver.values import EVERY_CATEGORY, CategoryRange

Entry = TypeVar("Entry")


def merged(standing: DelegationDetails, asked: DelegationDetails) -> DelegationDetails:
    """Both together, member by member, for the person to consent to as a whole.

    Raises `Refusal` (`invalid_authorization_details`) where they are in two currencies.
    """
    return replace(
        standing,
        actions=_united(standing.actions, asked.actions),
        locations=_any_or_united(standing.locations, asked.locations),
        limits=_limits(standing.limits, asked.limits),
        merchants=_merchants(standing.merchants, asked.merchants),
        datatypes=_any_or_united(standing.datatypes, asked.datatypes),
        redelegation_depth=max(standing.redelegation_depth, asked.redelegation_depth),
        expires=max(standing.expires, asked.expires),
    )


def _united(one: tuple[Entry, ...], other: tuple[Entry, ...]) -> tuple[Entry, ...]:
    return (*one, *(entry for entry in other if entry not in one))


def _any_or_united(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if one is None or other is None:
        return one or other
    return ANY if ANY in (one, other) else _united(one, other)


def _limits(standing: Limits | None, asked: Limits | None) -> Limits | None:
    if standing is None or asked is None:
        return standing or asked
    if standing.currency != asked.currency:
        raise Refusal(
            "invalid_authorization_details",
            f"limits.currency must be that of the grant, {standing.currency}",
            rule="details.limits.currency",
        )
    count = standing.count
    return Limits(
        standing.currency,
        max(standing.per_action, asked.per_action, key=lambda money: money.minor),
        max(standing.total, asked.total, key=lambda money: money.minor),
        tuple(_higher(rule, asked.per_period) for rule in standing.per_period),
        count if count is None or asked.count is None else max(count, asked.count),
    )


def _higher(rule: PeriodRule, asked: tuple[PeriodRule, ...]) -> PeriodRule:
    same = [other for other in asked if replace(other, amount=rule.amount) == rule]
    return max(rule, *same, key=lambda one: one.amount.minor) if same else rule


def _merchants(standing: Merchants | None, asked: Merchants | None) -> Merchants | None:
    if standing is None or asked is None:
        return standing or asked
    ids = None if standing.ids is None else _united(standing.ids, asked.ids or ())
    categories = _categories(standing.categories, asked.categories)
    countries = _any_or_united(standing.countries, asked.countries) or ANY
    return Merchants(categories, countries, ids, standing.excluded)


def _categories(
    one: tuple[CategoryRange, ...], other: tuple[CategoryRange, ...]
) -> tuple[CategoryRange, ...]:
    """Ranges that do not overlap, with every code of both and no other."""
    united = list[CategoryRange]()
    for entry in sorted((*one, *other), key=lambda entry: entry.low):
        if united and entry.low <= united[-1].high:
            united[-1] = CategoryRange(united[-1].low, max(united[-1].high, entry.high))
        else:
            united.append(entry)
    return (EVERY_CATEGORY,) if EVERY_CATEGORY in united else tuple(united)
