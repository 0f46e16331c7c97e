"""Authorization details (RFC 9396, contract §4): what a user consents to, and what an agent asks for."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Self, TypeVar

from authserver import strict_json
from authserver.errors import Refusal
from authserver.policy.catalogue import Catalogue
from authserver.policy.periods import Period
from authserver.values import (
    EVERY_CATEGORY,
    CategoryRange,
    Country,
    CountryGroups,
    Datatypes,
    MerchantCategory,
    Money,
    NotAValue,
    ResourceIdentifier,
    parse_currency,
    parse_merchant_id,
    parse_name,
    parse_reference,
)

Value = TypeVar("Value")

ANY = ("any",)  # what `locations`, `merchants.countries` and `datatypes` hold where the user set no bounds

MOST_PERIOD_RULES = 8
LARGEST_COUNT = 1_000_000_000
DEEPEST_REDELEGATION = 10


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that details are made of, as this server is configured."""

    catalogue: Catalogue
    datatypes: Datatypes
    country_groups: CountryGroups


# --- what an agent asks for ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Merchant:
    """Facts about the seller; at least one is known. `id` is the merchant's at its resource server."""

    id: str | None = None
    category: MerchantCategory | None = None
    country: Country | None = None
    name: str | None = None

    @classmethod
    def parse(cls, unverified: object) -> Self:
        """Read `{"id", "category", "country", "name"}`, one member or more; raises `NotAValue`."""
        members = _object(unverified, _MERCHANT_MEMBERS)
        if not members:
            raise NotAValue("must have one of id, category, country, name")
        return cls(
            _optional(members, "id", parse_merchant_id),
            _optional(members, "category", MerchantCategory.parse),
            _optional(members, "country", Country.parse),
            _optional(members, "name", parse_name),
        )

    def to_json(self) -> dict[str, object]:
        """The facts as details write them."""
        return _said(
            id=self.id,
            category=self.category and self.category.code,
            country=self.country and self.country.code,
            name=self.name,
        )


@dataclass(frozen=True, slots=True)
class ActionDetails:
    """One action at one place: an `agent_action`."""

    action: str
    location: str | None = None
    amount: Money | None = None
    merchant: Merchant | None = None
    datatypes: tuple[str, ...] = ()
    reference: str | None = None

    def to_json(self) -> dict[str, object]:
        """The whole `agent_action` object, members in the contract's order."""
        return _said(
            type="agent_action",
            actions=[self.action],
            locations=[self.location] if self.location else None,
            amount=self.amount and self.amount.to_json(),
            merchant=self.merchant and self.merchant.to_json(),
            datatypes=list(self.datatypes) or None,
            reference=self.reference,
        )


def parse_authorization_details(unverified_text: str, vocabulary: Vocabulary) -> ActionDetails:
    """Read the parameter `authorization_details` of the exchange: a JSON array of exactly one `agent_action`.

    Raises `Refusal`: `invalid_authorization_details`, or `invalid_target` for a location that is none, or several.
    """
    try:
        entries = strict_json.parse(unverified_text)
        if not isinstance(entries, list) or len(entries) != 1:
            raise NotAValue("must be an array of exactly one object")
        return _action(entries[0], vocabulary)
    except strict_json.JsonRefused as error:
        raise _refusal(NotAValue(str(error))) from error
    except NotAValue as error:
        raise _refusal(error) from error


def stored_action(text: str, vocabulary: Vocabulary) -> ActionDetails:
    """Read an `agent_action` that this server wrote itself."""
    return _action(strict_json.parse(text), vocabulary)


def action_from_scope(unverified_scope: str, vocabulary: Vocabulary) -> ActionDetails:
    """Read `scope`: one action that needs no details. Raises `Refusal("invalid_scope")`."""
    entry = vocabulary.catalogue.get(unverified_scope)
    if entry is None:
        raise Refusal(
            "invalid_scope", "scope must be exactly one action that this server knows", "scope.unknown"
        )
    if entry.needs:
        raise Refusal(
            "invalid_scope", "this action must be asked for by authorization_details", "scope.needs_details"
        )
    return ActionDetails(entry.name)


