"""The exchange (RFC 8693) from the agent's side."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import httpx

from authserver.discovery import Issuer, IssuerUnavailable, json_object, text_in, violations_in
from authserver.errors import Violation

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_DEFERRED = "urn:ietf:params:oauth:grant-type:deferred"
_PENDING = "authorization_pending"
_GRANT = "urn:authserver:token-type:delegation-grant"
_JWT = "urn:ietf:params:oauth:token-type:jwt"

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token for one action. `token_type` says how to present it, `expires_in` is in seconds from its receipt.

    `action` is the `agent_action` as granted; it may say more than was asked, such as the seller's registered name.
    """

    access_token: str = field(repr=False)
    token_type: str
    expires_in: int
    action_id: str
    action: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class HandedOn:
    """A delegation grant for another agent, worthless without that agent's own assertion; `grant_id` names it.

    `details` is the `agent_delegation` as granted, `expires_in` is in seconds from its receipt.
    """

    grant: str = field(repr=False)
    grant_id: str
    expires_in: int
    details: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody has to approve first: `collect` comes back with the code until they have.

    `approval_uri` is where they answer, `interval` and `expires_in` are in seconds from its receipt.
    """

    deferral_code: str = field(repr=False)
    approval_uri: str
    interval: int
    expires_in: int


class ExchangeRefused(Exception):
    """The server said no. `error` is the code of RFC 6749, `violations` are all limits that were crossed.

    `status` is the HTTP status; with 503 the same request may be sent again under the same idempotency key.
    """

    def __init__(
        self, error: str, description: str, violations: tuple[Violation, ...] = (), status: int = 400
    ) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.violations = violations
        self.status = status


class AgentClient:
    """One agent at one authorization server. Threads may share it.

    `assertion` gives a workload assertion that is good now, such as the JWT-SVID of the SPIFFE Workload API; it is
    called for each exchange. The server's metadata is read once.
    """

    def __init__(
        self, issuer: str, assertion: Callable[[], str], *, http: httpx.Client | None = None
    ) -> None:
        """Raises `ValueError` where `issuer` is no https URL (http for loopback only)."""
        self._issuer, self._assertion = Issuer(issuer, http), assertion

    def exchange(
        self,
        grant: str,
        action_details: Mapping[str, object],
        resource: str | None = None,
        *,
        idempotency_key: str | None = None,
        task_id: str | None = None,
    ) -> IssuedToken:
        """A token for the one action of `action_details`, an `agent_action` (contract §4), at `resource`.

        `resource` may be left out where the details have `locations`. The same `idempotency_key` with the same request
        gives the same action again, and holds nothing twice.
        Raises `ExchangeRefused`, and `IssuerUnavailable` where there is no answer that can be read.
        """
        form = self._form(grant, action_details, resource=resource, task_id=task_id)
        return _read(*self._post(form, idempotency_key), _issued)

    def hand_on(
        self,
        grant: str,
        to: str,
        delegation_details: Mapping[str, object],
        *,
        idempotency_key: str | None = None,
        task_id: str | None = None,
    ) -> HandedOn:
        """A part of what `grant` allows, for the agent `to`: its client id, or its workload's subject (contract §9).

        `delegation_details` is an `agent_delegation` that is no broader in any member; with `task_id` it is for that
        one task, and ends with it. Raises as `exchange` does; the violations name every member that is broader.
        """
        form = self._form(
            grant, delegation_details, requested_token_type=_GRANT, requested_actor=to, task_id=task_id
        )
        return _read(*self._post(form, idempotency_key), _handed_on)

    def ask(
        self,
        grant: str,
        action_details: Mapping[str, object],
        resource: str | None = None,
        *,
        idempotency_key: str | None = None,
        task_id: str | None = None,
    ) -> IssuedToken | Waiting:
        """The same, ready to wait: where a person has to approve first, what to wait for. Raises as `exchange` does."""
        form = self._form(
            grant, action_details, resource=resource, task_id=task_id, completion_mode="deferred"
        )
        status, body = self._post(form, idempotency_key)
        return _waiting(body) if body.get("error") == _PENDING else _read(status, body, _issued)

    def collect(self, waiting: Waiting, *, sleep: Callable[[float], None] = time.sleep) -> IssuedToken:
        """Wait until somebody has approved, and get the token; the same again where its answer was lost.

        Raises `ExchangeRefused`: `access_denied` where they refused, `expired_token` where nobody answered in time.
        """
        interval = waiting.interval
        while True:
            form = {
                "grant_type": _DEFERRED,
                "deferral_code": waiting.deferral_code,
                "actor_token": self._assertion(),
                "actor_token_type": _JWT,
            }
            status, body = self._post(form, None)
            if body.get("error") not in (_PENDING, "slow_down"):
                return _read(status, body, _issued)
            if body["error"] == "slow_down":
                interval += 5
            sleep(interval)

    def _form(self, grant: str, details: Mapping[str, object], **optional: str | None) -> dict[str, str]:
        form = {
            "grant_type": _EXCHANGE,
            "subject_token": grant,
            "subject_token_type": _GRANT,
            "actor_token": self._assertion(),
            "actor_token_type": _JWT,
            "authorization_details": json.dumps([dict(details)]),
        }
        return form | {name: value for name, value in optional.items() if value is not None}

    def _post(self, form: Mapping[str, str], idempotency_key: str | None) -> tuple[int, Mapping[str, object]]:
        url = self._issuer.metadata().token_endpoint
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else {}
        try:
            answer = self._issuer.http.post(url, data=form, headers=headers)
        except httpx.HTTPError as error:
            raise IssuerUnavailable(f"{url} cannot be reached: {type(error).__name__}") from error
        return answer.status_code, json_object(answer.content, url)


def _read(
    status: int, body: Mapping[str, object], read: Callable[[Mapping[str, object]], _Answer]
) -> _Answer:
    try:
        if status == 200:
            return read(body)
        refused = _refused(body, status)
    except (KeyError, TypeError, ValueError) as error:
        raise IssuerUnavailable(f"the token endpoint answered {status} in no known form") from error
    raise refused


def _waiting(body: Mapping[str, object]) -> Waiting:
    try:
        interval, expires_in = body["interval"], body["expires_in"]
        if type(interval) is not int or type(expires_in) is not int:
            raise TypeError("interval")
        code, uri = text_in(body, "deferral_code"), text_in(body, "approval_uri")
    except (KeyError, TypeError, ValueError) as error:
        raise IssuerUnavailable("the token endpoint answered in no known form") from error
    return Waiting(code, uri, interval, expires_in)


def _expires_in(body: Mapping[str, object]) -> int:
    expires_in = body["expires_in"]
    if type(expires_in) is not int:
        raise TypeError("expires_in")
    return expires_in


def _handed_on(body: Mapping[str, object]) -> HandedOn:
    return HandedOn(
        grant=text_in(body, "access_token"),
        grant_id=text_in(body, "grant_id"),
        expires_in=_expires_in(body),
        details=_single_details(body),
    )


def _issued(body: Mapping[str, object]) -> IssuedToken:
    return IssuedToken(
        access_token=text_in(body, "access_token"),
        token_type=text_in(body, "token_type"),
        expires_in=_expires_in(body),
        action_id=text_in(body, "action_id"),
        action=_single_details(body),
    )


def _single_details(body: Mapping[str, object]) -> Mapping[str, object]:
    details = body["authorization_details"]
    if not isinstance(details, list) or len(details) != 1 or not isinstance(details[0], dict):
        raise TypeError("authorization_details")
    return details[0]


def _refused(body: Mapping[str, object], status: int) -> ExchangeRefused:
    return ExchangeRefused(
        text_in(body, "error"), text_in(body, "error_description"), violations_in(body), status
    )
