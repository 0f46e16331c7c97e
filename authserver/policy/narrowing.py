"""Narrowing: a delegation that is handed on is no broader than the one above it, in any member (contract §9).

Each member is compared by itself, and what the parent has must be there: left out would be broader. A member that the
parent lacks is refused where it allows something, as each of the outer ones does (`approval` too: it answers for
actions that ask unless the delegation says otherwise). What only takes away is welcome: a count, a rule for a period,
named merchants, exceptions.

INVARIANT: whatever the child alone permits, the parent alone permits
(test_A90_whatever_a_narrower_delegation_permits_its_parent_permits).
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from authserver.errors import Violation
from authserver.policy.delegation_details import (
    ApprovalRule,
    DelegationDetails,
    Limits,
    MerchantExclusions,
    Merchants,
    PeriodRule,
)
from authserver.policy.periods import every_start_is_one
from authserver.policy.reading import ANY, Vocabulary, instant_text
from authserver.values import EVERY_CATEGORY, CategoryRange, Country, CountryGroups, Money

Found = Iterator[Violation]


def widenings(
    parent: DelegationDetails, child: DelegationDetails, vocabulary: Vocabulary
) -> tuple[Violation, ...]:
    """Every member in which `child` is broader than `parent`; nothing where it may be handed on.

    Both are final: their `not_before` is set. `allowed` of a violation is what the parent has.
    """
    return tuple(
        violation
        for member in (
            _names("actions", child.actions, parent.actions),
            _any_or_names("locations", child.locations, parent.locations),
            _limits(child, parent),
            _merchants(child.merchants, parent.merchants, vocabulary.country_groups),
            _datatypes(child, parent, vocabulary),
            _approval(child.approval, parent.approval),
            _depth(child.redelegation_depth, parent.redelegation_depth),
            _times(child, parent),
        )
        for violation in member
    )


# --- names and places ---------------------------------------------------------------------------------------------


def _names(constraint: str, child: tuple[str, ...], parent: Collection[str]) -> Found:
    if added := [name for name in child if name not in parent]:
        yield Violation(constraint, added, list(parent))


def _any_or_names(constraint: str, child: tuple[str, ...] | None, parent: tuple[str, ...] | None) -> Found:
    if child is None or parent is None:
        yield from _both_or_neither(constraint, child and list(child), parent and list(parent))
    elif parent != ANY:
        yield from _names(constraint, child, parent)


def _both_or_neither(constraint: str, child: object, parent: object) -> Found:
    """Left out where the parent has it, or there where the parent lacks it; both as JSON."""
    if (child is None) != (parent is None):
        yield Violation(constraint, child, parent)


def _datatypes(child: DelegationDetails, parent: DelegationDetails, vocabulary: Vocabulary) -> Found:
    asked, granted = child.datatypes, parent.datatypes
    if asked is None or granted is None:
        yield from _both_or_neither("datatypes", asked and list(asked), granted and list(granted))
    elif granted != ANY:
        # `any` is no data type, so nothing but `any` covers it.
        added = [name for name in asked if not vocabulary.datatypes.covers(granted, name)]
        if added:
            yield Violation("datatypes", added, list(granted))


# --- money --------------------------------------------------------------------------------------------------------


def _limits(child: DelegationDetails, parent: DelegationDetails) -> Found:
    asked, granted = child.limits, parent.limits
    if asked is None or granted is None:
        yield from _both_or_neither("limits", asked and asked.to_json(), granted and granted.to_json())
    elif asked.currency != granted.currency:
        yield Violation(
            "limits.currency", asked.currency, granted.currency
        )  # no amount compares with another
    else:
        yield from _at_most("limits.per_action", asked.per_action, granted.per_action)
        yield from _at_most("limits.total", asked.total, granted.total)
        yield from _per_period(asked, granted, child.not_before, parent.not_before)
        yield from _count(asked.count, granted.count)


def _at_most(constraint: str, child: Money | None, parent: Money) -> Found:
    if child is None or child.minor > parent.minor:
        yield Violation(constraint, child and child.text, parent.text)


def _count(child: int | None, parent: int | None) -> Found:
    if parent is not None and (child is None or child > parent):
        yield Violation("limits.count", child, parent)


def _per_period(
    child: Limits, parent: Limits, child_anchor: datetime | None, parent_anchor: datetime | None
) -> Found:
    loose = [
        rule
        for rule in parent.per_period
        if not any(_is_within(own, rule, child_anchor, parent_anchor) for own in child.per_period)
    ]
    if loose:
        said = [rule.to_json() for rule in child.per_period]
        yield Violation("limits.per_period", said, [rule.to_json() for rule in loose])


def _is_within(
    child: PeriodRule, parent: PeriodRule, child_anchor: datetime | None, parent_anchor: datetime | None
) -> bool:
    """Whether a child that keeps its rule keeps the parent's: it counts as much, for as long, up to no more.

    A longer period alone is not enough. A window of the parent that lies across two windows of the child could hold
    what both allow, so each window of the child must consist of whole windows of the parent.
    """
    if child_anchor is None or parent_anchor is None:
        raise ValueError("only final details are compared")
    return (
        child.amount.minor <= parent.amount.minor
        and _counts_as_much(child, parent)
        and every_start_is_one((child_anchor, child.period), (parent_anchor, parent.period))
    )


def _counts_as_much(child: PeriodRule, parent: PeriodRule) -> bool:
    if child.categories is not None:
        return parent.categories is not None and _covers(child.categories, parent.categories)
    if child.ids is not None:
        return parent.ids is not None and set(child.ids) >= set(parent.ids)
    return True


# --- merchants ----------------------------------------------------------------------------------------------------


def _merchants(child: Merchants | None, parent: Merchants | None, groups: CountryGroups) -> Found:
    if child is None or parent is None:
        yield from _both_or_neither("merchants", child and child.to_json(), parent and parent.to_json())
        return
    if not _categories_within(child.categories, parent.categories):
        yield Violation("merchants.categories", _texts(child.categories), _texts(parent.categories))
    if not _countries_within(child.countries, parent.countries, groups):
        yield Violation("merchants.countries", list(child.countries), list(parent.countries))
    if parent.ids is not None and not (child.ids and set(child.ids) <= set(parent.ids)):
        yield Violation("merchants.ids", child.ids and list(child.ids), list(parent.ids))
    yield from _exclusions(child.excluded, parent.excluded, groups)


def _categories_within(child: tuple[CategoryRange, ...], parent: tuple[CategoryRange, ...]) -> bool:
    # `any` also takes a merchant whose category nobody knows, which ranges never do, however many they are.
    if EVERY_CATEGORY in child:
        return EVERY_CATEGORY in parent
    return _covers(parent, child)


def _countries_within(child: tuple[str, ...], parent: tuple[str, ...], groups: CountryGroups) -> bool:
    if child == ANY:
        return parent == ANY
    return parent == ANY or _countries(child, groups) <= _countries(parent, groups)


def _exclusions(
    child: MerchantExclusions | None, parent: MerchantExclusions | None, groups: CountryGroups
) -> Found:
    if parent is None:
        return
    if child is None:
        yield Violation("merchants.except", None, parent.to_json())
        return
    if not _covers(child.categories, parent.categories):
        yield Violation("merchants.except.categories", _texts(child.categories), _texts(parent.categories))
    # One that names countries at all refuses a merchant whose country nobody knows, so none is less than few.
    fewer = _countries(parent.countries, groups) - _countries(child.countries, groups)
    if fewer or (parent.countries and not child.countries):
        yield Violation("merchants.except.countries", list(child.countries), list(parent.countries))
    if not set(parent.ids) <= set(child.ids):
        yield Violation("merchants.except.ids", list(child.ids), list(parent.ids))


def _countries(names: Iterable[str], groups: CountryGroups) -> set[Country]:
    """All countries behind these names; a group that is no longer configured stays by itself: nothing covers it."""
    return {country for name in names for country in groups.groups.get(name, (Country(name),))}


def _covers(outer: Iterable[CategoryRange], inner: Iterable[CategoryRange]) -> bool:
    """Whether every code of `inner` lies in `outer`, where two ranges side by side are as good as one."""
    joined = list[CategoryRange]()
    for entry in sorted(outer, key=lambda entry: entry.low):
        if joined and entry.low <= joined[-1].high + 1:
            joined[-1] = CategoryRange(joined[-1].low, max(joined[-1].high, entry.high))
        else:
            joined.append(entry)
    return all(_cover(joined, entry) for entry in inner)


def _cover(rising: list[CategoryRange], entry: CategoryRange) -> bool:
    below = bisect_right(rising, entry.low, key=lambda one: one.low)
    return below > 0 and rising[below - 1].covers(entry)


def _texts(ranges: Iterable[CategoryRange]) -> list[str]:
    return [entry.text for entry in ranges]


# --- approval, depth, time ----------------------------------------------------------------------------------------


def _approval(child: ApprovalRule | None, parent: ApprovalRule | None) -> Found:
    if child is None or parent is None:
        yield from _both_or_neither("approval", child and child.to_json(), parent and parent.to_json())
        return
    if parent.above is not None:
        yield from _at_most("approval.above", child.above, parent.above)
    if not set(parent.actions) <= set(child.actions):
        yield Violation("approval.actions", list(child.actions), list(parent.actions))


def _depth(child: int, parent: int) -> Found:
    if parent == 0:
        yield Violation("redelegation.depth", 1, 0)  # what handing on takes, and what is left
    elif child >= parent:
        yield Violation("redelegation.depth", child, parent - 1)


def _times(child: DelegationDetails, parent: DelegationDetails) -> Found:
    if child.not_before is None or parent.not_before is None:
        raise ValueError("only final details are compared")
    if child.not_before < parent.not_before:
        yield Violation("not_before", instant_text(child.not_before), instant_text(parent.not_before))
    if child.expires > parent.expires:
        yield Violation("expires", instant_text(child.expires), instant_text(parent.expires))
