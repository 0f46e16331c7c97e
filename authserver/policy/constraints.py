"""Each bound as one small type, whose `check` says why not.

A fact that the request leaves out passes only where nothing bounds it; what is said and bounded by nothing is refused:
an absent member is never `any` (contract §4).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from authserver.errors import Violation
from authserver.policy.catalogue import NEEDS, CatalogueEntry
from authserver.policy.details import ActionDetails, Merchant
from authserver.policy.reading import ANY, Vocabulary
from authserver.values import EVERY_CATEGORY, CategoryRange, CountryGroups, Money


@dataclass(frozen=True, slots=True)
class Asked:
    """One request with all facts known about it, and the words to judge it by."""

    action: ActionDetails
    entry: CatalogueEntry
    vocabulary: Vocabulary


class Constraint(Protocol):
    """One bound of what may be asked."""

    def check(self, asked: Asked) -> Iterator[Violation]:
        """Why `asked` crosses this bound; nothing where it does not."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the catalogue wants said must be said."""

    def check(self, asked: Asked) -> Iterator[Violation]:
        if needs := asked.entry.needs:
            said = [name for name in NEEDS if getattr(asked.action, name)]
            if not needs.issubset(said):
                yield Violation("catalogue.needs", said, [name for name in NEEDS if name in needs])


@dataclass(frozen=True, slots=True)
class Actions:
    """The action is one of these."""

    allowed: Collection[str]

    def check(self, asked: Asked) -> Iterator[Violation]:
        if asked.action.action not in self.allowed:
            yield Violation("actions", asked.action.action, sorted(self.allowed))


@dataclass(frozen=True, slots=True)
class Locations:
    """The place is one of these, compared as exact text; where none was said, it is none."""

    allowed: tuple[str, ...] | None

    def check(self, asked: Asked) -> Iterator[Violation]:
        if self.allowed != ANY and asked.action.location not in (self.allowed or ()):
            yield Violation("locations", asked.action.location, list(self.allowed or ()))


@dataclass(frozen=True, slots=True)
class ForTheAction:
    """The catalogue's `datatypes`: what an action may ever be for, whatever was delegated."""

    datatypes: tuple[str, ...]

    def check(self, asked: Asked) -> Iterator[Violation]:
        """Name those that it may not be for."""
        covers = asked.vocabulary.datatypes.covers
        if beyond := [name for name in asked.action.datatypes if not covers(self.datatypes, name)]:
            yield Violation("catalogue.datatypes", beyond, list(self.datatypes))


@dataclass(frozen=True, slots=True)
class DataTypes:
    """Each data type asked for is one of these, or is contained in one."""

    allowed: tuple[str, ...] | None

    def check(self, asked: Asked) -> Iterator[Violation]:
        if not asked.action.datatypes or self.allowed == ANY:
            return
        granted, covers = self.allowed or (), asked.vocabulary.datatypes.covers
        refused = [name for name in asked.action.datatypes if not covers(granted, name)]
        if refused:
            yield Violation("datatypes", refused, list(granted))


# --- money --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoLimits:
    """The delegation says nothing about money, so no amount may be asked for."""

    def check(self, asked: Asked) -> Iterator[Violation]:
        if asked.action.amount is not None:
            yield Violation("limits.per_action", asked.action.amount.text)


@dataclass(frozen=True, slots=True)
class Currency:
    """The amount is in this currency; there is no conversion."""

    allowed: str

    def check(self, asked: Asked) -> Iterator[Violation]:
        amount = asked.action.amount
        if amount is not None and amount.currency != self.allowed:
            yield Violation("limits.currency", amount.currency, self.allowed)


@dataclass(frozen=True, slots=True)
class AtMost:
    """The amount is no more than `left`, in minor units of `currency`; another currency is `Currency`'s to refuse."""

    constraint: str
    currency: str
    left: int

    def check(self, asked: Asked) -> Iterator[Violation]:
        amount = asked.action.amount
        if amount is not None and amount.minor > self.left and amount.currency == self.currency:
            yield Violation(self.constraint, amount.text, Money(self.currency, max(self.left, 0)).text)


