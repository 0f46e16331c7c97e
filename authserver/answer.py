"""A person answers what an agent asked: opens it, allows it or part of it, or says no. One answer, once."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from urllib.parse import urlencode, urlsplit

from sqlalchemy import Connection

from authserver import ask, consent
from authserver.accounts.sessions import Authentication
from authserver.actors import agents
from authserver.actors.agents import Agent
from authserver.approvals import rules
from authserver.audit.events import Record
from authserver.db import Conflict, hold_off_revocations, wait_for_exchanges
from authserver.delegations import requests
from authserver.delegations.records import DelegationRecord
from authserver.delegations.requests import Answer, AuthorizationRequest, ToBrowser
from authserver.errors import Refusal, error_uri
from authserver.policy.choosing import Choice, Preset, chosen
from authserver.policy.delegation_details import DelegationDetails
from authserver.policy.merging import merged
from authserver.services import Services


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that waits for this person: all that the consent page shows.

    `details` are what would be granted as a whole; `standing` is the delegation that would change, if one would.
    """

    request: AuthorizationRequest
    agent: Agent
    details: DelegationDetails
    standing: DelegationRecord | None


@dataclass(frozen=True, slots=True)
class Yes:
    """What a person keeps of what was asked, when they want to be asked, and how they had signed in."""

    choice: Choice
    preset: Preset
    how: Authentication


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a request; `redirect` is where the browser goes, None where a device waits."""

    request: AuthorizationRequest
    allowed: bool
    redirect: str | None = field(repr=False)


def find_pushed(
    services: Services, unverified_client_id: str, unverified_request_uri: str, now: datetime
) -> AuthorizationRequest:
    """The request behind a `request_uri`, which is never fetched (threats A113).

    Raises `Refusal`; nothing is known then about where the browser may be sent.
    """

    def read(connection: Connection) -> AuthorizationRequest:
        handle = unverified_request_uri.removeprefix(ask.REQUEST_URI)
        request = requests.find_by_handle(connection, handle, services.stored)
        if handle == unverified_request_uri or request is None or not isinstance(request.way, ToBrowser):
            raise _unknown("request_uri.unknown")
        if request.client_id != unverified_client_id:
            raise _unknown("request_uri.other_client")
        _waiting(request, now)
        _enabled(connection, request.client_id)
        return request

    return services.database.read(read)


def find_typed(services: Services, unverified_user_code: str, now: datetime) -> AuthorizationRequest:
    """The request of a device, by the code that a person typed. Raises `Refusal`."""

    def read(connection: Connection) -> AuthorizationRequest:
        typed = ask.typed_code(unverified_user_code)
        request = requests.find_by_user_code(connection, typed, services.stored)
        if request is None:
            raise _unknown("user_code.unknown")
        _waiting(request, now)
        _enabled(connection, request.client_id)
        return request

    return services.database.read(read)


def take(
    services: Services, request: AuthorizationRequest, user_id: str, record: Record, now: datetime
) -> None:
    """Let this person be the one who answers. Raises `Refusal` where another is."""

    _about(record, request)
    record.data["user"] = user_id

    def write(connection: Connection) -> None:
        if not requests.open_for(connection, request.id, user_id, now):
            raise _unknown("request.taken")
        if request.user_id is None:
            event = Record("consent.opened", record.client_id, record.delegation_id, data=dict(record.data))
            event.changed(connection, now)

    services.database.write(write)


def opened(services: Services, request_id: str, user_id: str, now: datetime) -> Opened:
    """What this person is asked. Raises `Refusal`: 404 where it is not theirs, 410 where it was answered or is over."""

    def read(connection: Connection) -> Opened:
        request = _mine(services, connection, request_id, user_id)
        _waiting(request, now)
        return _seen(services, connection, request, now)

    return services.database.read(read)


def state_of(services: Services, request_id: str, user_id: str) -> AuthorizationRequest:
    """How far a request of this person has come, answered or not. Raises `Refusal` (404) where it is not theirs."""
    return services.database.read(lambda connection: _mine(services, connection, request_id, user_id))


def allow(
    services: Services,
    request_id: str,
    user_id: str,
    said: Yes,
    record: Record,
    now: datetime,
) -> Answered:
    """Grant what was chosen of it. A second press gets the answer of the first.

    Raises `choosing.NotChosen` where the person must choose again, and `Refusal`.
    """
    code = services.authorization_codes.of(request_id)
    lifetime = timedelta(seconds=services.settings.authorization.code_lifetime)

    def write(connection: Connection) -> AuthorizationRequest:
        request = _mine(services, connection, request_id, user_id)
        _about(record, request)
        if request.state == "allowed" and now < request.expires_at:
            return request
        _waiting(request, now)
        # In this order: a change waits for all exchanges, and holds off revocations as well.
        (hold_off_revocations if request.change.grant_id is None else wait_for_exchanges)(connection)
        seen = _seen(services, connection, request, now)
        details = chosen(seen.details, said.choice, said.preset, services.vocabulary, now)
        link = _granted(services, connection, seen, details, user_id, now)
        by_redirect = isinstance(request.way, ToBrowser)
        expires_at = now + lifetime if by_redirect else request.expires_at
        given = code if by_redirect else None
        answered = Answer("allowed", link.id, given, expires_at, said.how.at, said.how.acr)
        _answer(connection, request, user_id, answered, now)
        record.delegation_id, record.rule = link.id, "permit"
        record.data |= {"user": user_id, "preset": said.preset, "granted": link.details.to_json()}
        record.data |= said.how.to_json()
        record.permitted(connection, now)
        return request

    request = services.database.write(write)
    return Answered(request, True, _redirect(services, request, code=code))


def deny(services: Services, request_id: str, user_id: str, record: Record, now: datetime) -> Answered:
    """Say no. Raises `Refusal`."""

    def write(connection: Connection) -> AuthorizationRequest:
        request = _mine(services, connection, request_id, user_id)
        _about(record, request)
        if request.state != "denied":
            _waiting(request, now)
            _answer(connection, request, user_id, Answer("denied", None, None, request.expires_at), now)
            record.data["user"] = user_id
            denied = Refusal("access_denied", "the user said no", rule="consent.denied")
            record.refused(connection, now, denied)
        return request

    request = services.database.write(write)
    return Answered(request, False, failed(services, request, "access_denied", "the user said no"))


def failed(services: Services, request: AuthorizationRequest, error: str, description: str) -> str | None:
    """Where the browser tells the agent why not (RFC 6749 §4.1.2.1); None where a device waits."""
    page = error_uri(services.issuer, error)
    return _redirect(services, request, error=error, error_description=description, error_uri=page)


def _granted(
    services: Services,
    connection: Connection,
    seen: Opened,
    details: DelegationDetails,
    user_id: str,
    now: datetime,
) -> DelegationRecord:
    if seen.standing is not None:
        by = f"user:{user_id}"
        rules.take_back_all(connection, seen.standing.id, by, now)
        return consent.change(services, connection, seen.standing, details, by, now)
    new = consent.root(
        services, connection, user=user_id, agent=seen.agent.client_id, details=details, by="user", now=now
    )
    return consent.record(services, connection, new, now)


def _seen(services: Services, connection: Connection, request: AuthorizationRequest, now: datetime) -> Opened:
    agent = _enabled(connection, request.client_id)
    if request.change.grant_id is None:
        return Opened(request, agent, request.details, None)
    link = consent.changeable(services, connection, request.change.grant_id, request.client_id, now).leaf
    if link.user_id != request.user_id:
        raise Refusal("invalid_grant_id", "the grant is another person's", rule="grant_id.other_user")
    if request.change.action == "merge":
        return Opened(request, agent, merged(link.details, request.details), link)
    # The windows of its budgets go on from where they began, unless the agent says otherwise.
    begun = replace(request.details, not_before=request.details.not_before or link.not_before)
    return Opened(request, agent, begun, link)


def _answer(
    connection: Connection, request: AuthorizationRequest, user_id: str, said: Answer, now: datetime
) -> None:
    # INVARIANT: one request, one answer (test_a_consent_that_is_sent_twice_is_one_grant).
    if not requests.answer(connection, request.id, user_id, said, now):
        raise Conflict


def _mine(services: Services, connection: Connection, request_id: str, user_id: str) -> AuthorizationRequest:
    request = requests.find(connection, request_id, services.stored)
    if request is None or request.user_id != user_id:
        raise Refusal("not_found", "there is no such request", rule="request.unknown", status=404)
    return request


def _waiting(request: AuthorizationRequest, now: datetime) -> None:
    if request.state != "waiting":
        raise Refusal("invalid_request", "this was answered already", rule="request.answered", status=410)
    if now >= request.expires_at:
        raise Refusal("invalid_request", "this request has expired", rule="request.expired", status=410)


def _enabled(connection: Connection, client_id: str) -> Agent:
    agent = agents.find(connection, client_id)
    if agent is None or agent.disabled_at is not None:
        raise Refusal("unauthorized_client", "this agent is not enabled", rule="request.agent_disabled")
    return agent


def _redirect(services: Services, request: AuthorizationRequest, **parameters: str) -> str | None:
    way = request.way
    if not isinstance(way, ToBrowser):
        return None
    if way.state is not None:
        parameters["state"] = way.state
    parameters["iss"] = services.issuer  # RFC 9207 §2
    # RFC 6749 §3.1.2: a query that the redirect_uri has stays as it is.
    joint = "&" if urlsplit(way.redirect_uri).query else "?"
    return way.redirect_uri.removesuffix("?") + joint + urlencode(parameters)


def _about(record: Record, request: AuthorizationRequest) -> None:
    record.client_id, record.delegation_id = request.client_id, request.change.grant_id
    record.data["request"] = request.id


def _unknown(rule: str) -> Refusal:
    return Refusal("invalid_request", "there is no such request here", rule=rule)
