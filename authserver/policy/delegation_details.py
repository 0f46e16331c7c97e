"""What a user consents to: an `agent_delegation` (RFC 9396, contract §4)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from authserver import strict_json
from authserver.policy.details import Merchant
from authserver.policy.periods import Period
from authserver.policy.reading import (
    Vocabulary,
    instant_text,
    read_action,
    read_any_or_list,
    read_country,
    read_datatype,
    read_identifier,
    read_instant,
    read_list,
    read_member,
    read_object,
    read_optional,
    read_whole_number,
    refusal_of,
    without_absent,
)
from authserver.values import (
    EVERY_CATEGORY,
    CategoryRange,
    Money,
    NotAValue,
    parse_currency,
    parse_merchant_id,
)

MOST_PERIOD_RULES = 8
LARGEST_COUNT = 1_000_000_000
DEEPEST_REDELEGATION = 10
_LARGEST_STORED = 65_536

_DELEGATION_MEMBERS = frozenset(
    {"type", "actions", "locations", "limits", "merchants", "datatypes", "approval", "redelegation"}
    | {"not_before", "expires"}
)
_LIMITS_MEMBERS = frozenset({"currency", "per_action", "total", "per_period", "count"})
_RULE_MEMBERS = frozenset({"amount", "period", "categories", "ids"})
_MERCHANTS_MEMBERS = frozenset({"categories", "countries", "ids", "except"})
_EXCEPT_MEMBERS = frozenset({"categories", "countries", "ids"})
_APPROVAL_MEMBERS = frozenset({"above", "actions"})
_REDELEGATION_MEMBERS = frozenset({"depth"})


@dataclass(frozen=True, slots=True)
class PeriodRule:
    """At most `amount` in each window of `period`: for all spending, or for these categories or merchants only."""

    amount: Money
    period: Period
    categories: tuple[CategoryRange, ...] | None
    ids: tuple[str, ...] | None

    def applies_to(self, merchant: Merchant | None) -> bool:
        """Whether spending at `merchant` counts; a fact that nobody stated counts, so that silence evades no rule."""
        if self.categories is not None and merchant and merchant.category:
            return any(categories.contains(merchant.category) for categories in self.categories)
        if self.ids is not None and merchant and merchant.id:
            return merchant.id in self.ids
        return True

    def to_json(self) -> dict[str, object]:
        """The rule as the delegation writes it."""
        return without_absent(
            amount=self.amount.text,
            period=self.period.text,
            categories=self.categories and [entry.text for entry in self.categories],
            ids=self.ids and list(self.ids),
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what may be spent, all in one currency. `count` is how many debits there may be."""

    currency: str
    per_action: Money
    total: Money
    per_period: tuple[PeriodRule, ...]
    count: int | None

    def to_json(self) -> dict[str, object]:
        """The limits as the delegation writes them."""
        return without_absent(
            currency=self.currency,
            per_action=self.per_action.text,
            total=self.total.text,
            per_period=[rule.to_json() for rule in self.per_period] or None,
            count=self.count,
        )


@dataclass(frozen=True, slots=True)
class MerchantExclusions:
    """Merchants that are refused although `Merchants` would allow them."""

    categories: tuple[CategoryRange, ...]
    countries: tuple[str, ...]
    ids: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The exclusions as the delegation writes them."""
        return {
            "categories": [entry.text for entry in self.categories],
            "countries": list(self.countries),
            "ids": list(self.ids),
        }


@dataclass(frozen=True, slots=True)
class Merchants:
    """Who may be dealt with.

    `categories` is `(EVERY_CATEGORY,)` and `countries` is `ANY` where the user said `any`; a country is a code or a
    group's name. `ids` is None where merchants are not named one by one.
    """

    categories: tuple[CategoryRange, ...]
    countries: tuple[str, ...]
    ids: tuple[str, ...] | None
    excluded: MerchantExclusions | None

    def to_json(self) -> dict[str, object]:
        """The bounds as the delegation writes them."""
        members = without_absent(
            categories=[entry.text for entry in self.categories],
            countries=list(self.countries),
            ids=self.ids and list(self.ids),
        )
        return {**members, "except": self.excluded.to_json()} if self.excluded else members


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """When the user wants to be asked: `above` an amount (not at it), and for each of `actions`."""

    above: Money | None
    actions: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The rule as the delegation writes it."""
        actions = list(self.actions) if self.actions or self.above is None else None
        return without_absent(above=self.above and self.above.text, actions=actions)


