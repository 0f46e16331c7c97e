"""What a handler is about to do, held against what a token allows."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from authserver.errors import Violation
from authserver.resource_server.rejections import NotAllowed
from authserver.values import Money

if TYPE_CHECKING:
    from authserver.resource_server.action_token import ActionToken, Merchant

_FACTS = ("id", "category", "country")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that is about to happen.

    `amount` is what will really be charged, `merchant` who really sells, `reference` the order it is for, `datatypes`
    what will be shown or used. What is left out is not compared.
    """

    action: str
    amount: Money | None = None
    merchant: "Merchant | None" = None
    reference: str | None = None
    datatypes: tuple[str, ...] = ()

    def check(self, token: "ActionToken") -> None:
        """Go on only if the token is for just this. Raises `NotAllowed` with every difference and what would do."""
        violations = tuple(self._differences(token))
        if violations:
            refused = NotAllowed(violations).wanting(self.details(token.audience), self.scope)
            raise refused.presented_by(token.scheme)

    @property
    def scope(self) -> str | None:
        """The action as a scope, where it is all that is compared (RFC 6750 §3, MCP's step-up)."""
        more = (self.amount, self.merchant, self.reference, self.datatypes or None)
        return self.action if all(value is None for value in more) else None

    def details(self, audience: str) -> dict[str, object]:
        """The `agent_action` of a token that would do (contract §4)."""
        said: dict[str, object] = {
            "type": "agent_action",
            "actions": [self.action],
            "locations": [audience],
            "amount": self.amount and self.amount.to_json(),
            "merchant": self.merchant and self.merchant.to_json(),
            "datatypes": list(self.datatypes),
            "reference": self.reference,
        }
        return {name: value for name, value in said.items() if value}

    def _differences(self, token: "ActionToken") -> Iterator[Violation]:
        if self.action != token.action:
            yield Violation("actions", self.action, token.action)
        if self.amount is not None and not _covers(token.amount, self.amount):
            yield Violation("amount", self.amount.to_json(), token.amount and token.amount.to_json())
        if self.merchant is not None:
            yield from _other_facts(self.merchant, token.merchant)
        if self.reference is not None and self.reference != token.reference:
            yield Violation("reference", self.reference, token.reference)
        if missing := _missing(self.datatypes, token.visible):
            yield Violation("datatypes", missing, list(token.datatypes))


def _covers(most: Money | None, amount: Money) -> bool:
    return most is not None and most.currency == amount.currency and most.minor >= amount.minor


def _other_facts(actual: "Merchant", granted: "Merchant | None") -> Iterator[Violation]:
    """Every fact of the seller that the token does not say, or says otherwise; a name decides nothing."""
    said, had = actual.to_json(), {} if granted is None else granted.to_json()
    for fact in _FACTS:
        if fact in said and said[fact] != had.get(fact):
            yield Violation(f"merchant.{fact}", said[fact], had.get(fact))


def _missing(needed: Collection[str], visible: frozenset[str]) -> list[str]:
    return sorted(set(needed) - visible)
