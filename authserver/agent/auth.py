"""The right token for each request of an `httpx` client, by what the resource server says would do.

A request goes out with the token that is known to do, or with none. What comes back, 401 or 403, names the
`authorization_details` that would do; the agent asks its own server for just that, and sends the request again.
"""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias, cast
from urllib.parse import urlsplit

import httpx

from authserver.agent.answers import IssuedToken, Waiting
from authserver.agent.asking import Action
from authserver.agent.challenges import Challenge, is_place_of
from authserver.discovery import ServerMetadata
from authserver.values import Money, NotAValue

if TYPE_CHECKING:
    from authserver.agent.agent import Task
    from authserver.agent.asynchronous import AsyncTask

_MOST_ROUNDS = 6  # without a token, a harmless one, its nonce, what is named, its nonce, and one to spare
_EARLIER = timedelta(seconds=10)  # a token is not shown in its last moments


class NotAgreed(Exception):
    """A resource server named an action that the program has not agreed to; `details` is what it named."""

    def __init__(self, reason: str, details: Mapping[str, object]) -> None:
        super().__init__(reason)
        self.details = details


@dataclass(frozen=True, slots=True)
class Try:
    """Send the request with these headers. The outcome is the response, its body read where it is 401 or 403."""

    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Get:
    """A token for that. The outcome is an `IssuedToken`."""

    details: Mapping[str, object]
    bound: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """What the authorization server says of itself. The outcome is `ServerMetadata`."""


_Step: TypeAlias = Try | Get | Ask
_Outcome: TypeAlias = httpx.Response | IssuedToken | ServerMetadata | None


@dataclass(frozen=True, slots=True)
class _Kept:
    token: IssuedToken
    until: datetime


class TokenFlow:
    """Which token goes with which request. One for each task; threads may share it, or one event loop."""

    def __init__(
        self,
        task: "Task | AsyncTask",
        *agreed: str | Action,
        at_most: Money | None = None,
        waits: Callable[[Waiting], object] | None = None,
    ) -> None:
        """`agreed` is what may be got: names of actions, as a resource server may ask for them, or one exact `Action`.

        A resource server's word never makes the agent pay more than `at_most` in one request; without it, no amount at
        all. An exact `Action` is got as it is, and nothing instead of it. `waits` is as in `Agent.token_for`.
        """
        self.task, self.waits = task, waits
        self._names = frozenset(name for name in agreed if isinstance(name, str))
        self._exact = next((action for action in agreed if isinstance(action, Action)), None)
        self._at_most = at_most
        self._kept: dict[str, _Kept] = {}
        self._nonces: dict[str, str] = {}
        self._takes_dpop: dict[str, bool] = {}

    def steps(self, method: str, url: str) -> Generator[_Step, _Outcome, None]:
        """What is done for one request; ends with the response that its caller gets."""
        origin, last = _origin(url), None
        token = self._known(method, url)
        if token is None and self._exact is not None and origin in self._takes_dpop:
            last = self._exactly(self._exact, url)
            token = yield from self._get(last, origin)
        for _ in range(_MOST_ROUNDS):
            response = cast(httpx.Response, (yield Try(self._headers(token, method, url, origin))))
            challenge = self._challenge(response, origin)
            if challenge is None:
                yield from self._remember(method, url, token, response)
                return
            if challenge.error == "use_dpop_nonce":
                continue
            self._forget(token)
            named = self._named(challenge, url)
            if named is None or named == last:
                return
            harmless = (yield from self._harmless(named)) if token is None else None
            last = None if harmless else named
            token = yield from self._get(harmless or named, origin)

    def _get(self, details: Mapping[str, object], origin: str) -> Generator[_Step, _Outcome, IssuedToken]:
        return cast(IssuedToken, (yield Get(details, bound=self._takes_dpop.get(origin, False))))

    def _headers(self, token: IssuedToken | None, method: str, url: str, origin: str) -> dict[str, str]:
        if token is None:
            return {}
        now = self.task.agent.core.clock.now()
        return token.headers(method, url, now=now, nonce=self._nonces.get(origin))

    def _challenge(self, response: httpx.Response, origin: str) -> Challenge | None:
        # What a redirect led to is another's word, and not for this token.
        if _origin(str(response.request.url)) != origin:
            return None
        if (nonce := response.headers.get("DPoP-Nonce")) is not None:
            self._nonces[origin] = nonce
        if response.status_code not in (401, 403):
            return None
        said = response.headers.get_list("WWW-Authenticate")
        challenge = Challenge.parse(response.status_code, said, response.content)
        if challenge is not None and challenge.error is None:
            self._takes_dpop[origin] = "DPoP" in challenge.schemes  # RFC 9449 §7.1: all that it takes
        return challenge

    # --- what is got -------------------------------------------------------------------------------------------

    def _named(self, challenge: Challenge, url: str) -> Mapping[str, object] | None:
        """What to get a token for; None where the response is for the caller to look at. Raises `NotAgreed`."""
        if self._exact is not None:
            return self._exactly(self._exact, url) if challenge.status == 401 else None
        details = challenge.details
        if details is None:
            return None
        locations, actions = details.get("locations"), details.get("actions")
        place = locations[0] if isinstance(locations, list) and len(locations) == 1 else None
        if not is_place_of(place, url):
            raise NotAgreed("the resource server names another place", details)
        name = actions[0] if isinstance(actions, list) and len(actions) == 1 else None
        if not isinstance(name, str) or name not in self._names:
            raise NotAgreed("the resource server names an action that was not agreed to", details)
        self._check_amount(details)
        return details

    def _check_amount(self, details: Mapping[str, object]) -> None:
        # INVARIANT: a resource server's word alone moves no money
        # (test_a_shop_cannot_ask_for_more_than_the_program_agreed_to).
        if "amount" not in details:
            return
        amount = details["amount"]
        try:
            said = amount if isinstance(amount, dict) else {}
            asked = Money.parse(said.get("currency"), said.get("value"))
        except NotAValue as error:
            raise NotAgreed("the resource server names no amount that can be read", details) from error
        most = self._at_most
        if most is None or asked.currency != most.currency or asked.minor > most.minor:
            raise NotAgreed("the resource server names more than was agreed to", details)

    def _exactly(self, action: Action, url: str) -> Mapping[str, object]:
        details = action.to_json()
        if not is_place_of(action.at, url):
            raise NotAgreed("the action is for another place than the request", details)
        return details

    def _harmless(
        self, named: Mapping[str, object]
    ) -> Generator[_Step, _Outcome, Mapping[str, object] | None]:
        """A token of the same place that needs nothing, where what was named needs more than strangers are told.

        A resource server says what it looks up, such as an order's total, only to who holds some good token of its own.
        """
        if self._exact is not None:
            return None
        [name], scopes = cast("list[str]", named["actions"]), cast(ServerMetadata, (yield Ask())).scopes
        if name in scopes:
            return None
        known = sorted(self._names & scopes & self.task.delegation.actions)
        return {**_bare(named), "actions": known[:1]} if known else None

    # --- what is kept ------------------------------------------------------------------------------------------

    def _known(self, method: str, url: str) -> IssuedToken | None:
        kept = self._kept.get(_address(method, url))
        if kept is None or self.task.agent.core.clock.now() >= kept.until:
            return None
        return kept.token

    def _remember(
        self, method: str, url: str, token: IssuedToken | None, response: httpx.Response
    ) -> Generator[_Step, _Outcome, None]:
        address = _address(method, url)
        if token is None or response.is_error or self._known(method, url) is not None:
            return
        name = cast("list[str]", token.action["actions"])[0]
        # Only what needs nothing serves again for whatever comes: all else was for that one request.
        if name in cast(ServerMetadata, (yield Ask())).scopes:
            now, lasts = self.task.agent.core.clock.now(), timedelta(seconds=token.expires_in) - _EARLIER
            # An agent may go to more addresses than anybody counts: what has ended is not kept.
            standing = {at: kept for at, kept in self._kept.items() if now < kept.until}
            self._kept = standing | {address: _Kept(token, now + lasts)}

    def _forget(self, token: IssuedToken | None) -> None:
        self._kept = {address: kept for address, kept in self._kept.items() if kept.token is not token}