@dataclass(frozen=True, slots=True)
class DelegationDetails:
    """What one user allows one agent: an `agent_delegation`.

    None means that nothing was said, never that anything goes. Instants are aware, in UTC; valid from `not_before`
    (None: from its creation) until before `expires`.
    """

    actions: tuple[str, ...]
    locations: tuple[str, ...] | None
    limits: Limits | None
    merchants: Merchants | None
    datatypes: tuple[str, ...] | None
    approval: ApprovalRule | None
    redelegation_depth: int
    not_before: datetime | None
    expires: datetime

    def to_json(self) -> dict[str, object]:
        """The whole `agent_delegation` object, members in the contract's order."""
        return without_absent(
            type="agent_delegation",
            actions=list(self.actions),
            locations=self.locations and list(self.locations),
            limits=self.limits and self.limits.to_json(),
            merchants=self.merchants and self.merchants.to_json(),
            datatypes=self.datatypes and list(self.datatypes),
            approval=self.approval and self.approval.to_json(),
            redelegation={"depth": self.redelegation_depth} if self.redelegation_depth else None,
            not_before=self.not_before and instant_text(self.not_before),
            expires=instant_text(self.expires),
        )


def stored_delegation(text: str) -> DelegationDetails:
    """Read details that this server wrote itself. Words that the catalogue has lost since are no reason to fail."""
    return _delegation(strict_json.parse(text, max_bytes=_LARGEST_STORED), None)


def parse_delegation(unverified: object, vocabulary: Vocabulary) -> DelegationDetails:
    """Read one `agent_delegation`, as `strict_json.parse` gave it.

    Raises `Refusal("invalid_authorization_details")` that names the member. It does not look at the clock: whether the
    delegation is too long or already over is for the caller.
    """
    try:
        details = _delegation(unverified, vocabulary)
        _check_required(details, vocabulary)
    except NotAValue as error:
        raise refusal_of(error) from error
    return details


def _delegation(unverified: object, vocabulary: Vocabulary | None) -> DelegationDetails:
    members = read_object(unverified, _DELEGATION_MEMBERS, ("type", "actions", "expires"))
    if members["type"] != "agent_delegation":
        raise NotAValue("must be agent_delegation", "type")
    known_action = read_action(vocabulary)
    limits = read_optional(members, "limits", _limits)
    return DelegationDetails(
        read_member("actions", lambda said: read_list(said, known_action), members["actions"]),
        read_optional(members, "locations", lambda said: read_any_or_list(said, read_identifier)),
        limits,
        read_optional(members, "merchants", lambda said: _merchants(said, vocabulary)),
        read_optional(members, "datatypes", lambda said: read_any_or_list(said, read_datatype(vocabulary))),
        read_optional(members, "approval", lambda said: _approval(said, limits, known_action)),
        read_optional(members, "redelegation", _redelegation) or 0,
        read_optional(members, "not_before", read_instant),
        read_member("expires", read_instant, members["expires"]),
    )


def _check_required(details: DelegationDetails, vocabulary: Vocabulary) -> None:
    """Contract §4: absence is never `any`, so what an action needs must have been said."""
    entries = [entry for name in details.actions if (entry := vocabulary.catalogue.get(name))]
    if any(entry.needs for entry in entries) and details.locations is None:
        raise NotAValue("is required, because one of the actions needs it", "locations")
    if any(entry.moves_money for entry in entries):
        for member, value in (("limits", details.limits), ("merchants", details.merchants)):
            if value is None:
                raise NotAValue("is required, because one of the actions moves money", member)
    if any("datatypes" in entry.needs for entry in entries) and details.datatypes is None:
        raise NotAValue("is required, because one of the actions exposes data", "datatypes")
    if details.not_before is not None and details.not_before >= details.expires:
        raise NotAValue("must be later than not_before", "expires")


