"""Consent: what a user allows an agent becomes a delegation, and the agent gets a grant that names it (contract §5)."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from authserver.accounts import users
from authserver.accounts.users import User
from authserver.actors import agents, resource_servers
from authserver.actors.agents import Agent
from authserver.audit.events import Record
from authserver.db import hold_off_revocations
from authserver.delegations import records
from authserver.delegations.records import DelegationRecord, NewDelegation, load_chain
from authserver.errors import Refusal
from authserver.policy.delegation_details import DelegationDetails
from authserver.policy.reading import ANY
from authserver.services import Services
from authserver.tokens import grants
from authserver.tokens.grants import GrantClaims


@dataclass(frozen=True, slots=True)
class Granted:
    """A recorded delegation and the grant that names it."""

    grant_id: str
    grant: str = field(repr=False)
    details: DelegationDetails


def grant(
    services: Services, *, user: str, agent: str, details: DelegationDetails, by: str, now: datetime
) -> Granted:
    """Record that `user` (name or id) allows `agent` (client_id) what `details` say, and sign the grant.

    `by` is who recorded it (`user`, `operator`). Raises `Refusal` where a party is unknown
    or the details cannot be granted.
    """

    def write(connection: Connection) -> DelegationRecord:
        hold_off_revocations(connection)
        person, client = _user(connection, user), _agent(connection, agent)
        new = NewDelegation(person.user_id, client.client_id, final, final.not_before or now, by)
        return record(services, connection, new, now)

    final = bounded(services, details, now)
    return signed(services, services.database.write(write), now)


def record(services: Services, connection: Connection, new: NewDelegation, now: datetime) -> DelegationRecord:
    """Write a delegation, a root or below another, in the caller's transaction, which holds off revocations.

    The one way to make one: parties are known to be enabled and `details` are `bounded`. Raises `Refusal`.
    """
    _places_exist(connection, new.details)
    delegation_id = records.create(connection, new, services.stored, now)
    event = Record("delegation.created", client_id=new.client_id, delegation_id=delegation_id)
    if new.above is not None:
        event.data["parent"] = new.above.id
    if new.task_id is not None:
        event.data["task_id"] = new.task_id
    event.changed(connection, now, user=new.user_id, by=new.created_by, details=new.details.to_json())
    chain = load_chain(connection, delegation_id, services.stored)
    if chain is None:
        raise LookupError(delegation_id)  # it was written just now
    return chain.leaf


def signed(services: Services, link: DelegationRecord, now: datetime) -> Granted:
    """The grant that names a delegation, for the agent that it is for; signed from its committed row."""
    claims = GrantClaims(
        issuer=services.issuer,
        subject=services.pairwise.user(link.user_id, link.client_id),
        client_id=link.client_id,
        may_act=services.actor(link.trust_domain, link.subject),
        grant_id=link.id,
        issued_at=now,
        expires_at=link.expires_at,
        authorization_details=link.details.to_json(),
    )
    return Granted(link.id, grants.sign(claims, services.signing_keys), link.details)


def bounded(services: Services, details: DelegationDetails, now: datetime) -> DelegationDetails:
    """The details with their beginning. Raises `Refusal` where they are over, too long, or end before they begin."""
    longest = timedelta(days=services.settings.delegations.longest_days)
    if details.expires <= now:
        raise _not_grantable("expires is in the past", "delegation.expires")
    if details.expires > now + longest:
        raise _not_grantable(f"expires is more than {longest.days} days ahead", "delegation.expires")
    if details.not_before is not None and details.not_before >= details.expires:
        raise _not_grantable("not_before is not before expires", "delegation.not_before")
    # Microseconds would make windows that no two parties can agree on.
    return replace(details, not_before=details.not_before or now.replace(microsecond=0))


def _user(connection: Connection, name: str) -> User:
    found = users.find(connection, name)
    if found is None or found.disabled_at is not None:
        raise Refusal("invalid_request", "there is no such enabled user", rule="consent.user")
    return found


def _agent(connection: Connection, client_id: str) -> Agent:
    found = agents.find(connection, client_id)
    if found is None or found.disabled_at is not None:
        raise Refusal("invalid_request", "there is no such enabled agent", rule="consent.agent")
    return found


def _places_exist(connection: Connection, details: DelegationDetails) -> None:
    if details.locations is None or details.locations == ANY:
        return
    for location in details.locations:
        if resource_servers.find_by_identifier(connection, location) is None:
            raise _not_grantable(
                "locations names a resource server that is not registered", "delegation.locations"
            )


def _not_grantable(description: str, rule: str) -> Refusal:
    return Refusal("invalid_authorization_details", description, rule=rule)
