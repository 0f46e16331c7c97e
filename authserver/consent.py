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
from authserver.delegations.records import NewDelegation
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
    final = _bounded(services, details, now)

    def write(connection: Connection) -> tuple[str, User, Agent]:
        hold_off_revocations(connection)
        person, client = _user(connection, user), _agent(connection, agent)
        _places_exist(connection, final)
        new = NewDelegation(person.user_id, client.client_id, final, final.not_before or now, by)
        delegation_id = records.create(connection, new, services.stored, now)
        record = Record("delegation.created", client_id=client.client_id, delegation_id=delegation_id)
        record.changed(connection, now, user=person.user_id, by=by, details=final.to_json())
        return delegation_id, person, client

    delegation_id, person, client = services.database.write(write)
    claims = GrantClaims(
        issuer=services.issuer,
        subject=services.pairwise.user(person.user_id, client.client_id),
        client_id=client.client_id,
        may_act=services.actor(client.trust_domain, client.subject),
        grant_id=delegation_id,
        issued_at=now,
        expires_at=final.expires,
        authorization_details=final.to_json(),
    )
    return Granted(delegation_id, grants.sign(claims, services.signing_keys), final)


def _bounded(services: Services, details: DelegationDetails, now: datetime) -> DelegationDetails:
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
