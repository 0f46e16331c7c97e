"""What an agent asks its server for, in the words of the contract: tokens, grants, and the end of a task."""

import hashlib
import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from authserver.agent.answers import Delegation, DeviceCode, IssuedToken, Waiting
from authserver.agent.steps import Nonces, Pause, Sending, Steps, Tell, metadata, sent
from authserver.discovery import IssuerUnavailable
from authserver.dpop import ProofKey
from authserver.values import Money

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_DEFERRED = "urn:ietf:params:oauth:grant-type:deferred"
_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_GRANT = "urn:authserver:token-type:delegation-grant"
_PENDING = ("authorization_pending", "slow_down")
_SLOWER_SECONDS = 5  # RFC 8628 §3.5, and the deferred token response


@dataclass(frozen=True, slots=True)
class Action:
    """What the agent is about to do: one action at one resource server (contract §4, `agent_action`).

    `at` is the resource server's identifier; `amount` is the most that may be charged; `merchant` says `id`,
    `category` (ISO 18245) and `country` of who sells, where the resource server is not itself one merchant; `reference`
    is the order, cart or subscription; `datatypes` are the kinds of personal data that are shown or used.
    """

    name: str
    at: str
    amount: Money | None = None
    merchant: Mapping[str, str] | None = None
    reference: str | None = None
    datatypes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The details as they are sent."""
        said: dict[str, object] = {
            "type": "agent_action",
            "actions": [self.name],
            "locations": [self.at],
            "amount": self.amount and self.amount.to_json(),
            "merchant": self.merchant and dict(self.merchant),
            "datatypes": list(self.datatypes) or None,
            "reference": self.reference,
        }
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A token that is asked for: the grant, the details, and what else the request says."""

    grant: str = field(repr=False)
    details: Mapping[str, object]
    resource: str | None = None
    task_id: str | None = None
    idempotency_key: str | None = None
    key: ProofKey | None = field(default=None, repr=False)
    waits: bool = False
    repeats: bool = False

    def form(self, **more: str | None) -> dict[str, str]:
        """The form of contract §6, without the assertion."""
        said: dict[str, str | None] = {
            "grant_type": _EXCHANGE,
            "subject_token": self.grant,
            "subject_token_type": _GRANT,
            "authorization_details": json.dumps([dict(self.details)]),
            "resource": self.resource,
            "task_id": self.task_id,
            "completion_mode": "deferred" if self.waits else None,
            **more,
        }
        return {name: value for name, value in said.items() if value is not None}


def exchange(wanted: Wanted, nonces: Nonces) -> Steps[IssuedToken | Waiting]:
    """A token, or what to wait for. Raises `ExchangeRefused`, `IssuerUnavailable`."""
    answer = yield from sent((yield from _exchanging(wanted, wanted.form())), nonces)
    if wanted.waits and answer.error == "authorization_pending":
        return answer.waiting(wanted.key)
    return answer.issued(wanted.key)


def hand_on(wanted: Wanted, to: str, nonces: Nonces) -> Steps[Delegation]:
    """A grant for another agent (contract §9). Raises `ExchangeRefused`, `IssuerUnavailable`."""
    form = wanted.form(requested_token_type=_GRANT, requested_actor=to)
    answer = yield from sent((yield from _exchanging(wanted, form)), nonces)
    return answer.delegation()


def _exchanging(wanted: Wanted, form: Mapping[str, str]) -> Steps[Sending]:
    url = (yield from metadata()).token_endpoint
    key = wanted.idempotency_key
    headers = {} if key is None else {"Idempotency-Key": key}
    # INVARIANT: what may move money is sent again only under one key
    # (test_a_lost_answer_costs_nothing_twice).
    repeats = wanted.repeats and key is not None
    return Sending(url, form, headers, wanted.key, is_exchange=True, repeats=repeats)


def collect(waiting: Waiting, nonces: Nonces, progress: object = None) -> Steps[IssuedToken]:
    """The token, as soon as somebody has approved (contract §8); the same again where its answer was lost.

    Raises `ExchangeRefused`: `access_denied` where they refused, `expired_token` where nobody answered in time.
    """
    interval = waiting.interval
    form = {"grant_type": _DEFERRED, "deferral_code": waiting.deferral_code}
    while True:
        if progress is not None:
            yield Tell(waiting, progress)
        url = (yield from metadata()).token_endpoint
        sending = Sending(url, form, key=waiting.key, is_exchange=True, repeats=True)
        answer = yield from sent(sending, nonces)
        if answer.error not in _PENDING:
            return answer.issued(waiting.key)
        interval += _SLOWER_SECONDS if answer.error == "slow_down" else 0
        yield Pause(interval)


