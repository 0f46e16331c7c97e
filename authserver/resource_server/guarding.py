"""One resource server and its rule for each handler: what must be presented first, and what is answered if not.

The frameworks' own modules (`flask`, `fastapi`, `wsgi`, `asgi`) only carry requests here and answers back.
"""

import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias, TypeVar, cast
from urllib.parse import quote, urlsplit

import httpx

from authserver import strict_json
from authserver.clock import Clock
from authserver.discovery import IssuerUnavailable
from authserver.resource_server.action_token import ActionToken, Merchant
from authserver.resource_server.answers import Answer
from authserver.resource_server.credentials import Credentials, credentials_of
from authserver.resource_server.listening import PUSH, Listener, Transmitter
from authserver.resource_server.metadata import metadata_document, metadata_url
from authserver.resource_server.presented import Presented
from authserver.resource_server.rejections import InvalidToken, NotAllowed, TokenMissing, TokenRejected
from authserver.resource_server.requirement import Requirement
from authserver.resource_server.security_events import EventReceiver
from authserver.resource_server.settlement import AsyncSettlement, Redemption, Settlement, SettlementRefused
from authserver.resource_server.verifier import Verifier
from authserver.values import Money

Value = TypeVar("Value")
Given: TypeAlias = Value | Callable[..., Value] | Callable[..., Awaitable[Value]] | None
Redeem = Literal["capture", "authorize", "never"]

_RETRY_AFTER_SECONDS = 5
# RFC 3986 §3.3: what a path may hold as it is.
_PATH_CHARACTERS = "/:@!$&'()*+,;=~-._"


class RuleIncomplete(Exception):
    """A handler's rule cannot be kept as it is written; the message says what it takes. A mistake of the program."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request: its method, its path as it was sent (without query), and two headers, each as often as it came."""

    method: str
    path: str
    authorization: Sequence[str]
    proofs: Sequence[str]


@dataclass(frozen=True, slots=True)
class Admission:
    """What a handler may go by: the token, and the redemption, where the token was used up for it."""

    token: ActionToken
    redemption: Redemption | None


@dataclass(frozen=True, slots=True)
class Rule:
    """What one handler is about to do; `Requirement` with values, or with functions of the handler's arguments.

    A function takes those of the arguments that it names; `token` is one, the verified `ActionToken`. It runs after the
    token was verified and before it is used up, so what it raises stops the request with nothing spent.
    `redeem` says what becomes of a token that is for one use (contract §4), before the handler runs: `capture` uses it
    up, `authorize` holds its amount for the handler to capture or void, `never` leaves all that to the handler.
    """

    action: str
    amount: Given[Money] = None
    merchant: Given[Merchant] = None
    reference: Given[str] = None
    datatypes: Collection[str] = ()
    redeem: Redeem = "capture"

    def told_to_strangers(self, audience: str) -> dict[str, object]:
        """What would do, as far as it stands in the program: nothing is looked up for who shows no good token."""
        said = Requirement(
            self.action,
            None if callable(self.amount) else self.amount,
            None if callable(self.merchant) else self.merchant,
            None if callable(self.reference) else self.reference,
            tuple(self.datatypes),
        )
        return said.details(audience)

    @property
    def scope(self) -> str | None:
        """See `Requirement.scope`."""
        more = (*self._given(), self.datatypes or None)
        return self.action if all(value is None for value in more) else None

    def requirement(self, arguments: Mapping[str, object]) -> Requirement:
        """What is about to happen with these arguments."""
        return self._with(*(_value(given, arguments) for given in self._given()))

    async def requirement_async(self, arguments: Mapping[str, object]) -> Requirement:
        """The same, where the functions may be coroutines."""
        values = [_value(given, arguments) for given in self._given()]
        return self._with(*[await value if inspect.isawaitable(value) else value for value in values])

    def _given(self) -> tuple[object, object, object]:
        return self.amount, self.merchant, self.reference

    def _with(self, amount: object, merchant: object, reference: object) -> Requirement:
        given = (("amount", amount, Money), ("merchant", merchant, Merchant), ("reference", reference, str))
        for name, value, kind in given:
            if value is None and getattr(self, name) is not None:
                raise RuleIncomplete(f"{self.action}: the function for {name} gave nothing")
            if value is not None and not isinstance(value, kind):
                raise RuleIncomplete(f"{self.action}: {name} takes {kind.__name__}")
        return Requirement(
            self.action,
            cast("Money | None", amount),
            cast("Merchant | None", merchant),
            cast("str | None", reference),
            tuple(self.datatypes),
        )