def _action(unverified: object, vocabulary: Vocabulary) -> ActionDetails:
    members = _object(unverified, _ACTION_MEMBERS, ("type", "actions"))
    if members["type"] != "agent_action":
        raise NotAValue("must be agent_action", "type")
    (action,) = _read(
        "actions", lambda said: _list(said, _known_action(vocabulary), most=1), members["actions"]
    )
    return ActionDetails(
        action,
        _location(members["locations"]) if "locations" in members else None,
        _optional(members, "amount", _amount),
        _optional(members, "merchant", Merchant.parse),
        _optional(members, "datatypes", lambda said: _list(said, _known_datatype(vocabulary))) or (),
        _optional(members, "reference", parse_reference),
    )


def _amount(unverified: object) -> Money:
    members = _object(unverified, _AMOUNT_MEMBERS, ("currency", "value"))
    return Money.parse(members["currency"], members["value"])


def _location(unverified: object) -> str:
    if not isinstance(unverified, list) or not unverified:
        raise NotAValue("must be an array with one entry", "locations")
    try:
        (location,) = unverified
        return _identifier(location)
    except ValueError as error:
        # RFC 8707 §2: which place is meant is the target's matter, not the details'.
        raise Refusal(
            "invalid_target",
            "locations must be exactly one identifier of a resource server",
            "details.locations",
        ) from error


