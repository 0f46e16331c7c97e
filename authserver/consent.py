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
from authserver.delegations.records import Chain, DelegationRecord, NewDelegation, load_chain
from authserver.delegations.standing import ending
from authserver.errors import Refusal, Violation
from authserver.ledger import terms
from authserver.policy.delegation_details import DelegationDetails
from authserver.policy.reading import ANY
from authserver.services import Services
from authserver.tokens import grants
from authserver.tokens.grants import GrantClaims
from authserver.values import Money


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
        new = root(services, connection, user=user, agent=agent, details=details, by=by, now=now)
        return record(services, connection, new, now)

    bounded(services, details, now)  # before a transaction is begun for nothing
    return signed(services, services.database.write(write), now)


def root(
    services: Services,
    connection: Connection,
    *,
    user: str,
    agent: str,
    details: DelegationDetails,
    by: str,
    now: datetime,
) -> NewDelegation:
    """What `grant` records, for `record`. Raises `Refusal` where a party is unknown or `details` are not bounded."""
    final = bounded(services, details, now)
    person, client = _user(connection, user), _agent(connection, agent)
    return NewDelegation(person.user_id, client.client_id, final, final.not_before or now, by)


def record(services: Services, connection: Connection, new: NewDelegation, now: datetime) -> DelegationRecord:
    """Write a delegation, a root or below another, in the caller's transaction, which holds off revocations.

    The one way to make one: parties are known to be enabled and `details` are `bounded`. Raises `Refusal`.
    """
    places_exist(connection, new.details)
    delegation_id = records.create(connection, new, services.stored, now)
    event = Record("delegation.created", client_id=new.client_id, delegation_id=delegation_id)
    if new.above is not None:
        event.data["parent"] = new.above.id
    if new.task_id is not None:
        event.data["task_id"] = new.task_id
    event.changed(connection, now, user=new.user_id, by=new.created_by, details=new.details.to_json())
    return _leaf(services, connection, delegation_id)


def change(
    services: Services,
    connection: Connection,
    link: DelegationRecord,
    details: DelegationDetails,
    by: str,
    now: datetime,
) -> DelegationRecord:
    """Let a delegation go on under other details; what was spent of it stays spent.

    In a transaction that waits for exchanges. Raises `Refusal` where the details cannot be granted, or less than what
    was spent already.
    """
    final = bounded(services, details, now)
    places_exist(connection, final)
    same_currency(link, final)
    try:
        terms.change(connection, link, final, final.not_before or now)
    except terms.AlreadySpent as spent:
        raise _below_spent(final, spent) from spent
    records.change(connection, link, final, final.not_before or now, services.stored)
    event = Record("delegation.changed", client_id=link.client_id, delegation_id=link.id)
    event.changed(
        connection, now, user=link.user_id, by=by, before=link.details.to_json(), details=final.to_json()
    )
    return _leaf(services, connection, link.id)


def signed(
    services: Services,
    link: DelegationRecord,
    now: datetime,
    authenticated_at: datetime | None = None,
    acr: str | None = None,
) -> Granted:
    """The grant that names a delegation, for the agent that it is for; signed from its committed row.

    Where its user answered a request: when and how (`acr`) they had signed in.
    """
    claims = GrantClaims(
        issuer=services.issuer,
        subject=services.pairwise.user(link.user_id, link.client_id),
        client_id=link.client_id,
        may_act=services.actor(link.trust_domain, link.subject),
        grant_id=link.id,
        issued_at=now,
        expires_at=link.expires_at,
        authorization_details=link.details.to_json(),
        authenticated_at=authenticated_at,
        acr=acr,
    )
    return Granted(link.id, grants.sign(claims, services.signing_keys), link.details)


def changeable(
    services: Services, connection: Connection, grant_id: str, client_id: str, now: datetime
) -> Chain:
    """The delegation that an agent asks to change: its own, from a user's own hand, and standing.

    Raises `Refusal` (`invalid_grant_id`, FAPI Grant Management §5.4).
    """
    chain = load_chain(connection, grant_id, services.stored)
    if chain is None or chain.leaf.client_id != client_id or len(chain.links) > 1:
        raise Refusal("invalid_grant_id", "there is no such grant of this client", rule="grant_id.unknown")
    if ended := ending(connection, chain, now):
        raise Refusal("invalid_grant_id", ended.reason, rule=ended.rule)
    return chain


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


def places_exist(connection: Connection, details: DelegationDetails) -> None:
    """Every place is a registered resource server. Raises `Refusal`."""
    if details.locations is None or details.locations == ANY:
        return
    for location in details.locations:
        if resource_servers.find_by_identifier(connection, location) is None:
            raise _not_grantable(
                "locations names a resource server that is not registered", "delegation.locations"
            )


def same_currency(link: DelegationRecord, details: DelegationDetails) -> None:
    """What was spent is in one currency, and so is what may be. Raises `Refusal`."""
    before, after = link.details.limits, details.limits
    if before is None or (after is None and not link.action_count):
        return
    if after is None or after.currency != before.currency:
        raise _not_grantable(
            f"limits must be there, in the currency of the grant, {before.currency}", "delegation.currency"
        )


def _leaf(services: Services, connection: Connection, delegation_id: str) -> DelegationRecord:
    chain = load_chain(connection, delegation_id, services.stored)
    if chain is None:
        raise LookupError(delegation_id)  # it was written just now
    return chain.leaf


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


def _below_spent(details: DelegationDetails, spent: terms.AlreadySpent) -> Refusal:
    violations = list[Violation]()
    if details.limits is not None and details.limits.total.minor < spent.total:
        least = Money(details.limits.currency, spent.total)
        violations.append(Violation("limits.total", details.limits.total.text, least.text))
    if details.limits is not None and details.limits.count is not None and details.limits.count < spent.count:
        violations.append(Violation("limits.count", details.limits.count, spent.count))
    return Refusal(
        "invalid_authorization_details",
        "more was spent already than this allows",
        rule="delegation.spent",
        violations=tuple(violations),
    )


def _not_grantable(description: str, rule: str) -> Refusal:
    return Refusal("invalid_authorization_details", description, rule=rule)
