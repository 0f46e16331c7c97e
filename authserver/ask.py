"""An agent asks a person to allow something: a pushed authorization request (RFC 9126), or a device's (RFC 8628)."""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

from sqlalchemy import Connection

from authserver import consent, dpop
from authserver.actors import replay
from authserver.actors.agents import Agent
from authserver.actors.redirect_uris import is_registered
from authserver.audit.events import Record
from authserver.delegations import requests
from authserver.delegations.requests import Change, NewRequest, ToBrowser, ToDevice
from authserver.errors import Refusal, Violation
from authserver.policy.delegation_details import DelegationDetails
from authserver.policy.merging import merged
from authserver.services import Services

REQUEST_URI = "urn:ietf:params:oauth:request_uri:"
# RFC 8628 §6.1: no vowels, so no words; 20^8 codes, and few tries a minute.
_USER_CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for, and what with an existing grant; both are well-formed, and nothing more is known."""

    details: DelegationDetails
    change: Change


@dataclass(frozen=True, slots=True)
class Pushed:
    """The reference of a pushed request; `expires_in` is in seconds."""

    request_uri: str = field(repr=False)
    expires_in: int


@dataclass(frozen=True, slots=True)
class DeviceCodes:
    """What a device polls with, and what the person types. `expires_in` and `interval` are in seconds."""

    device_code: str = field(repr=False)
    user_code: str = field(repr=False)
    expires_in: int
    interval: int


def push(
    services: Services,
    asked: Asked,
    way: ToBrowser,
    proof: dpop.Proof | None,
    caller: Agent,
    record: Record,
    now: datetime,
) -> Pushed:
    """Keep the request for the browser that will bring its `request_uri`. Raises `Refusal`."""
    if not is_registered(way.redirect_uri, caller.redirect_uris):
        raise Refusal("invalid_request", "redirect_uri is not registered", rule="redirect_uri.unregistered")
    handle, lifetime = secrets.token_urlsafe(32), services.settings.authorization.request_lifetime

    def write(connection: Connection) -> None:
        if proof is not None:
            _use_up(connection, proof)
        _record(services, connection, asked, way, caller, record, now, handle=handle, lifetime=lifetime)

    services.database.write(write)
    return Pushed(REQUEST_URI + handle, lifetime)


def ask_by_device(
    services: Services, asked: Asked, way: ToDevice, caller: Agent, record: Record, now: datetime
) -> DeviceCodes:
    """Keep the request for the person who will type its code. Raises `Refusal`."""
    settings = services.settings.authorization
    codes = DeviceCodes(
        secrets.token_urlsafe(32), _new_user_code(), settings.device_lifetime, settings.device_interval
    )

    def write(connection: Connection) -> None:
        record.data |= {"address": way.address}
        _record(
            services,
            connection,
            asked,
            way,
            caller,
            record,
            now,
            handle=codes.device_code,
            user_code=codes.user_code,
            lifetime=codes.expires_in,
        )

    services.database.write(write)
    return codes


def typed_code(unverified: str) -> str:
    """A user code as it may have been typed: in any letter case, with whatever stands between (RFC 8628 §6.1)."""
    letters = "".join(letter for letter in unverified.upper() if letter in _USER_CODE_LETTERS)[:16]
    return f"{letters[:4]}-{letters[4:]}"


def _record(
    services: Services,
    connection: Connection,
    asked: Asked,
    way: ToBrowser | ToDevice,
    caller: Agent,
    record: Record,
    now: datetime,
    *,
    handle: str,
    user_code: str | None = None,
    lifetime: int,
) -> None:
    _grantable(services, connection, asked, caller, now)
    _not_too_many(services, connection, caller, now)
    new = NewRequest(
        client_id=caller.client_id,
        details=asked.details,
        way=way,
        change=asked.change,
        handle=handle,
        user_code=user_code,
        interval=services.settings.authorization.device_interval,
        expires_at=now + timedelta(seconds=lifetime),
    )
    request_id = requests.create(connection, new, services.stored, now)
    record.delegation_id, record.rule = asked.change.grant_id, "permit"
    record.data |= {"request": request_id, "action": asked.change.action, "asked": asked.details.to_json()}
    record.permitted(connection, now)


def _grantable(
    services: Services, connection: Connection, asked: Asked, caller: Agent, now: datetime
) -> None:
    """What could never be granted is refused before a person is troubled with it."""
    if caller.actions is not None:
        beyond = [name for name in asked.details.actions if name not in caller.actions]
        if beyond:
            raise Refusal(
                "invalid_authorization_details",
                "the agent is not registered for these actions",
                rule="actions.unregistered",
                violations=(Violation("actions", beyond, sorted(caller.actions)),),
            )
    consent.bounded(services, asked.details, now)
    consent.places_exist(connection, asked.details)
    if asked.change.grant_id is not None:
        link = consent.changeable(services, connection, asked.change.grant_id, caller.client_id, now).leaf
        consent.same_currency(link, asked.details)
        if asked.change.action == "merge":
            merged(link.details, asked.details)


def _not_too_many(services: Services, connection: Connection, caller: Agent, now: datetime) -> None:
    """RFC 9126 §2.3: what an agent leaves unanswered is bounded, whoever's mistake it is."""
    most = services.settings.authorization.open_for_agent
    waiting, over = requests.waiting_of(connection, caller.client_id, most, now)
    if waiting >= most:
        seconds = 1 if over is None else max(1, ceil((over - now).total_seconds()))
        raise Refusal(
            "temporarily_unavailable",
            "too many requests of this client wait for an answer",
            rule="authorization.too_many",
            status=429,
            headers={"Retry-After": str(seconds)},
        )


def _use_up(connection: Connection, proof: dpop.Proof) -> None:
    try:
        replay.remember(connection, f"dpop:{proof.jkt}", proof.jti, proof.forget_at)
    except replay.Replayed as error:
        raise Refusal("invalid_dpop_proof", "the DPoP proof was used before", rule="dpop.replayed") from error


def _new_user_code() -> str:
    letters = "".join(secrets.choice(_USER_CODE_LETTERS) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"
