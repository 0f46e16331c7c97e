"""An action token as a resource server sees it: what may happen, once, here, and for whom."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from authserver.discovery import DatatypeTree
from authserver.jose import LEEWAY, TokenRefused, numeric_date, single_audience, text_claim
from authserver.resource_server.exposure import everything_in, exposed
from authserver.resource_server.requirement import Requirement
from authserver.values import Country, MerchantCategory, Money, NotAValue

_LONGEST = 2_048
_NO_FIELDS: Mapping[str, str] = {}


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
class StatusReference:
    """Where it stands whether a token was ended: the list, and the place in it (draft-ietf-oauth-status-list §6)."""

    uri: str
    index: int


@dataclass(frozen=True, slots=True)
class ActionToken:
    """A token whose signature and claims are good: one action, at this resource server, until `expires_at` (UTC).

    `amount` is the most that may be charged. `subject` and `grant_id` are names that only this resource server knows
    the user and the delegation by; `jti` names the action. `visible` are the `datatypes` with all that they contain.
    `jkt` is the thumbprint of the agent's key, for a token that is bound to one; `text` the token itself.
    """

    action: str
    amount: Money | None
    merchant: Merchant | None
    datatypes: tuple[str, ...]
    visible: frozenset[str]
    reference: str | None
    subject: str
    audience: str
    client_id: str
    actor: Actor
    grant_id: str
    task_id: str | None
    jti: str
    issued_at: datetime
    expires_at: datetime
    jkt: str | None
    status: StatusReference | None
    contains: DatatypeTree = field(repr=False, compare=False)
    text: str = field(repr=False, compare=False)

    @property
    def scheme(self) -> str:
        """How it must be presented: `DPoP` or `Bearer`."""
        return "Bearer" if self.jkt is None else "DPoP"

    @property
    def is_harmless(self) -> bool:
        """Whether it is for an action alone: no amount, no seller, no data, no order of anybody's."""
        return self.amount is None and self.merchant is None and self.reference is None and not self.datatypes

    def require(
        self,
        action: str,
        *,
        amount: Money | None = None,
        merchant: Merchant | None = None,
        reference: str | None = None,
        datatypes: Collection[str] = (),
    ) -> None:
        """Go on only if this token is for what is about to happen; see `Requirement`.

        Raises `NotAllowed` with every difference.
        """
        Requirement(action, amount, merchant, reference, tuple(datatypes)).check(self)

    def expose(
        self, record: Mapping[str, object], fields: Mapping[str, str] = _NO_FIELDS
    ) -> dict[str, object]:
        """What of a person's `record` this token lets its holder see.

        A field is kept where the token carries its data type, or one that contains it. The data type is the field's
        name, unless `fields` says another: `{"mail": "email"}`.
        """
        return exposed(record, self.visible, self.contains, fields)


def read_action_token(
    claims: Mapping[str, object],
    *,
    issuer: str,
    audience: str,
    now: datetime,
    contains: DatatypeTree,
    text: str,
) -> ActionToken:
    """Check the claims of a token whose signature is good (RFC 9068 §4, contract §6).

    `contains` says which kind of data contains which. Raises `jose.TokenRefused` with the claim's name.
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
    try:
        details = _single_action(claims, audience)
        amount, datatypes = details.get("amount"), _texts(details, "datatypes")
        return ActionToken(
            action=_action_name(details),
            amount=None if amount is None else money_of(amount),
            merchant=Merchant.parse(details["merchant"]) if "merchant" in details else None,
            datatypes=datatypes,
            visible=everything_in(datatypes, contains),
            reference=_text(details, "reference"),
            subject=_required(claims, "sub"),
            audience=audience,
            client_id=_required(claims, "client_id"),
            actor=_actor(claims),
            grant_id=_required(claims, "grant_id"),
            task_id=_text(claims, "task_id"),
            jti=_required(claims, "jti"),
            issued_at=issued_at,
            expires_at=expires_at,
            jkt=_thumbprint(claims),
            status=_status(claims),
            contains=contains,
            text=text,
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


def _thumbprint(claims: Mapping[str, object]) -> str | None:
    # RFC 7800 §3.1: whatever else a token is bound by, it is not to be taken without looking at that.
    if "cnf" not in claims:
        return None
    confirmed = claims["cnf"]
    if not isinstance(confirmed, dict) or confirmed.keys() != {"jkt"}:
        raise TokenRefused("token.cnf")
    return _required(confirmed, "jkt")


def _status(claims: Mapping[str, object]) -> StatusReference | None:
    if "status" not in claims:
        return None
    status = claims["status"]
    place = status.get("status_list") if isinstance(status, dict) else None
    uri, index = (place.get("uri"), place.get("idx")) if isinstance(place, dict) else (None, None)
    if not isinstance(uri, str) or type(index) is not int or index < 0:
        raise TokenRefused("token.status")
    return StatusReference(uri, index)


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
