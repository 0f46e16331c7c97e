"""What a person chooses: less than was asked or than stands, never more (threats A119).

The choices come from a form that anybody could have changed, so each is held against what was asked.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Literal

from authserver.errors import Refusal, Violation
from authserver.policy.catalogue import Catalogue
from authserver.policy.delegation_details import (
    ApprovalRule,
    DelegationDetails,
    Limits,
    MerchantExclusions,
    Merchants,
    PeriodRule,
    parse_delegation,
)
from authserver.policy.leaving_out import countries_left_out, countries_of, datatypes_left, kinds_of
from authserver.policy.reading import ANY, Vocabulary
from authserver.values import CategoryRange, Money, NotAValue

Preset = Literal["strict", "balanced", "trust"]
PRESETS: tuple[Preset, ...] = ("strict", "balanced", "trust")


Why = Literal["empty", "no_amount", "no_date", "spent", "too_high", "too_late"]


class NotChosen(Exception):
    """A choice that cannot stand as it is; `member` is what to look at again, `why` one of the words of this module."""

    def __init__(self, member: str, why: Why) -> None:
        super().__init__(f"{member} {why}")
        self.member, self.why = member, why


@dataclass(frozen=True, slots=True)
class Choice:
    """What the form said; `None` where the page did not ask. Amounts and the end are as they were typed.

    The `without_...` are what is left out of the groups that were kept.
    """

    actions: tuple[str, ...]
    locations: tuple[str, ...] | None
    categories: tuple[str, ...] | None
    countries: tuple[str, ...] | None
    ids: tuple[str, ...] | None
    datatypes: tuple[str, ...] | None
    without_categories: tuple[str, ...]
    without_countries: tuple[str, ...]
    without_datatypes: tuple[str, ...]
    hand_on: bool
    per_action: str | None
    total: str | None
    count: str | None
    per_period: tuple[str, ...]
    expires: date | None


def chosen(
    asked: DelegationDetails, choice: Choice, preset: Preset, vocabulary: Vocabulary, now: datetime
) -> DelegationDetails:
    """What is granted: `asked`, narrowed by the choice, which asks the person when `preset` says.

    Raises `NotChosen` where the person must choose again, and `Refusal` where the form was tampered with.
    """
    narrower = narrowed(replace(asked, approval=None), choice, vocabulary, now)
    if narrower.merchants is not None and lets_nobody_in(narrower.merchants):
        narrower = replace(narrower, limits=None, merchants=None)  # nothing that is left moves money
    approval = asking(narrower, asked.approval, preset, vocabulary.catalogue)
    # Read again as if an agent had sent it: whatever was chosen, only what could have been asked for is granted.
    return parse_delegation(replace(narrower, approval=approval).to_json(), vocabulary)


def narrowed(
    held: DelegationDetails, choice: Choice, vocabulary: Vocabulary, now: datetime
) -> DelegationDetails:
    """`held` without what the choice takes away; when the person is asked stays as it is. Raises as `chosen` does."""
    actions = _kept("actions", held.actions, choice.actions)
    limits, merchants = _limits(held.limits, choice), _merchants(held.merchants, choice, vocabulary)
    locations = _any_kept("locations", held.locations, choice.locations)
    datatypes = _datatypes(held.datatypes, choice, vocabulary)
    _enough(actions, locations, merchants, datatypes, vocabulary.catalogue)
    return replace(
        held,
        actions=actions,
        locations=locations or None,
        limits=limits,
        merchants=merchants,
        datatypes=datatypes or None,
        redelegation_depth=held.redelegation_depth if choice.hand_on else 0,
        expires=_end(held.expires, choice.expires, now),
    )


def lets_nobody_in(merchants: Merchants) -> bool:
    """Whether a person kept no merchant at all."""
    return not (merchants.categories and merchants.countries) or merchants.ids == ()


def _enough(
    actions: tuple[str, ...],
    locations: tuple[str, ...] | None,
    merchants: Merchants | None,
    datatypes: tuple[str, ...] | None,
    catalogue: Catalogue,
) -> None:
    """Of each list that an action needs, something must be left. Raises `NotChosen`."""
    entries = [entry for name in actions if (entry := catalogue.get(name))]
    if not actions:
        raise NotChosen("actions", "empty")
    if locations == () and any(entry.needs for entry in entries):
        raise NotChosen("locations", "empty")
    if merchants is not None and any(entry.moves_money for entry in entries):
        if not merchants.categories:
            raise NotChosen("merchants.categories", "empty")
        if not merchants.countries:
            raise NotChosen("merchants.countries", "empty")
        if merchants.ids == ():
            raise NotChosen("merchants.ids", "empty")
    if datatypes == () and any("datatypes" in entry.needs for entry in entries):
        raise NotChosen("datatypes", "empty")


def asking(
    details: DelegationDetails, asked: ApprovalRule | None, preset: Preset, catalogue: Catalogue
) -> ApprovalRule | None:
    """When the person is asked. `trust`: as the agent proposed, and as the catalogue says. `balanced`: also above half
    of the most at a time, and before personal data. `strict`: before each step that spends, shows or changes anything.

    It never asks less than the agent proposed.
    """
    entries = [entry for name in details.actions if (entry := catalogue.get(name))]
    proposed = tuple(name for name in (asked.actions if asked else ()) if name in details.actions)
    above = asked.above if asked and details.limits else None
    if preset == "strict":
        proposed = (*proposed, *(entry.name for entry in entries if entry.needs))
    if preset == "balanced":
        proposed = (*proposed, *(entry.name for entry in entries if "datatypes" in entry.needs))
        # A rule of the delegation stands in for the catalogue's own (`unless_delegated`), and must not ask less.
        if asked is None:
            proposed = (*proposed, *(e.name for e in entries if e.approval == "unless_delegated"))
        above = _lower_half(above, details.limits)
    rule = ApprovalRule(above, tuple(name for name in details.actions if name in proposed))
    return rule if rule.above or rule.actions else None


def _lower_half(above: Money | None, limits: Limits | None) -> Money | None:
    if limits is None:
        return above
    half = max(1, limits.per_action.minor // 2)
    return Money(limits.currency, half if above is None else min(half, above.minor))


def _kept(member: str, asked: tuple[str, ...], ticked: Collection[str]) -> tuple[str, ...]:
    if wider := [name for name in ticked if name not in asked]:
        raise _wider(member, len(wider), list(asked))
    return tuple(name for name in asked if name in ticked)


def _end(asked: datetime, chosen: date | None, now: datetime) -> datetime:
    """The beginning of the day that was chosen; the day of `asked` is `asked`."""
    if chosen is None or chosen == asked.date():
        return asked
    end = datetime.combine(chosen, time(), UTC)
    if end > asked:
        raise NotChosen("expires", "too_late")
    if end <= now:
        raise NotChosen("expires", "no_date")
    return end


def _any_kept(
    member: str, asked: tuple[str, ...] | None, ticked: Collection[str] | None
) -> tuple[str, ...] | None:
    if asked is None:
        if ticked:
            raise _wider(member, len(ticked), [])
        return None
    return _kept(member, asked, ticked if ticked is not None else ())


def _limits(asked: Limits | None, choice: Choice) -> Limits | None:
    if asked is None:
        if any((choice.per_action, choice.total, choice.count, *choice.per_period)):
            raise _wider("limits", "an amount", None)
        return None
    if len(choice.per_period) not in (0, len(asked.per_period)):
        raise _wider("limits.per_period", len(choice.per_period), len(asked.per_period))
    rules = zip(asked.per_period, choice.per_period or ("",) * len(asked.per_period), strict=True)
    return Limits(
        asked.currency,
        _lower("limits.per_action", asked.per_action, choice.per_action),
        _lower("limits.total", asked.total, choice.total),
        tuple(_lower_rule(rule, typed) for rule, typed in rules),
        _lower_count(asked.count, choice.count),
    )


def _lower_rule(asked: PeriodRule, typed: str) -> PeriodRule:
    return replace(asked, amount=_lower("limits.per_period", asked.amount, typed))


def _lower(member: str, asked: Money, typed: str | None) -> Money:
    """The amount that was typed, at most `asked`; left empty it is `asked`."""
    if not typed:
        return asked
    try:
        amount = Money.parse(asked.currency, typed)
    except NotAValue as error:
        raise NotChosen(member, "no_amount") from error
    if amount.minor > asked.minor:
        raise NotChosen(member, "too_high")
    return amount


def _lower_count(asked: int | None, typed: str | None) -> int | None:
    if asked is None:
        if typed:
            raise _wider("limits.count", "a number", None)
        return None
    if not typed:
        return asked
    if not (typed.isascii() and typed.isdigit() and len(typed) <= 10 and int(typed)):
        raise NotChosen("limits.count", "no_amount")
    if int(typed) > asked:
        raise NotChosen("limits.count", "too_high")
    return int(typed)


def _merchants(held: Merchants | None, choice: Choice, vocabulary: Vocabulary) -> Merchants | None:
    if held is None:
        if choice.categories or choice.countries or choice.ids:
            raise _wider("merchants", "a merchant", None)
        return None
    by_text = {entry.text: entry for entry in held.categories}
    texts = _kept("merchants.categories", tuple(by_text), choice.categories or ())
    countries = _kept("merchants.countries", held.countries, choice.countries or ())
    out = countries_left_out(held.countries, countries, choice.without_countries, vocabulary)
    countries = tuple(entry for entry in countries if entry not in out)
    left = replace(
        held,
        categories=tuple(by_text[text] for text in texts),
        countries=countries,
        ids=_any_kept("merchants.ids", held.ids, choice.ids),
    )
    if not _countries_are_left(left, out, vocabulary):
        left = replace(left, countries=())
    if choice.without_categories and not _kinds_are_left(left, choice.without_categories):
        left = replace(left, categories=())
    return _excluding(left, choice.without_categories, out)


def _kinds_are_left(left: Merchants, without: tuple[str, ...]) -> bool:
    return any(kind not in without for entry in left.categories for kind in kinds_of(entry))


def _excluding(left: Merchants, kinds: tuple[str, ...], countries: tuple[str, ...]) -> Merchants:
    let_in = {kind for entry in left.categories for kind in kinds_of(entry)} if kinds else set[str]()
    out = [CategoryRange.parse(kind) for kind in sorted(let_in.intersection(kinds))]
    if not out and not countries:
        return left
    before = left.excluded or MerchantExclusions((), (), ())
    new = (one for one in out if not any(one.overlaps(old) for old in before.categories))
    return replace(
        left,
        excluded=MerchantExclusions(
            (*before.categories, *new),
            (*before.countries, *(code for code in countries if code not in before.countries)),
            before.ids,
        ),
    )


def _countries_are_left(left: Merchants, out: tuple[str, ...], vocabulary: Vocabulary) -> bool:
    """Whether the person, who left some out, left any."""
    let_in = {code for entry in left.countries for code in countries_of(entry, vocabulary)}
    return not out or bool(let_in.difference(out)) or left.countries == ANY


def _datatypes(
    held: tuple[str, ...] | None, choice: Choice, vocabulary: Vocabulary
) -> tuple[str, ...] | None:
    kept = _any_kept("datatypes", held, choice.datatypes)
    if held is None or not kept or kept == ANY:
        return kept
    return datatypes_left(held, kept, choice.without_datatypes, vocabulary.datatypes.contains)


def _wider(member: str, said: object, allowed: object) -> Refusal:
    return Refusal(
        "invalid_request",
        "the form allows more than was asked for",
        rule="consent.wider",
        violations=(Violation(member, said, allowed),),
    )