# --- what a user consents to --------------------------------------------------------------------------------------


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
        return _said(
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
        return _said(
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
        members = _said(
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
        return _said(above=self.above and self.above.text, actions=actions)


@dataclass(frozen=True, slots=True)
class DelegationDetails:
    """What one user allows one agent: an `agent_delegation`.

    None means that nothing was said, never that anything goes. Instants are aware, in UTC; valid from `not_before`
    (None: from its creation) until before `expires`.
    """

    actions: tuple[str, ...]
    locations: tuple[str, ...]
    limits: Limits | None
    merchants: Merchants | None
    datatypes: tuple[str, ...] | None
    approval: ApprovalRule | None
    redelegation_depth: int
    not_before: datetime | None
    expires: datetime

    def to_json(self) -> dict[str, object]:
        """The whole `agent_delegation` object, members in the contract's order."""
        return _said(
            type="agent_delegation",
            actions=list(self.actions),
            locations=list(self.locations),
            limits=self.limits and self.limits.to_json(),
            merchants=self.merchants and self.merchants.to_json(),
            datatypes=self.datatypes and list(self.datatypes),
            approval=self.approval and self.approval.to_json(),
            redelegation={"depth": self.redelegation_depth} if self.redelegation_depth else None,
            not_before=self.not_before and _instant_text(self.not_before),
            expires=_instant_text(self.expires),
        )


def parse_delegation(unverified: object, vocabulary: Vocabulary) -> DelegationDetails:
    """Read one `agent_delegation`, as `strict_json.parse` gave it.

    Raises `Refusal("invalid_authorization_details")` that names the member. It does not look at the clock: whether the
    delegation is too long or already over is for the caller.
    """
    try:
        details = _delegation(unverified, vocabulary)
        _check_required(details, vocabulary)
    except NotAValue as error:
        raise _refusal(error) from error
    return details


def _delegation(unverified: object, vocabulary: Vocabulary) -> DelegationDetails:
    members = _object(unverified, _DELEGATION_MEMBERS, ("type", "actions", "locations", "expires"))
    if members["type"] != "agent_delegation":
        raise NotAValue("must be agent_delegation", "type")
    known_action = _known_action(vocabulary)
    limits = _optional(members, "limits", _limits)
    return DelegationDetails(
        _read("actions", lambda said: _list(said, known_action), members["actions"]),
        _read("locations", lambda said: _any_or_list(said, _identifier), members["locations"]),
        limits,
        _optional(members, "merchants", lambda said: _merchants(said, vocabulary)),
        _optional(members, "datatypes", lambda said: _any_or_list(said, _known_datatype(vocabulary))),
        _optional(members, "approval", lambda said: _approval(said, limits, known_action)),
        _optional(members, "redelegation", _redelegation) or 0,
        _optional(members, "not_before", _instant),
        _read("expires", _instant, members["expires"]),
    )


def _check_required(details: DelegationDetails, vocabulary: Vocabulary) -> None:
    """Contract §4: absence is never `any`, so what an action needs must have been said."""
    entries = [entry for name in details.actions if (entry := vocabulary.catalogue.get(name))]
    if any(entry.moves_money for entry in entries):
        for member, value in (("limits", details.limits), ("merchants", details.merchants)):
            if value is None:
                raise NotAValue("is required, because one of the actions moves money", member)
    if any("datatypes" in entry.needs for entry in entries) and details.datatypes is None:
        raise NotAValue("is required, because one of the actions exposes data", "datatypes")
    if details.not_before is not None and details.not_before >= details.expires:
        raise NotAValue("must be later than not_before", "expires")


def _limits(unverified: object) -> Limits:
    members = _object(unverified, _LIMITS_MEMBERS, ("currency", "per_action", "total"))
    currency = _read("currency", parse_currency, members["currency"])

    def money(said: object) -> Money:
        return Money.parse(currency, said)

    def rules(said: object) -> tuple[PeriodRule, ...]:
        return _list(said, lambda rule: _period_rule(rule, money), most=MOST_PERIOD_RULES)

    return Limits(
        currency,
        _read("per_action", money, members["per_action"]),
        _read("total", money, members["total"]),
        _optional(members, "per_period", rules) or (),
        _optional(members, "count", lambda said: _whole_number(said, 1, LARGEST_COUNT)),
    )


def _period_rule(unverified: object, money: Callable[[object], Money]) -> PeriodRule:
    members = _object(unverified, _RULE_MEMBERS, ("amount", "period"))
    if "categories" in members and "ids" in members:
        raise NotAValue("must have categories or ids, not both")
    return PeriodRule(
        _read("amount", money, members["amount"]),
        _read("period", Period.parse, members["period"]),
        _optional(members, "categories", _categories),
        _optional(members, "ids", lambda said: _list(said, parse_merchant_id)),
    )


def _merchants(unverified: object, vocabulary: Vocabulary) -> Merchants:
    members = _object(unverified, _MERCHANTS_MEMBERS, ("categories", "countries"))
    return Merchants(
        _read("categories", _any_or_categories, members["categories"]),
        _read(
            "countries", lambda said: _any_or_list(said, _country_or_group(vocabulary)), members["countries"]
        ),
        _optional(members, "ids", lambda said: _list(said, parse_merchant_id)),
        _optional(members, "except", lambda said: _exclusions(said, vocabulary)),
    )


def _exclusions(unverified: object, vocabulary: Vocabulary) -> MerchantExclusions:
    members = _object(unverified, _EXCEPT_MEMBERS)
    if not members:
        raise NotAValue("must have one of categories, countries, ids")
    country = _country_or_group(vocabulary)
    return MerchantExclusions(
        _optional(members, "categories", lambda said: _categories(said, least=0)) or (),
        _optional(members, "countries", lambda said: _list(said, country, least=0)) or (),
        _optional(members, "ids", lambda said: _list(said, parse_merchant_id, least=0)) or (),
    )


def _approval(
    unverified: object, limits: Limits | None, known_action: Callable[[object], str]
) -> ApprovalRule:
    members = _object(unverified, _APPROVAL_MEMBERS)
    if not members:
        raise NotAValue("must have above or actions")
    if "above" in members and limits is None:
        raise NotAValue("takes its currency from limits, which is missing", "above")
    return ApprovalRule(
        _optional(members, "above", lambda said: Money.parse(limits and limits.currency, said)),
        _optional(members, "actions", lambda said: _list(said, known_action, least=0)) or (),
    )


def _redelegation(unverified: object) -> int:
    members = _object(unverified, _REDELEGATION_MEMBERS, ("depth",))
    return _read("depth", lambda said: _whole_number(said, 0, DEEPEST_REDELEGATION), members["depth"])


# --- the parts that both are made of ------------------------------------------------------------------------------

_MERCHANT_MEMBERS = frozenset({"id", "category", "country", "name"})
_AMOUNT_MEMBERS = frozenset({"currency", "value"})
_ACTION_MEMBERS = frozenset({"type", "actions", "locations", "amount", "merchant", "datatypes", "reference"})
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

# RFC 3339 §5.6, narrowed to UTC and to what a datetime holds.
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")


def _refusal(error: NotAValue) -> Refusal:
    rule = f"details.{error.member}" if error.member else "details"
    description = str(error) if error.member else f"authorization_details {error.reason}"
    return Refusal("invalid_authorization_details", description, rule)


def _said(**members: object) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}


def _read(member: str, parse: Callable[[object], Value], unverified: object) -> Value:
    try:
        return parse(unverified)
    except NotAValue as error:
        raise error.inside(member) from error


def _optional(members: Mapping[str, object], member: str, parse: Callable[[object], Value]) -> Value | None:
    # A null is a value of the wrong type, not an absent member.
    return _read(member, parse, members[member]) if member in members else None


def _object(unverified: object, known: frozenset[str], required: tuple[str, ...] = ()) -> dict[str, object]:
    if not isinstance(unverified, dict):
        raise NotAValue("must be a JSON object")
    if not unverified.keys() <= known:
        raise NotAValue(f"has an unknown member; known are {', '.join(sorted(known))}")
    for member in required:
        if member not in unverified:
            raise NotAValue("is required", member)
    return unverified


def _list(
    unverified: object, parse: Callable[[object], Value], *, least: int = 1, most: int = 16_384
) -> tuple[Value, ...]:
    if not isinstance(unverified, list) or not least <= len(unverified) <= most:
        raise NotAValue(
            "must be an array with one entry" if most == 1 else "must be an array with an entry in it"
        )
    entries = tuple(map(parse, unverified))
    if len(set(entries)) != len(entries):
        raise NotAValue("has an entry twice")
    return entries


def _any_or_list(unverified: object, parse: Callable[[object], str]) -> tuple[str, ...]:
    return ANY if unverified == ["any"] else _list(unverified, parse)


def _any_or_categories(unverified: object) -> tuple[CategoryRange, ...]:
    return (EVERY_CATEGORY,) if unverified == ["any"] else _categories(unverified)


def _categories(unverified: object, *, least: int = 1) -> tuple[CategoryRange, ...]:
    entries = _list(unverified, CategoryRange.parse, least=least)
    rising = sorted(entries, key=lambda entry: entry.low)
    if any(lower.overlaps(higher) for lower, higher in pairwise(rising)):
        raise NotAValue("has ranges that overlap")
    return entries


def _known_action(vocabulary: Vocabulary) -> Callable[[object], str]:
    def parse(unverified: object) -> str:
        if not isinstance(unverified, str) or vocabulary.catalogue.get(unverified) is None:
            raise NotAValue("must be actions that this server knows")
        return unverified

    return parse


def _known_datatype(vocabulary: Vocabulary) -> Callable[[object], str]:
    def parse(unverified: object) -> str:
        if not isinstance(unverified, str) or not vocabulary.datatypes.known(unverified):
            raise NotAValue("must be data types that this server knows")
        return unverified

    return parse


def _country_or_group(vocabulary: Vocabulary) -> Callable[[object], str]:
    def parse(unverified: object) -> str:
        if isinstance(unverified, str) and vocabulary.country_groups.contains(unverified):
            return unverified
        return Country.parse(unverified).code

    return parse


@lru_cache(maxsize=4096)
def _checked_identifier(unverified: str) -> str:
    return ResourceIdentifier.parse(unverified).text


def _identifier(unverified: object) -> str:
    if not isinstance(unverified, str):
        raise NotAValue("must be identifiers of resource servers")
    return _checked_identifier(unverified)


def _whole_number(unverified: object, least: int, most: int) -> int:
    if type(unverified) is not int or not least <= unverified <= most:  # True is an int to isinstance
        raise NotAValue(f"must be a whole number from {least} to {most}")
    return unverified


def _instant(unverified: object) -> datetime:
    try:
        if isinstance(unverified, str) and _INSTANT.fullmatch(unverified):
            return datetime.fromisoformat(unverified)
    except ValueError:  # such as 30 February
        pass
    raise NotAValue("must be an RFC 3339 time in UTC such as 2026-12-24T00:00:00Z")


def _instant_text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
