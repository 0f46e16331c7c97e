"""How the members of authorization details are read: each by one function, which takes it or says why not."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

from authserver.errors import Refusal
from authserver.policy.catalogue import Catalogue
from authserver.values import Country, CountryGroups, Datatypes, NotAValue, ResourceIdentifier

Value = TypeVar("Value")

ANY = ("any",)  # what `locations`, `merchants.countries` and `datatypes` hold where the user set no bounds


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that details are made of, as this server is configured."""

    catalogue: Catalogue
    datatypes: Datatypes
    country_groups: CountryGroups


# RFC 3339 §5.6, narrowed to UTC and to what a datetime holds.
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|\+00:00)")


def refusal_of(error: NotAValue) -> Refusal:
    """The refusal of details that hold something which is no value."""
    rule = f"details.{error.member}" if error.member else "details"
    description = str(error) if error.member else f"authorization_details {error.reason}"
    return Refusal("invalid_authorization_details", description, rule)


def without_absent(**members: object) -> dict[str, object]:
    """The members that are there, as a JSON object."""
    return {name: value for name, value in members.items() if value is not None}


def read_member(member: str, parse: Callable[[object], Value], unverified: object) -> Value:
    """Read one member; what is wrong with it names it."""
    try:
        return parse(unverified)
    except NotAValue as error:
        raise error.inside(member) from error


def read_optional(
    members: Mapping[str, object], member: str, parse: Callable[[object], Value]
) -> Value | None:
    """Read a member that may be absent."""
    # A null is a value of the wrong type, not an absent member.
    return read_member(member, parse, members[member]) if member in members else None


def read_object(
    unverified: object, known: frozenset[str], required: tuple[str, ...] = ()
) -> dict[str, object]:
    """Read a JSON object that has no members but `known`, and all of `required`."""
    if not isinstance(unverified, dict):
        raise NotAValue("must be a JSON object")
    if not unverified.keys() <= known:
        raise NotAValue(f"has an unknown member; known are {', '.join(sorted(known))}")
    for member in required:
        if member not in unverified:
            raise NotAValue("is required", member)
    return unverified


def read_list(
    unverified: object, parse: Callable[[object], Value], *, least: int = 1, most: int = 16_384
) -> tuple[Value, ...]:
    """Read an array without repetitions, of `least` to `most` entries."""
    if not isinstance(unverified, list) or not least <= len(unverified) <= most:
        raise NotAValue(
            "must be an array with one entry" if most == 1 else "must be an array with an entry in it"
        )
    entries = tuple(map(parse, unverified))
    if len(set(entries)) != len(entries):
        raise NotAValue("has an entry twice")
    return entries


def read_any_or_list(unverified: object, parse: Callable[[object], str]) -> tuple[str, ...]:
    """Read `["any"]`, or an array."""
    return ANY if unverified == ["any"] else read_list(unverified, parse)


def read_action(vocabulary: Vocabulary | None) -> Callable[[object], str]:
    """Reads the name of an action of the catalogue; without a vocabulary, of one that there once was."""

    def parse(unverified: object) -> str:
        known = isinstance(unverified, str) and (vocabulary is None or vocabulary.catalogue.get(unverified))
        if not isinstance(unverified, str) or not known:
            raise NotAValue("must be actions that this server knows")
        return unverified

    return parse


def read_datatype(vocabulary: Vocabulary | None) -> Callable[[object], str]:
    """Reads the name of a data type; without a vocabulary, of one that there once was."""

    def parse(unverified: object) -> str:
        known = isinstance(unverified, str) and (vocabulary is None or vocabulary.datatypes.known(unverified))
        if not isinstance(unverified, str) or not known:
            raise NotAValue("must be data types that this server knows")
        return unverified

    return parse


def read_country(vocabulary: Vocabulary | None) -> Callable[[object], str]:
    """Reads a country or a group of countries; without a vocabulary, one that there once was."""

    def parse(unverified: object) -> str:
        if isinstance(unverified, str) and (
            vocabulary is None or vocabulary.country_groups.contains(unverified)
        ):
            return unverified
        return Country.parse(unverified).code

    return parse


@lru_cache(maxsize=4096)
def _checked_identifier(unverified: str) -> str:
    return ResourceIdentifier.parse(unverified).text


def read_identifier(unverified: object) -> str:
    """Read the identifier of a resource server."""
    if not isinstance(unverified, str):
        raise NotAValue("must be identifiers of resource servers")
    return _checked_identifier(unverified)


def read_whole_number(unverified: object, least: int, most: int) -> int:
    """Read a whole number within bounds."""
    if type(unverified) is not int or not least <= unverified <= most:  # True is an int to isinstance
        raise NotAValue(f"must be a whole number from {least} to {most}")
    return unverified


def read_instant(unverified: object) -> datetime:
    """Read an RFC 3339 time in UTC."""
    try:
        if isinstance(unverified, str) and _INSTANT.fullmatch(unverified):
            return datetime.fromisoformat(unverified)
    except ValueError:  # such as 30 February
        pass
    raise NotAValue("must be an RFC 3339 time in UTC such as 2026-12-24T00:00:00Z")


def instant_text(instant: datetime) -> str:
    """Write one."""
    return instant.isoformat().replace("+00:00", "Z")
