"""The agent comes for what a person allowed: with an authorization code, or with the code of its device."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from authserver import consent, dpop
from authserver.actors import replay
from authserver.actors.agents import Agent
from authserver.audit.events import Record
from authserver.consent import Granted
from authserver.delegations import requests
from authserver.delegations.records import DelegationRecord, load_chain
from authserver.delegations.requests import AuthorizationRequest, ToBrowser, ToDevice
from authserver.delegations.standing import ending
from authserver.errors import Refusal
from authserver.revoke import Target, revoke
from authserver.services import Services

_SLOWER = 5  # seconds more for each time that a device asks too fast (RFC 8628 §3.5)


@dataclass(frozen=True, slots=True)
class CodeClaim:
    """What the agent brings with its code, unverified."""

    code: str = field(repr=False)
    redirect_uri: str | None
    code_verifier: str = field(repr=False)
    proof: dpop.Proof | None


@dataclass(frozen=True, slots=True)
class _Claimed:
    """What a person allowed, and the request by which they did."""

    link: DelegationRecord
    request: AuthorizationRequest

    def granted(self, services: Services, now: datetime) -> Granted:
        """The grant, which says when and how the person had signed in (RFC 9470 §6.2)."""
        asked = self.request
        return consent.signed(services, self.link, now, asked.authenticated_at, asked.acr)


class _UsedTwice(Exception):
    """A code came again; what it gave must end, in a transaction of its own."""

    def __init__(self, delegation_id: str | None) -> None:
        super().__init__(delegation_id)
        self.delegation_id = delegation_id


def claim_by_code(
    services: Services, claim: CodeClaim, caller: Agent, record: Record, now: datetime
) -> Granted:
    """Exchange an authorization code for its grant, once (RFC 6749 §4.1.3, RFC 7636 §4.6). Raises `Refusal`."""

    def write(connection: Connection) -> _Claimed:
        request = requests.find_by_code(connection, claim.code, services.stored)
        if request is None or not isinstance(request.way, ToBrowser) or request.client_id != caller.client_id:
            raise _no_grant("the code is not one of this client", "code.unknown")
        _about(record, request)
        if request.state == "used":
            raise _UsedTwice(request.delegation_id)
        _same_browser(request.way, claim)
        if claim.proof is not None:
            _use_up(connection, claim.proof)
        return _claimed(services, connection, request, record, now)

    try:
        claimed = services.database.write(write)
    except _UsedTwice as twice:
        raise _taken_back(services, twice.delegation_id, "the code was used before", now) from twice
    return claimed.granted(services, now)


def claim_by_device(
    services: Services, unverified_code: str, caller: Agent, record: Record, now: datetime
) -> Granted:
    """Exchange a device code for its grant, once there is an answer (RFC 8628 §3.4). Raises `Refusal`."""

    def write(connection: Connection) -> _Claimed | Refusal:
        request = requests.find_by_handle(connection, unverified_code, services.stored)
        if request is None or not isinstance(request.way, ToDevice) or request.client_id != caller.client_id:
            raise _no_grant("the device_code is not one of this client", "device_code.unknown")
        _about(record, request)
        if request.state == "used":
            raise _UsedTwice(request.delegation_id)
        if request.state == "denied":
            raise Refusal("access_denied", "the user said no", rule="device_code.denied")
        if now >= request.expires_at:
            raise Refusal("expired_token", "the device_code has expired", rule="device_code.expired")
        if request.state == "waiting":
            return _wait(connection, request, now)
        return _claimed(services, connection, request, record, now)

    try:
        found = services.database.write(write)
    except _UsedTwice as twice:
        raise _taken_back(services, twice.delegation_id, "the device_code was used before", now) from twice
    if isinstance(found, Refusal):
        raise found
    return found.granted(services, now)


def _wait(connection: Connection, request: AuthorizationRequest, now: datetime) -> Refusal:
    """Not yet; how fast it asks is written down, so this refusal must not undo the transaction."""
    early = request.polled_at is not None and (now - request.polled_at).total_seconds() < request.interval
    requests.polled(connection, request.id, request.interval + (_SLOWER if early else 0), now)
    if early:
        return Refusal("slow_down", "ask less often", rule="device_code.slow_down")
    return Refusal("authorization_pending", "the user has not answered yet", rule="device_code.pending")


def _claimed(
    services: Services, connection: Connection, request: AuthorizationRequest, record: Record, now: datetime
) -> _Claimed:
    if request.state != "allowed" or request.delegation_id is None or now >= request.expires_at:
        raise _no_grant("the code has expired", "code.expired")
    chain = load_chain(connection, request.delegation_id, services.stored)
    ended = None if chain is None else ending(connection, chain, now)
    if chain is None or (ended and ended.rule not in ("delegation.not_yet_valid", "delegation.paused")):
        raise _no_grant("what the user allowed has ended", ended.rule if ended else "delegation.unknown")
    # INVARIANT: one code, one grant (test_A111_a_code_used_by_many_at_once_gives_one_grant).
    if not requests.use(connection, request.id, now):
        raise _UsedTwice(request.delegation_id)
    record.delegation_id, record.rule = request.delegation_id, "permit"
    record.permitted(connection, now)
    return _Claimed(chain.leaf, request)


def _same_browser(way: ToBrowser, claim: CodeClaim) -> None:
    if claim.redirect_uri != way.redirect_uri:
        raise _no_grant("redirect_uri is not that of the authorization request", "code.redirect_uri")
    if not hmac.compare_digest(_challenge_of(claim.code_verifier), way.code_challenge):
        raise _no_grant("code_verifier does not fit the code_challenge", "code.verifier")
    # RFC 9449 §10: who brings the code holds the key that the authorization request named.
    if way.dpop_jkt is not None and (claim.proof is None or claim.proof.jkt != way.dpop_jkt):
        raise Refusal(
            "invalid_dpop_proof", "a DPoP proof of the key in dpop_jkt is due", rule="code.dpop_jkt"
        )


def _challenge_of(unverified_verifier: str) -> str:
    # RFC 7636 §4.2
    digest = hashlib.sha256(unverified_verifier.encode("ascii", "replace")).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


def _use_up(connection: Connection, proof: dpop.Proof) -> None:
    try:
        replay.remember(connection, f"dpop:{proof.jkt}", proof.jti, proof.forget_at)
    except replay.Replayed as error:
        raise Refusal("invalid_dpop_proof", "the DPoP proof was used before", rule="dpop.replayed") from error


def _taken_back(services: Services, delegation_id: str | None, description: str, now: datetime) -> Refusal:
    """RFC 6749 §4.1.2: who uses a code again may have stolen it, or it was stolen from them: what it gave ends."""
    if delegation_id is not None:
        revoke(
            services,
            Target("delegation", delegation_id),
            reason="its code was used twice",
            by="server",
            now=now,
        )
    return _no_grant(description, "code.used_twice")


def _about(record: Record, request: AuthorizationRequest) -> None:
    record.delegation_id = request.delegation_id
    record.data["request"] = request.id


def _no_grant(description: str, rule: str) -> Refusal:
    return Refusal("invalid_grant", description, rule=rule)
