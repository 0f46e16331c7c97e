"""An action token as a resource server sees it: what may happen, once, here, and for whom."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from authserver.errors import Violation
from authserver.jose import LEEWAY, TokenRefused, numeric_date, single_audience, text_claim
from authserver.resource_server.rejections import NotAllowed, ProofRequired
from authserver.values import Country, MerchantCategory, Money, NotAValue

_LONGEST = 2_048


@dataclass(frozen=True, slots=True)
class Actor:
    """The workload that acts: `iss` and `sub` of the outermost `act` (RFC 8693 §4.1)."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class Merchant:
    """The seller that a token names, or that really applies at redemption; what is not said is None."""

    id: str | None = None
    category: MerchantCategory | None = None
    country: Country | None = None
    name: str | None = None

    @classmethod
    def parse(cls, unverified: object) -> Self:
        """Read the member `merchant` of an `agent_action`. Raises `NotAValue`."""
        members = _object(unverified)
        category, country = members.get("category"), members.get("country")
        return cls(
            id=_text(members, "id"),
            category=None if category is None else MerchantCategory.parse(category),
            country=None if country is None else Country.parse(country),
            name=_text(members, "name"),
        )

    def to_json(self) -> dict[str, object]:
        """The member as a redemption sends it; what is not said is left out."""
        category, country = self.category and self.category.code, self.country and self.country.code
        said = {"id": self.id, "category": category, "country": country, "name": self.name}
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ActionToken:
    """A token whose signature and claims are good: one action, at this resource server, until `expires_at` (UTC).

    `amount` is the most that may be charged. `subject` and `grant_id` are names that only this resource server knows
    the user and the delegation by; `jti` names the action.
    """

    action: str
    amount: Money | None
    merchant: Merchant | None
    datatypes: tuple[str, ...]
    reference: str | None
    subject: str
    client_id: str
    actor: Actor
    grant_id: str
    jti: str
    issued_at: datetime
    expires_at: datetime

    def require(
        self,
        action: str,
        *,
        amount: Money | None = None,
        reference: str | None = None,
        datatypes: Collection[str] = (),
    ) -> None:
        """Go on only if this token is for what is about to happen.

        `amount` is what will really be charged, `reference` the order it is for, `datatypes` what will be shown or
        used. Raises `NotAllowed` with every difference.
        """
        violations = tuple(self._differences(action, amount, reference, datatypes))
        if violations:
            raise NotAllowed(violations)

    def only_granted(self, record: Mapping[str, object]) -> dict[str, object]:
        """What of a person's `record`, by data type, this token lets its holder see."""
        return {name: record[name] for name in self.datatypes if name in record}

    def _differences(
        self, action: str, amount: Money | None, reference: str | None, datatypes: Collection[str]
    ) -> Iterator[Violation]:
        if action != self.action:
            yield Violation("actions", action, self.action)
        if amount is not None and not self._covers(amount):
            yield Violation("amount", amount.to_json(), self.amount.to_json() if self.amount else None)
        if reference is not None and reference != self.reference:
            yield Violation("reference", reference, self.reference)
        if missing := sorted(set(datatypes) - set(self.datatypes)):
            yield Violation("datatypes", missing, list(self.datatypes))

    def _covers(self, amount: Money) -> bool:
        return (
            self.amount is not None
            and self.amount.currency == amount.currency
            and self.amount.minor >= amount.minor
        )


def read_action_token(
    claims: Mapping[str, object], *, issuer: str, audience: str, now: datetime
) -> ActionToken:
    """Check the claims of a token whose signature is good (RFC 9068 §4, contract §6).

    Raises `jose.TokenRefused` with the claim's name, and `ProofRequired` for a token that is bound to a key.
    """
    if claims.get("iss") != issuer:
        raise TokenRefused("token.iss")
    if single_audience(claims) != audience:
        raise TokenRefused("token.aud")
    expires_at, issued_at = numeric_date(claims, "exp"), numeric_date(claims, "iat")
    if expires_at is None or now >= expires_at:
        raise TokenRefused("token.exp")
    if issued_at is None or now < issued_at - LEEWAY:
        raise TokenRefused("token.iat")  # issued by a clock that was wrong: its end means nothing
    if "cnf" in claims:
        raise ProofRequired(
            "dpop.unchecked", "the token is bound to a key, and DPoP proofs are not checked here"
        )
    try:
        details = _single_action(claims, audience)
        amount = details.get("amount")
        return ActionToken(
            action=_action_name(details),
            amount=None if amount is None else money_of(amount),
            merchant=Merchant.parse(details["merchant"]) if "merchant" in details else None,
            datatypes=_texts(details, "datatypes"),
            reference=_text(details, "reference"),
            subject=_required(claims, "sub"),
            client_id=_required(claims, "client_id"),
            actor=_actor(claims),
            grant_id=_required(claims, "grant_id"),
            jti=_required(claims, "jti"),
            issued_at=issued_at,
            expires_at=expires_at,
        )
    except NotAValue as error:
        raise TokenRefused("token.authorization_details") from error


def money_of(unverified: object) -> Money:
    """Read an amount, `{"currency", "value"}`. Raises `NotAValue`."""
    members = _object(unverified)
    return Money.parse(members.get("currency"), members.get("value"))


def _single_action(claims: Mapping[str, object], audience: str) -> Mapping[str, object]:
    details = _object(_single(claims, "authorization_details"))
    if details.get("type") != "agent_action" or details.get("locations", [audience]) != [audience]:
        raise NotAValue("is for another kind of thing or another place")
    return details


def _action_name(details: Mapping[str, object]) -> str:
    action = _single(details, "actions")
    if not isinstance(action, str):
        raise NotAValue("must be an array of one name", "actions")
    return action


def _actor(claims: Mapping[str, object]) -> Actor:
    # RFC 8693 §4.1: only the outermost actor decides; those nested inside are history.
    act = claims.get("act")
    if not isinstance(act, dict):
        raise TokenRefused("token.act")
    return Actor(_required(act, "iss"), _required(act, "sub"))


def _object(unverified: object) -> Mapping[str, object]:
    if not isinstance(unverified, dict):
        raise NotAValue("must be a JSON object")
    return unverified


def _single(members: Mapping[str, object], name: str) -> object:
    value = members.get(name)
    if not isinstance(value, list) or len(value) != 1:
        raise NotAValue("must be an array of exactly one", name)
    return value[0]


def _texts(members: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = members.get(name, [])
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise NotAValue("must be an array of names", name)
    return tuple(value)


def _text(members: Mapping[str, object], name: str) -> str | None:
    return text_claim(members, name, _LONGEST)


def _required(members: Mapping[str, object], name: str) -> str:
    value = _text(members, name)
    if value is None:
        raise TokenRefused(f"token.{name}")
    return value
