"""Using a token, once, and what becomes of the money then (contract §7): redeem, capture, void, refund."""

import asyncio
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from authserver.discovery import (
    TIMEOUT_SECONDS,
    Issuer,
    IssuerUnavailable,
    json_object,
    text_in,
    violations_in,
)
from authserver.errors import Violation
from authserver.resource_server.action_token import ActionToken, Merchant, money_of
from authserver.resource_server.credentials import (
    Credentials,
    credentials_of,
    header_of,
    parameters_of,
    parameters_of_async,
)
from authserver.values import Money

_DONE = frozenset({200, 201})
_REFUSED = frozenset({400, 404, 409, 422})
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Redemption:
    """What a token was used for. `state` is `authorized`, `captured`, `voided` or `refunded`.

    `amount` is what this step was about; None for an action that has none. `action_id` is the token's `jti`.
    """

    redemption_id: str
    action_id: str
    state: str
    amount: Money | None


class SettlementRefused(Exception):
    """The server said no; what the step was for must not happen.

    `status` is 409 where the token was used before, has ended, or is for less; 404 where it is not this resource
    server's to use. `error` is the problem's name, such as `conflict` or `merchant_facts`, `detail` says it in words.
    `violations` are the limits that were crossed; `voided` where the token is spent by that, and its amount free again.
    """

    def __init__(
        self,
        status: int,
        error: str,
        detail: str,
        violations: tuple[Violation, ...] = (),
        *,
        voided: bool = False,
    ) -> None:
        super().__init__(f"{error}: {detail}")
        self.status = status
        self.error = error
        self.detail = detail
        self.violations = violations
        self.voided = voided


@dataclass(frozen=True, slots=True)
class _Step:
    """One call: where below the server's settlement endpoints, what it says, and the key under which it is repeated."""

    path: str
    body: dict[str, object]
    key: str