def _limits(unverified: object) -> Limits:
    members = read_object(unverified, _LIMITS_MEMBERS, ("currency", "per_action", "total"))
    currency = read_member("currency", parse_currency, members["currency"])

    def money(said: object) -> Money:
        return Money.parse(currency, said)

    def rules(said: object) -> tuple[PeriodRule, ...]:
        return read_list(said, lambda rule: _period_rule(rule, money), most=MOST_PERIOD_RULES)

    return Limits(
        currency,
        read_member("per_action", money, members["per_action"]),
        read_member("total", money, members["total"]),
        read_optional(members, "per_period", rules) or (),
        read_optional(members, "count", lambda said: read_whole_number(said, 1, LARGEST_COUNT)),
    )


def _period_rule(unverified: object, money: Callable[[object], Money]) -> PeriodRule:
    members = read_object(unverified, _RULE_MEMBERS, ("amount", "period"))
    if "categories" in members and "ids" in members:
        raise NotAValue("must have categories or ids, not both")
    return PeriodRule(
        read_member("amount", money, members["amount"]),
        read_member("period", Period.parse, members["period"]),
        read_optional(members, "categories", _categories),
        read_optional(members, "ids", lambda said: read_list(said, parse_merchant_id)),
    )


def _merchants(unverified: object, vocabulary: Vocabulary | None) -> Merchants:
    members = read_object(unverified, _MERCHANTS_MEMBERS, ("categories", "countries"))
    return Merchants(
        read_member("categories", _any_or_categories, members["categories"]),
        read_member(
            "countries", lambda said: read_any_or_list(said, read_country(vocabulary)), members["countries"]
        ),
        read_optional(members, "ids", lambda said: read_list(said, parse_merchant_id)),
        read_optional(members, "except", lambda said: _exclusions(said, vocabulary)),
    )


def _exclusions(unverified: object, vocabulary: Vocabulary | None) -> MerchantExclusions:
    members = read_object(unverified, _EXCEPT_MEMBERS)
    if not members:
        raise NotAValue("must have one of categories, countries, ids")
    country = read_country(vocabulary)
    return MerchantExclusions(
        read_optional(members, "categories", lambda said: _categories(said, least=0)) or (),
        read_optional(members, "countries", lambda said: read_list(said, country, least=0)) or (),
        read_optional(members, "ids", lambda said: read_list(said, parse_merchant_id, least=0)) or (),
    )


def _approval(
    unverified: object, limits: Limits | None, known_action: Callable[[object], str]
) -> ApprovalRule:
    members = read_object(unverified, _APPROVAL_MEMBERS)
    if not members:
        raise NotAValue("must have above or actions")
    if "above" in members and limits is None:
        raise NotAValue("takes its currency from limits, which is missing", "above")
    return ApprovalRule(
        read_optional(members, "above", lambda said: Money.parse(limits and limits.currency, said)),
        read_optional(members, "actions", lambda said: read_list(said, known_action, least=0)) or (),
    )


def _redelegation(unverified: object) -> int:
    members = read_object(unverified, _REDELEGATION_MEMBERS, ("depth",))
    return read_member(
        "depth", lambda said: read_whole_number(said, 0, DEEPEST_REDELEGATION), members["depth"]
    )


def _any_or_categories(unverified: object) -> tuple[CategoryRange, ...]:
    return (EVERY_CATEGORY,) if unverified == ["any"] else _categories(unverified)


def _categories(unverified: object, *, least: int = 1) -> tuple[CategoryRange, ...]:
    entries = read_list(unverified, CategoryRange.parse, least=least)
    rising = sorted(entries, key=lambda entry: entry.low)
    if any(lower.overlaps(higher) for lower, higher in pairwise(rising)):
        raise NotAValue("has ranges that overlap")
    return entries