class ActionAuth(TokenFlow, httpx.Auth):
    """`httpx.Client(auth=task.auth("catalog.search", …))`: each request gets its token; see `TokenFlow`.

    What the authorization server refuses is raised out of the request: `ExchangeRefused` with all violations.
    """

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """For `httpx.Client`; the task is an `Agent`'s."""
        task = cast("Task", self.task)
        request.read()  # a body that is sent once cannot be sent again
        steps, outcome = self.steps(request.method, str(request.url)), cast(_Outcome, None)
        while (step := next_step(steps, outcome)) is not None:
            match step:
                case Ask():
                    outcome = task.agent.core.issuer.metadata()
                case Get():
                    outcome = task.token_for(step.details, bound=step.bound, waits=self.waits)
                case Try():
                    response = yield with_headers(request, step.headers)
                    if response.status_code in (401, 403):
                        response.read()
                    outcome = response

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """For `httpx.AsyncClient`; the task is an `AsyncAgent`'s."""
        task = cast("AsyncTask", self.task)
        await request.aread()
        steps, outcome = self.steps(request.method, str(request.url)), cast(_Outcome, None)
        while (step := next_step(steps, outcome)) is not None:
            match step:
                case Ask():
                    outcome = await task.agent.metadata()
                case Get():
                    outcome = await task.token_for(step.details, bound=step.bound, waits=self.waits)
                case Try():
                    response = yield with_headers(request, step.headers)
                    if response.status_code in (401, 403):
                        await response.aread()
                    outcome = response


def next_step(steps: Generator[_Step, _Outcome, None], outcome: _Outcome) -> _Step | None:
    """The next of the steps, or None after the last."""
    try:
        return steps.send(outcome)
    except StopIteration:
        return None


def with_headers(request: httpx.Request, headers: Mapping[str, str]) -> httpx.Request:
    """The request with these two headers, and no others from before."""
    for name in ("Authorization", "DPoP"):
        request.headers.pop(name, None)
    request.headers.update(headers)
    return request


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _address(method: str, url: str) -> str:
    return f"{method} {url.partition('?')[0]}"


def _bare(details: Mapping[str, object]) -> dict[str, object]:
    return {"type": "agent_action", "locations": details["locations"]}