class Settlement:
    """Settles at `issuer` as the resource server `client_id`. Threads may share it.

    Each step is asked once more, under the same Idempotency-Key, where no answer came or the server was too busy. Each
    call has a key of its own, so the second use of a token is refused.

    Every step raises `SettlementRefused`, and `IssuerUnavailable` where there is no answer, also where the credentials
    are refused. After `IssuerUnavailable` the step may have happened: the same call with the same `idempotency_key`
    (1 to 128 visible ASCII characters) tells, for a day. It brings the same yes each time, so whoever gives one must
    know by themselves what they have done already.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str | Credentials,
        client_secret: str | None = None,
        *,
        http: httpx.Client | None = None,
    ) -> None:
        """`client_id` and `client_secret` are the `id` and the secret that `resource-servers create` printed; or
        `PrivateKey(…)` or `AsWorkload(…)` stands in place of both.

        Raises `ValueError` where `issuer` is no https URL (http for loopback only).
        """
        self._issuer = Issuer(issuer, http)
        self._credentials = credentials_of(client_id, client_secret)

    def redeem(
        self,
        token: str | ActionToken,
        amount: Money | None = None,
        merchant: Merchant | None = None,
        *,
        capture: bool = True,
        idempotency_key: str | None = None,
    ) -> Redemption:
        """Use a token: what it is for may happen now, once.

        `amount` is what is really charged, at most the token's, which it is where left out. `merchant` is who really
        sells, where this resource server knows better than the token. Without `capture` the amount is authorized
        only, to be captured or voided later.
        """
        return self._settle(_redeem(token, amount, merchant, capture, idempotency_key))

    def capture(
        self, redemption_id: str, amount: Money | None = None, *, idempotency_key: str | None = None
    ) -> Redemption:
        """Take what was authorized, or less: the rest is given back."""
        return self._settle(_later(redemption_id, "capture", amount, idempotency_key))

    def void(self, redemption_id: str, *, idempotency_key: str | None = None) -> Redemption:
        """Give back all that was authorized."""
        return self._settle(_later(redemption_id, "void", None, idempotency_key))

    def refund(
        self, redemption_id: str, amount: Money | None = None, *, idempotency_key: str | None = None
    ) -> Redemption:
        """Give back what was captured, or some of it. The state is `refunded` once nothing of it is left."""
        return self._settle(_later(redemption_id, "refund", amount, idempotency_key))

    def complete_task(self, token: ActionToken) -> int:
        """The job that this token is of is done here: what is still live of it at this resource server ends, and is
        given back. How many tokens that were; it may be said again. What the agent is at elsewhere goes on.

        Raises `ValueError` for a token that is of no task, `SettlementRefused`, `IssuerUnavailable`.
        """
        url = _task_url(self._issuer, token)
        form = {"token": token.text, **parameters_of(self._credentials, self._issuer.identifier)}
        try:
            answer = self._issuer.http.post(url, data=form, auth=header_of(self._credentials))
        except httpx.HTTPError as error:
            raise _unreachable(url, error) from error
        return _ended_tokens(answer, url)

    def _settle(self, step: _Step) -> Redemption:
        url = _url(self._issuer, step)
        return _read(self._answer(url, step), url)

    def _answer(self, url: str, step: _Step) -> httpx.Response:
        try:
            answer = self._ask(url, step)
            if answer.status_code != 503:
                return answer
            time.sleep(_pause(answer.headers.get("Retry-After", "")))
        except httpx.HTTPError:
            pass  # nobody knows whether it arrived; the key makes it safe to ask again
        try:
            return self._ask(url, step)
        except httpx.HTTPError as error:
            raise _unreachable(url, error) from error

    def _ask(self, url: str, step: _Step) -> httpx.Response:
        body = {**step.body, **parameters_of(self._credentials, self._issuer.identifier)}
        headers = {"Idempotency-Key": step.key}
        return self._issuer.http.post(url, json=body, headers=headers, auth=header_of(self._credentials))


class AsyncSettlement:
    """`Settlement` for an event loop: the same steps, the same answers."""

    def __init__(
        self,
        issuer: str,
        client_id: str | Credentials,
        client_secret: str | None = None,
        *,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """See `Settlement`; `http` belongs to one event loop."""
        self._issuer = Issuer(issuer)
        self._credentials = credentials_of(client_id, client_secret)
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT_SECONDS)

    async def redeem(
        self,
        token: str | ActionToken,
        amount: Money | None = None,
        merchant: Merchant | None = None,
        *,
        capture: bool = True,
        idempotency_key: str | None = None,
    ) -> Redemption:
        """See `Settlement.redeem`."""
        return await self._settle(_redeem(token, amount, merchant, capture, idempotency_key))

    async def capture(
        self, redemption_id: str, amount: Money | None = None, *, idempotency_key: str | None = None
    ) -> Redemption:
        """See `Settlement.capture`."""
        return await self._settle(_later(redemption_id, "capture", amount, idempotency_key))

    async def void(self, redemption_id: str, *, idempotency_key: str | None = None) -> Redemption:
        """See `Settlement.void`."""
        return await self._settle(_later(redemption_id, "void", None, idempotency_key))

    async def refund(
        self, redemption_id: str, amount: Money | None = None, *, idempotency_key: str | None = None
    ) -> Redemption:
        """See `Settlement.refund`."""
        return await self._settle(_later(redemption_id, "refund", amount, idempotency_key))

    async def complete_task(self, token: ActionToken) -> int:
        """See `Settlement.complete_task`."""
        url = await asyncio.to_thread(_task_url, self._issuer, token)
        said = await parameters_of_async(self._credentials, self._issuer.identifier)
        try:
            answer = await self._http.post(
                url, data={"token": token.text, **said}, auth=header_of(self._credentials)
            )
        except httpx.HTTPError as error:
            raise _unreachable(url, error) from error
        return _ended_tokens(answer, url)

    async def aclose(self) -> None:
        """End the connections to the server."""
        await self._http.aclose()

    async def _settle(self, step: _Step) -> Redemption:
        url = await asyncio.to_thread(_url, self._issuer, step)  # the metadata may have to be read first
        return _read(await self._answer(url, step), url)

    async def _answer(self, url: str, step: _Step) -> httpx.Response:
        try:
            answer = await self._ask(url, step)
            if answer.status_code != 503:
                return answer
            await asyncio.sleep(_pause(answer.headers.get("Retry-After", "")))
        except httpx.HTTPError:
            pass  # as above
        try:
            return await self._ask(url, step)
        except httpx.HTTPError as error:
            raise _unreachable(url, error) from error

    async def _ask(self, url: str, step: _Step) -> httpx.Response:
        body = {**step.body, **await parameters_of_async(self._credentials, self._issuer.identifier)}
        headers = {"Idempotency-Key": step.key}
        return await self._http.post(url, json=body, headers=headers, auth=header_of(self._credentials))


def _redeem(
    token: str | ActionToken,
    amount: Money | None,
    merchant: Merchant | None,
    capture: bool,
    idempotency_key: str | None,
) -> _Step:
    text = token.text if isinstance(token, ActionToken) else token
    body: dict[str, object] = {"token": text, "capture": capture}
    if merchant is not None:
        body["merchant"] = merchant.to_json()
    return _step("", body, amount, idempotency_key)


def _later(redemption_id: str, verb: str, amount: Money | None, idempotency_key: str | None) -> _Step:
    if not redemption_id.strip("."):  # what is left of it in a path would be another path
        raise ValueError("takes the id of a redemption")
    return _step(f"redemptions/{quote(redemption_id, safe='')}/{verb}", {}, amount, idempotency_key)


def _step(path: str, body: dict[str, object], amount: Money | None, idempotency_key: str | None) -> _Step:
    if amount is not None:
        body["amount"] = amount.to_json()
    return _Step(path, body, secrets.token_urlsafe(16) if idempotency_key is None else idempotency_key)


def _url(issuer: Issuer, step: _Step) -> str:
    endpoint = issuer.metadata().redemption_endpoint
    if endpoint is None:
        raise IssuerUnavailable(f"{issuer.identifier} names no redemption_endpoint")
    return f"{endpoint.rpartition('/')[0]}/{step.path}" if step.path else endpoint


def _task_url(issuer: Issuer, token: ActionToken) -> str:
    if token.task_id is None:
        raise ValueError("takes a token that is of a task")
    template = issuer.metadata().task_completion
    if template is None:
        raise IssuerUnavailable(f"{issuer.identifier} has no end of tasks")
    return template.replace("{task_id}", quote(token.task_id, safe=""))


def _ended_tokens(answer: httpx.Response, url: str) -> int:
    """What came of it: OAuth's own errors, since this is no settlement endpoint."""
    if answer.status_code not in (200, 404):
        raise IssuerUnavailable(f"{url} answered {answer.status_code}")
    said = json_object(answer.content, url)
    if answer.status_code == 404:
        raise SettlementRefused(404, "not_found", "the token is not this resource server's to use")
    tokens = said.get("tokens")
    if type(tokens) is not int:
        raise IssuerUnavailable(f"{url} answered 200 in no known form")
    return tokens


