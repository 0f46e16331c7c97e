"""What an agent asks for: an `agent_action` (RFC 9396, contract §4)."""

from dataclasses import dataclass
from typing import Self

from authserver import strict_json
from authserver.errors import Refusal
from authserver.policy.reading import (
    Vocabulary,
    read_action,
    read_datatype,
    read_identifier,
    read_list,
    read_member,
    read_object,
    read_optional,
    refusal_of,
    without_absent,
)
from authserver.values import (
    Country,
    MerchantCategory,
    Money,
    NotAValue,
    parse_merchant_id,
    parse_name,
    parse_reference,
)

_MERCHANT_MEMBERS = frozenset({"id", "category", "country", "name"})
_AMOUNT_MEMBERS = frozenset({"currency", "value"})
_ACTION_MEMBERS = frozenset({"type", "actions", "locations", "amount", "merchant", "datatypes", "reference"})


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
        members = read_object(unverified, _MERCHANT_MEMBERS)
        if not members:
            raise NotAValue("must have one of id, category, country, name")
        return cls(
            read_optional(members, "id", parse_merchant_id),
            read_optional(members, "category", MerchantCategory.parse),
            read_optional(members, "country", Country.parse),
            read_optional(members, "name", parse_name),
        )

    def to_json(self) -> dict[str, object]:
        """The facts as details write them."""
        return without_absent(
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
        return without_absent(
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
        raise refusal_of(NotAValue(str(error))) from error
    except NotAValue as error:
        raise refusal_of(error) from error


def stored_action(text: str) -> ActionDetails:
    """Read an `agent_action` that this server wrote itself, whatever words the catalogue has lost since."""
    return _action(strict_json.parse(text), None)


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


def _action(unverified: object, vocabulary: Vocabulary | None) -> ActionDetails:
    members = read_object(unverified, _ACTION_MEMBERS, ("type", "actions"))
    if members["type"] != "agent_action":
        raise NotAValue("must be agent_action", "type")
    (action,) = read_member(
        "actions", lambda said: read_list(said, read_action(vocabulary), most=1), members["actions"]
    )
    return ActionDetails(
        action,
        _location(members["locations"]) if "locations" in members else None,
        read_optional(members, "amount", _amount),
        read_optional(members, "merchant", Merchant.parse),
        read_optional(members, "datatypes", lambda said: read_list(said, read_datatype(vocabulary))) or (),
        read_optional(members, "reference", parse_reference),
    )


def _amount(unverified: object) -> Money:
    members = read_object(unverified, _AMOUNT_MEMBERS, ("currency", "value"))
    return Money.parse(members["currency"], members["value"])


def _location(unverified: object) -> str:
    if not isinstance(unverified, list) or not unverified:
        raise NotAValue("must be an array with one entry", "locations")
    try:
        (location,) = unverified
        return read_identifier(location)
    except ValueError as error:
        # RFC 8707 §2: which place is meant is the target's matter, not the details'.
        raise Refusal(
            "invalid_target",
            "locations must be exactly one identifier of a resource server",
            "details.locations",
        ) from error