def token(wanted: Wanted, nonces: Nonces, progress: object) -> Steps[IssuedToken]:
    """The token, through an approval where one is due and `progress` is not None. Raises as the two others do."""
    outcome = yield from exchange(wanted, nonces)
    if isinstance(outcome, Waiting):
        return (yield from collect(outcome, nonces, progress))
    return outcome


def complete(task_id: str, client_id: str | None) -> Steps[int]:
    """Say that a task is over; how many live tokens ended. Raises `ExchangeRefused`, `IssuerUnavailable`."""
    template = (yield from metadata()).task_completion
    if template is None:
        raise IssuerUnavailable("the server has no end of tasks")
    url = template.replace("{task_id}", quote(task_id, safe=""))
    answer = yield from sent(Sending(url, {}, client_id=client_id, repeats=True), Nonces())
    return answer.ended_tokens()


# --- how a person is asked ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AskedByBrowser:
    """A pushed request: the address for the person's browser, and what the agent keeps to itself."""

    url: str
    redirect_uri: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)


def push(
    details: Mapping[str, object], redirect_uri: str, client_id: str, key: ProofKey
) -> Steps[AskedByBrowser]:
    """Push the request (RFC 9126), so that the browser gets nothing but its reference.

    Who comes with the code must have `key` (RFC 9449 §10): a code that was stolen on its way is worth nothing.
    Raises `ExchangeRefused`, `IssuerUnavailable`.
    """
    said = yield from metadata()
    if said.par_endpoint is None or said.authorization_endpoint is None:
        raise IssuerUnavailable("the server asks nobody by browser")
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
    form = {
        "response_type": "code",
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": _challenge_of(verifier),
        "code_challenge_method": "S256",
        "authorization_details": json.dumps([dict(details)]),
        "dpop_jkt": key.jkt,
    }
    # A request that nobody answers expires by itself, so it may be pushed twice.
    sending = Sending(said.par_endpoint, form, client_id=client_id, repeats=True)
    request_uri = (yield from sent(sending, Nonces())).request_uri()
    query = urlencode({"client_id": client_id, "request_uri": request_uri})
    return AskedByBrowser(f"{said.authorization_endpoint}?{query}", redirect_uri, state, verifier)


def claim(
    asked: AskedByBrowser, code: str, client_id: str, key: ProofKey, nonces: Nonces
) -> Steps[Delegation]:
    """Come for the grant. Raises `ExchangeRefused`, `IssuerUnavailable`.

    Sent once, but for the server's nonce, which is asked for before anything is decided: a code that comes twice ends
    what it gave (RFC 6749 §4.1.2).
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": asked.redirect_uri,
        "code_verifier": asked.verifier,
    }
    url = (yield from metadata()).token_endpoint
    return (yield from sent(Sending(url, form, key=key, client_id=client_id), nonces)).delegation()


def by_device(details: Mapping[str, object], client_id: str, show: object) -> Steps[Delegation]:
    """Ask with a code that the person types elsewhere (RFC 8628); `show` is called with the `DeviceCode`.

    Raises `ExchangeRefused`: `access_denied` where they said no, `expired_token` where nobody answered in time.
    """
    url = (yield from metadata()).device_endpoint
    if url is None:
        raise IssuerUnavailable("the server asks nobody by device")
    form = {"authorization_details": json.dumps([dict(details)])}
    code = (yield from sent(Sending(url, form, client_id=client_id, repeats=True), Nonces())).device_code()
    yield Tell(code, show)
    return (yield from _poll(code, client_id))


def _poll(code: DeviceCode, client_id: str) -> Steps[Delegation]:
    url, interval = (yield from metadata()).token_endpoint, code.interval
    form = {"grant_type": _DEVICE, "device_code": code.device_code}
    while True:
        answer = yield from sent(Sending(url, form, client_id=client_id), Nonces())
        if answer.error not in _PENDING:
            return answer.delegation()
        interval += _SLOWER_SECONDS if answer.error == "slow_down" else 0
        yield Pause(interval)


def _challenge_of(verifier: str) -> str:
    # RFC 7636 §4.2
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return urlsafe_b64encode(digest).decode("ascii").rstrip("=")


def details_of(action: Action | Mapping[str, object]) -> Mapping[str, object]:
    """What is sent for an action, or for the details that a resource server named."""
    return action.to_json() if isinstance(action, Action) else action