def _read(answer: httpx.Response, url: str) -> Redemption:
    if answer.status_code not in _DONE | _REFUSED:
        raise IssuerUnavailable(f"{url} answered {answer.status_code}")
    said = json_object(answer.content, url)
    try:
        if answer.status_code in _DONE:
            return _redemption(said)
        refused = _refused(said, answer.status_code)
    except (TypeError, ValueError) as error:
        raise IssuerUnavailable(f"{url} answered {answer.status_code} in no known form") from error
    raise refused


def _unreachable(url: str, error: httpx.HTTPError) -> IssuerUnavailable:
    return IssuerUnavailable(f"{url} cannot be reached: {type(error).__name__}")


def _pause(retry_after: str) -> float:
    # RFC 9110 §10.2.3: seconds, or a date, which a server that is back in a moment does not send.
    return min(float(retry_after), _LONGEST_PAUSE_SECONDS) if retry_after.isdecimal() else 1.0


def _redemption(said: Mapping[str, object]) -> Redemption:
    return Redemption(
        redemption_id=text_in(said, "redemption_id"),
        action_id=text_in(said, "action_id"),
        state=text_in(said, "state"),
        amount=money_of(said["amount"]) if "amount" in said else None,
    )


def _refused(said: Mapping[str, object], status: int) -> SettlementRefused:
    return SettlementRefused(
        status,
        # The type is the address of the page about the error; earlier servers said urn:authserver:problem:ERROR.
        re.split("[/:]", text_in(said, "type"))[-1],
        text_in(said, "detail"),
        violations_in(said),
        voided=said.get("voided") is True,
    )