@dataclass(frozen=True, slots=True)
class CountLeft:
    """One debit more fits."""

    left: int

    def check(self, asked: Asked) -> Iterator[Violation]:
        if self.left < 1:
            yield Violation("limits.count", 1, 0)


@dataclass(frozen=True, slots=True)
class OpenLeft:
    """One reservation more may be open."""

    left: int

    def check(self, asked: Asked) -> Iterator[Violation]:
        if self.left < 1:
            yield Violation("catalogue.open_reservations", 1, 0)


# --- merchants ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Categories:
    """The merchant's category lies in one of these."""

    allowed: tuple[CategoryRange, ...]

    def check(self, asked: Asked) -> Iterator[Violation]:
        merchant = asked.action.merchant
        if merchant is None or self.allowed == (EVERY_CATEGORY,):
            return
        if merchant.category is None or not any(
            allowed.contains(merchant.category) for allowed in self.allowed
        ):
            code = merchant.category and merchant.category.code
            yield Violation("merchants.categories", code, [allowed.text for allowed in self.allowed])


@dataclass(frozen=True, slots=True)
class Countries:
    """The merchant's country is one of these, or in a group that is."""

    allowed: tuple[str, ...]

    def check(self, asked: Asked) -> Iterator[Violation]:
        merchant = asked.action.merchant
        if merchant is None or self.allowed == ANY:
            return
        if not _names(self.allowed, merchant, asked.vocabulary.country_groups):
            yield Violation(
                "merchants.countries", merchant.country and merchant.country.code, list(self.allowed)
            )


@dataclass(frozen=True, slots=True)
class Ids:
    """The merchant is one of these."""

    allowed: tuple[str, ...]

    def check(self, asked: Asked) -> Iterator[Violation]:
        merchant = asked.action.merchant
        if merchant is not None and merchant.id not in self.allowed:
            yield Violation("merchants.ids", merchant.id, list(self.allowed))


@dataclass(frozen=True, slots=True)
class ExceptCategories:
    """The merchant's category is known and lies in none of these."""

    refused: tuple[CategoryRange, ...]

    def check(self, asked: Asked) -> Iterator[Violation]:
        merchant = asked.action.merchant
        if merchant is None or not self.refused:
            return
        if merchant.category is None or any(refused.contains(merchant.category) for refused in self.refused):
            yield Violation("merchants.except.categories", merchant.category and merchant.category.code)


@dataclass(frozen=True, slots=True)
class ExceptCountries:
    """The merchant's country is known and is none of these."""

    refused: tuple[str, ...]

    def check(self, asked: Asked) -> Iterator[Violation]:
        merchant = asked.action.merchant
        if merchant is None or not self.refused:
            return
        if merchant.country is None or _names(self.refused, merchant, asked.vocabulary.country_groups):
            yield Violation("merchants.except.countries", merchant.country and merchant.country.code)


@dataclass(frozen=True, slots=True)
class ExceptIds:
    """The merchant is known and is none of these."""

    refused: tuple[str, ...]

    def check(self, asked: Asked) -> Iterator[Violation]:
        merchant = asked.action.merchant
        if merchant is not None and self.refused and (merchant.id is None or merchant.id in self.refused):
            yield Violation("merchants.except.ids", merchant.id)


@dataclass(frozen=True, slots=True)
class RegisteredFacts:
    """What the agent said of the merchant is what the resource server is registered with; the name is not compared."""

    said: Merchant
    registered: Merchant

    def check(self, asked: Asked) -> Iterator[Violation]:
        said, registered = self.said.to_json(), self.registered.to_json()
        for fact, constraint in (("id", "ids"), ("category", "categories"), ("country", "countries")):
            if fact in said and fact in registered and said[fact] != registered[fact]:
                yield Violation(f"merchants.{constraint}", said[fact], registered[fact])


def _names(names: tuple[str, ...], merchant: Merchant, groups: CountryGroups) -> bool:
    country = merchant.country
    return country is not None and any(
        name == country.code or country in groups.groups.get(name, ()) for name in names
    )