def _value(given: object, arguments: Mapping[str, object]) -> object:
    if not callable(given):
        return given
    return given(**{name: arguments[name] for name in _parameters(given) if name in arguments})


@lru_cache(maxsize=1_000)
def _parameters(function: Callable[..., object]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


@dataclass(frozen=True, slots=True)
class Push:
    """Where this application takes events that are pushed, if it does, and with which `Authorization` header."""

    path: str | None = None
    authorization: str | None = field(default=None, repr=False)


class _Guarded:
    """What both kinds of resource server share."""

    def __init__(
        self,
        verifier: Verifier,
        base_url: str | None,
        name: str | None,
        scopes: Collection[str],
        known: Credentials | None,
        push: Push,
    ) -> None:
        self.verifier, self.name, self.scopes = verifier, name, tuple(scopes)
        parts = urlsplit(verifier.audience)
        self._base_url = (base_url or f"{parts.scheme}://{parts.netloc}").rstrip("/")
        self._known, self.push = known, push
        self.events = EventReceiver(verifier, push.authorization)

    def listen(self, name: str = "1") -> Listener:
        """Hear what ends as soon as it does, in a thread of its own that asks the server and waits there.

        `name` is this process's, where several serve one identifier: each hears for itself.
        Raises `RuleIncomplete` without credentials.
        """
        listener = Listener(self.verifier, self._transmitter(), name)
        listener.start()
        return listener

    def subscribe(self) -> None:
        """Have the server push what ends to `events_path` of this application, which must be one process.

        Once, when it is up; again, it changes nothing. Raises `IssuerUnavailable`, and `RuleIncomplete`.
        """
        if self.push.path is None:
            raise RuleIncomplete("takes events_path=…, where events are pushed to")
        delivery = {"method": PUSH, "endpoint_url": f"{self._base_url}{self.push.path}"}
        if self.push.authorization is not None:
            delivery["authorization_header"] = self.push.authorization
        self._transmitter().stream("kit: push", delivery)

    def _transmitter(self) -> Transmitter:
        if self._known is None:
            raise RuleIncomplete(
                "takes client_id and client_secret, or other credentials, to ask for events with"
            )
        # A client of its own: a poll waits, and no redemption should wait with it.
        return Transmitter(self.verifier.issuer.identifier, self._known, http=httpx.Client())

    @property
    def metadata_url(self) -> str:
        """Where this resource server's metadata is published (RFC 9728 §3.1)."""
        return metadata_url(self.verifier.audience)

    def metadata(self) -> Answer:
        """The metadata document, which anyone may have."""
        verifier = self.verifier
        document = metadata_document(verifier.issuer.identifier, verifier.audience, self.name, self.scopes)
        return _answer(200, {"Cache-Control": "public, max-age=300"}, document)

    def answer_to(self, error: TokenRejected | IssuerUnavailable) -> Answer:
        """The answer of a request that does not get to its handler."""
        if isinstance(error, TokenRejected):
            return _answer(error.status, error.headers(self.metadata_url), error.to_json())
        body = {"error": "temporarily_unavailable", "error_description": "tokens cannot be checked now"}
        headers = {"Retry-After": str(_RETRY_AFTER_SECONDS), "Cache-Control": "no-store"}
        return _answer(503, headers, body)

    def _presented(self, incoming: Incoming, rule: Rule) -> Presented:
        url = f"{self._base_url}{incoming.path}"
        try:
            return Presented.parse(incoming.authorization, incoming.proofs, method=incoming.method, url=url)
        except TokenMissing as missing:
            missing.wanting(rule.told_to_strangers(self.verifier.audience), rule.scope)
            raise

    def _redeems(self, token: ActionToken, requirement: Requirement, redeem: Redeem, able: bool) -> bool:
        redeemed = self.verifier.issuer.metadata().redeemed_actions
        single_use = not token.is_harmless if redeemed is None else token.action in redeemed
        if single_use and redeem != "never":
            if not able:
                raise RuleIncomplete(
                    f"{token.action}: takes client_id and client_secret, to redeem the token with"
                )
            return True
        if token.amount is not None and requirement.amount is None and redeem != "never":
            raise RuleIncomplete(f"{token.action}: takes amount=…, which the token is to be compared with")
        return False


class ResourceServer(_Guarded):
    """A resource server as `resource-servers create` registered it. One for each process; threads may share it."""

    def __init__(
        self,
        issuer: str,
        identifier: str,
        client_id: str | Credentials | None = None,
        client_secret: str | None = None,
        *,
        verifier: Verifier | None = None,
        name: str | None = None,
        base_url: str | None = None,
        scopes: Collection[str] = (),
        clock: Clock | None = None,
        http: httpx.Client | None = None,
        events_path: str | None = None,
        events_authorization: str | None = None,
    ) -> None:
        """`client_id` and `client_secret` are what was printed; or `PrivateKey(…)` or `AsWorkload(…)` stands in place
        of both. Without them, no token can be redeemed.

        `verifier` is one with stricter settings than the usual. `name` is what people call this resource server.
        `base_url` is the address of the application's `/` as agents know it, where that is not the identifier's host.
        `scopes` are actions for the metadata: those that an agent needs to begin with (RFC 9728 `scopes_supported`).
        `events_path` is where it takes Security Event Tokens, with that `events_authorization` as their header.
        Raises `ValueError` where `issuer` is no https URL (http for loopback only).
        """
        known, push = _credentials(client_id, client_secret), Push(events_path, events_authorization)
        verifier = verifier or Verifier(issuer, identifier, clock=clock, http=http)
        super().__init__(verifier, base_url, name, scopes, known, push)
        self.settlement = Settlement(issuer, known, http=http) if known else None

    def admit(self, incoming: Incoming, rule: Rule, arguments: Mapping[str, object]) -> Admission:
        """Let a request through to its handler, and use its token up where it is for one use.

        Raises `TokenRejected`, `IssuerUnavailable`, and `RuleIncomplete` for a mistake in the rule.
        """
        token = self.verifier.check(self._presented(incoming, rule))
        requirement = rule.requirement({**arguments, "token": token})
        requirement.check(token)
        if not self._redeems(token, requirement, rule.redeem, self.settlement is not None):
            return Admission(token, None)
        settlement = cast(Settlement, self.settlement)
        try:
            capture = rule.redeem == "capture"
            redemption = settlement.redeem(token, requirement.amount, requirement.merchant, capture=capture)
        except SettlementRefused as refused:
            raise _not_redeemed(refused, token, requirement) from refused
        return Admission(token, redemption)


class AsyncResourceServer(_Guarded):
    """`ResourceServer` for an event loop."""

    def __init__(
        self,
        issuer: str,
        identifier: str,
        client_id: str | Credentials | None = None,
        client_secret: str | None = None,
        *,
        verifier: Verifier | None = None,
        name: str | None = None,
        base_url: str | None = None,
        scopes: Collection[str] = (),
        clock: Clock | None = None,
        http: httpx.AsyncClient | None = None,
        events_path: str | None = None,
        events_authorization: str | None = None,
    ) -> None:
        """See `ResourceServer`; `http` is for redemptions."""
        known, push = _credentials(client_id, client_secret), Push(events_path, events_authorization)
        verifier = verifier or Verifier(issuer, identifier, clock=clock)
        super().__init__(verifier, base_url, name, scopes, known, push)
        self.settlement = AsyncSettlement(issuer, known, http=http) if known else None

    async def admit(self, incoming: Incoming, rule: Rule, arguments: Mapping[str, object]) -> Admission:
        """See `ResourceServer.admit`."""
        token = await self.verifier.check_async(self._presented(incoming, rule))
        requirement = await rule.requirement_async({**arguments, "token": token})
        requirement.check(token)
        if not self._redeems(token, requirement, rule.redeem, self.settlement is not None):
            return Admission(token, None)
        settlement = cast(AsyncSettlement, self.settlement)
        try:
            capture = rule.redeem == "capture"
            redemption = await settlement.redeem(
                token, requirement.amount, requirement.merchant, capture=capture
            )
        except SettlementRefused as refused:
            raise _not_redeemed(refused, token, requirement) from refused
        return Admission(token, redemption)


def path_of(decoded: str) -> str:
    """A path as an agent would have sent it, where the server only keeps the decoded one."""
    return quote(decoded, safe=_PATH_CHARACTERS)


def _credentials(client_id: str | Credentials | None, client_secret: str | None) -> Credentials | None:
    return None if client_id is None else credentials_of(client_id, client_secret)


def _not_redeemed(refused: SettlementRefused, token: ActionToken, requirement: Requirement) -> TokenRejected:
    rejected: TokenRejected
    if refused.violations:
        rejected = NotAllowed(refused.violations)
        rejected.wanting(requirement.details(token.audience), requirement.scope)
    else:
        rejected = InvalidToken(f"settlement.{refused.error}", refused.detail)
    return rejected.presented_by(token.scheme)


def _answer(status: int, headers: Mapping[str, str], body: Mapping[str, object]) -> Answer:
    encoded = strict_json.write(dict(body)).encode("ascii")
    return Answer(status, {"Content-Type": "application/json", **headers}, encoded)
