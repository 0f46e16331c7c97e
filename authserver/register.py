"""Registration: agents, resource servers and users come to be, or change, by an operator's word (contract §11).

Each parser takes the members of one record, as JSON or TOML gives them, whoever hands them over; `members_of_…` gives
them back. What is written is audited in the same transaction.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import Connection

from authserver.accounts import passkeys, sessions, users
from authserver.accounts.users import NewUser, User, UserExists
from authserver.actors import AlreadyRegistered, NotRegistered, agents, resource_servers
from authserver.actors.agents import Agent
from authserver.actors.resource_servers import ResourceServer
from authserver.actors.trust_domains import parse_subject
from authserver.audit.events import Record
from authserver.db import Conflict
from authserver.ids import new_id
from authserver.members import (
    Members,
    actions_of,
    document_host,
    one_of,
    parse_client_id,
    parse_groups,
    parse_jwks,
    parse_password,
    parse_redirect_uris,
    parse_username,
    spiffe_id_of,
    trust_domain_of,
    without_none,
)
from authserver.policy.details import Merchant
from authserver.policy.facts import RISKS
from authserver.services import Services
from authserver.values import ResourceIdentifier, parse_name

AUTH_METHODS = ("client_secret_basic", "private_key_jwt", "jwt-spiffe")
ROLES = ("viewer", "revoker", "operator", "owner")

_AGENT = frozenset(
    {"client_id", "trust_domain", "subject", "name", "owner", "risk", "actions", "redirect_uris", "jwks"}
)
_RESOURCE_SERVER = frozenset({"identifier", "name", "merchant", "auth", "jwks", "subject"})
_USER = frozenset({"username", "name", "role", "groups", "password"})


# --- agents -------------------------------------------------------------------------------------------------------


def parse_agent(unverified: Mapping[str, object], services: Services, now: datetime) -> Agent:
    """Read a new agent's members: `client_id`, `trust_domain`, `subject`, and if they are there `name`, `owner`,
    `risk` (one of `RISKS`), `actions`, `redirect_uris` and `jwks` (a JWK Set).

    Raises `NotAValue` that names the member.
    """
    members = Members(unverified, _AGENT)
    client_id = members.required("client_id", parse_client_id)
    if ":" in client_id:
        for name in ("redirect_uris", "jwks"):
            members.not_there(name, "is in the document at client_id, and nowhere else")
    trust_domain = members.required("trust_domain", trust_domain_of(services.trust_domains))
    kind = services.trust_domains.kind_of(trust_domain)
    return Agent(
        client_id=client_id,
        trust_domain=trust_domain,
        subject=members.required("subject", lambda said: parse_subject(said, kind, trust_domain)),
        name=members.optional("name", parse_name) or document_host(client_id),
        owner=members.optional("owner", parse_name),
        actions=members.optional("actions", actions_of(services.vocabulary.catalogue)),
        redirect_uris=members.optional("redirect_uris", parse_redirect_uris) or (),
        jwks=members.optional("jwks", parse_jwks),
        created_at=now,
        disabled_at=None,
        risk=members.optional("risk", one_of(*RISKS)),
    )


def members_of_agent(agent: Agent) -> dict[str, object]:
    """What `parse_agent` takes."""
    return without_none(
        client_id=agent.client_id,
        trust_domain=agent.trust_domain,
        subject=agent.subject,
        name=agent.name,
        owner=agent.owner,
        risk=agent.risk,
        actions=None if agent.actions is None else sorted(agent.actions),
        **({} if agent.has_document else _own_metadata(agent)),
    )


def _own_metadata(agent: Agent) -> dict[str, object]:
    jwks = None if agent.jwks is None else json.loads(agent.jwks)
    return {"redirect_uris": list(agent.redirect_uris), "jwks": jwks}


def create_agent(connection: Connection, agent: Agent, by: str) -> None:
    """Register an agent. Raises `AlreadyRegistered`."""
    # A workload that were agent and resource server at once could not say which of the two is calling.
    if resource_servers.find_by_subject(connection, agent.subject) is not None:
        raise AlreadyRegistered
    agents.create(connection, agent)
    _audit_agent(connection, "agent.created", agent, by, agent.created_at)


def known_agent(connection: Connection, client_id: str) -> Agent:
    """The agent of that name. Raises `NotRegistered`."""
    found = agents.find(connection, client_id)
    if found is None:
        raise NotRegistered
    return found


def change_agent(connection: Connection, agent: Agent, by: str, now: datetime) -> None:
    """Give a registered agent another name, owner, actions, redirect URIs or keys. Raises `NotRegistered`."""
    before = members_of_agent(known_agent(connection, agent.client_id))
    agents.change(connection, agent)
    _audit_agent(connection, "agent.changed", agent, by, now, before)


def disable_agent(connection: Connection, client_id: str, by: str, now: datetime) -> None:
    """End what the agent may do, for good. Raises `NotRegistered`."""
    agents.disable(connection, client_id, now)
    Record("agent.disabled", client_id=client_id).changed(connection, now, by=by)


def enable_agent(connection: Connection, client_id: str, by: str, now: datetime) -> None:
    """Let the agent be allowed something again; `disable.enable_agent` is the use case. Raises `NotRegistered`."""
    agents.enable(connection, client_id)
    Record("agent.enabled", client_id=client_id).changed(connection, now, by=by)


def _audit_agent(
    connection: Connection,
    event: str,
    agent: Agent,
    by: str,
    now: datetime,
    before: Mapping[str, object] | None = None,
) -> None:
    record, changed = Record(event, client_id=agent.client_id), {} if before is None else {"before": before}
    record.changed(connection, now, by=by, **changed, agent=members_of_agent(agent))


# --- resource servers ---------------------------------------------------------------------------------------------


class NoSecret(Exception):
    """The resource server does not authenticate by a secret of ours."""


@dataclass(frozen=True, slots=True)
class IssuedServer:
    """What is shown once to whoever registers a resource server; `client_secret` is for `client_secret_basic` only."""

    id: str
    identifier: str
    client_secret: str | None = field(repr=False)

    def to_json(self) -> dict[str, object]:
        """The object that contract §11 shows."""
        return without_none(id=self.id, identifier=self.identifier, client_secret=self.client_secret)


def parse_resource_server(
    unverified: Mapping[str, object], services: Services, now: datetime
) -> ResourceServer:
    """Read a new resource server's members: `identifier`, and if they are there `name`, `merchant`, `auth` (one of
    `AUTH_METHODS`), `jwks` (for `private_key_jwt`) and `subject` (for `jwt-spiffe`).

    It has no secret yet. Raises `NotAValue` that names the member.
    """
    members = Members(unverified, _RESOURCE_SERVER)
    identifier = members.required("identifier", ResourceIdentifier.parse).text
    auth = members.optional("auth", one_of(*AUTH_METHODS)) or "client_secret_basic"
    members.goes_with("jwks", needed=auth == "private_key_jwt", where="auth is private_key_jwt")
    members.goes_with("subject", needed=auth == "jwt-spiffe", where="auth is jwt-spiffe")
    return ResourceServer(
        id=f"rs_{new_id()}",
        identifier=identifier,
        name=members.optional("name", parse_name) or _host_of(identifier),
        merchant=members.optional("merchant", Merchant.parse),
        auth_method=auth,
        secret_hash=None,
        jwks=members.optional("jwks", parse_jwks),
        subject=members.optional("subject", spiffe_id_of(services.trust_domains)),
        created_at=now,
        disabled_at=None,
    )


def members_of_resource_server(server: ResourceServer) -> dict[str, object]:
    """What `parse_resource_server` takes."""
    return without_none(
        identifier=server.identifier,
        name=server.name,
        merchant=None if server.merchant is None else server.merchant.to_json(),
        auth=server.auth_method,
        jwks=None if server.jwks is None else json.loads(server.jwks),
        subject=server.subject,
    )


def create_resource_server(connection: Connection, server: ResourceServer, by: str) -> IssuedServer:
    """Register a resource server, with a new secret where it uses one. Raises `AlreadyRegistered`."""
    _subject_is_no_agents(connection, server)
    secret, server = _with_new_secret(server)
    resource_servers.create(connection, server)
    _audit_server(connection, "resource_server.created", server, by, server.created_at)
    return IssuedServer(server.id, server.identifier, secret)


def change_resource_server(
    connection: Connection, server: ResourceServer, before: ResourceServer, by: str, now: datetime
) -> IssuedServer | None:
    """Give the resource server `before` the members of `server`; answers with a secret where a new one was due.

    Raises `AlreadyRegistered` where the subject is taken, and `NotRegistered`.
    """
    _subject_is_no_agents(connection, server)
    secret: str | None = None
    server = replace(
        server,
        id=before.id,
        secret_hash=before.secret_hash,
        previous_secret_hash=before.previous_secret_hash,
        previous_secret_until=before.previous_secret_until,
    )
    if server.auth_method != before.auth_method:
        secret, server = _with_new_secret(server)
    resource_servers.change(connection, server)
    _audit_server(connection, "resource_server.changed", server, by, now, before)
    return None if secret is None else IssuedServer(server.id, server.identifier, secret)


def renew_secret(
    connection: Connection, before: ResourceServer, overlap: timedelta, by: str, now: datetime
) -> IssuedServer:
    """Give a resource server a new secret; the present one is taken for `overlap` more, which may be nothing.

    One that was renewed before ends now. Raises `NoSecret`.
    """
    if before.auth_method != "client_secret_basic":
        raise NoSecret
    secret, renewed = _with_new_secret(before)
    until = now + overlap
    if overlap:
        renewed = replace(renewed, previous_secret_hash=before.secret_hash, previous_secret_until=until)
    if not resource_servers.exchange_secret(connection, renewed, before.secret_hash):
        raise Conflict  # somebody else renewed it just now
    told = {"id": before.id, "identifier": before.identifier, "previous_until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
    Record("resource_server.secret_renewed").changed(connection, now, by=by, resource_server=told)
    return IssuedServer(before.id, before.identifier, secret)


def disable_resource_server(connection: Connection, id: str, by: str, now: datetime) -> None:
    """Let it validate and redeem nothing any more. Raises `NotRegistered`."""
    resource_servers.disable(connection, id, now)
    Record("resource_server.disabled").changed(connection, now, by=by, id=id)


def _with_new_secret(server: ResourceServer) -> tuple[str | None, ResourceServer]:
    without = replace(server, secret_hash=None, previous_secret_hash=None, previous_secret_until=None)
    if server.auth_method != "client_secret_basic":
        return None, without
    secret, secret_hash = resource_servers.new_secret()
    return secret, replace(without, secret_hash=secret_hash)


def _subject_is_no_agents(connection: Connection, server: ResourceServer) -> None:
    if server.subject is None:
        return
    trust_domain = urlsplit(server.subject).netloc
    if agents.find_by_workload(connection, trust_domain, server.subject) is not None:
        raise AlreadyRegistered


def _host_of(identifier: str) -> str:
    return (urlsplit(identifier).hostname or identifier)[:100]


def _audit_server(
    connection: Connection,
    event: str,
    server: ResourceServer,
    by: str,
    now: datetime,
    before: ResourceServer | None = None,
) -> None:
    members = {"id": server.id, **members_of_resource_server(server)}
    changed = {} if before is None else {"before": members_of_resource_server(before)}
    Record(event).changed(connection, now, by=by, **changed, resource_server=members)


# --- users --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What is shown once to whoever makes a user: the link that sets a passkey or a password, once, within a day."""

    user_id: str
    username: str
    enrolment_url: str = field(repr=False)

    def to_json(self) -> dict[str, object]:
        """The object that contract §11 shows."""
        return without_none(user_id=self.user_id, username=self.username, enrolment_url=self.enrolment_url)


def parse_user(unverified: Mapping[str, object]) -> NewUser:
    """Read a new user's members: `username`, and if they are there `name`, `role` (one of `ROLES`), `groups` and
    `password`. Raises `NotAValue` that names the member.
    """
    members = Members(unverified, _USER)
    username = members.required("username", parse_username)
    return NewUser(
        username=username,
        name=members.optional("name", parse_name) or username,
        role=members.optional("role", one_of(*ROLES)),
        groups=members.optional("groups", parse_groups) or (),
        password=members.optional("password", parse_password),
    )


def members_of_user(user: User | NewUser) -> dict[str, object]:
    """What `parse_user` takes, but never a password."""
    return without_none(username=user.username, name=user.name, role=user.role, groups=list(user.groups))


def create_user(connection: Connection, new: NewUser, issuer: str, by: str, now: datetime) -> Enrolment:
    """Record a user. Raises `users.UserExists`."""
    # Where users are named by either, a user name that is somebody's id would stand for the wrong one.
    if users.by_id(connection, new.username) is not None:
        raise UserExists(new.username)
    user_id, secret = users.create(connection, new, now)
    _audit_user(connection, "user.created", user_id, new, by, now)
    return Enrolment(user_id, new.username, f"{issuer}/enrol/{secret}")


def invite_user(
    connection: Connection, user: User, issuer: str, by: str, now: datetime, *, forget: bool
) -> Enrolment:
    """A new link for somebody who cannot sign in any more. With `forget`, what they signed in with until now is worth
    nothing from now on, and whoever is signed in as them is signed out.
    """
    secret = users.invite(connection, user.user_id, now)
    members: dict[str, object] = {"user_id": user.user_id, "username": user.username}
    if forget:
        users.forget_password(connection, user.user_id)
        members["passkeys_removed"] = passkeys.remove_all(connection, user.user_id)
        members["sessions_ended"] = sessions.end_all(connection, user.user_id)
    Record("user.invited").changed(connection, now, by=by, user=members)
    return Enrolment(user.user_id, user.username, f"{issuer}/enrol/{secret}")


def change_user(connection: Connection, new: NewUser, before: User, by: str, now: datetime) -> None:
    """Give the user `before` the name, the role and the groups of `new`."""
    users.change(connection, replace(before, name=new.name, role=new.role, groups=new.groups))
    _audit_user(connection, "user.changed", before.user_id, new, by, now, before)


def disable_user(connection: Connection, user_id: str, by: str, now: datetime) -> None:
    """Let a person sign in no more, and end their sessions; `disable.disable_user` is the use case.

    Raises `NotRegistered`.
    """
    if users.disable(connection, user_id, now) != 1:
        raise NotRegistered
    sessions.end_all(connection, user_id)
    Record("user.disabled").changed(connection, now, by=by, user_id=user_id)


def enable_user(connection: Connection, user_id: str, by: str, now: datetime) -> None:
    """Let a person sign in again, who may be enabled already; `disable.enable_user` is the use case."""
    if users.enable(connection, user_id):
        Record("user.enabled").changed(connection, now, by=by, user_id=user_id)


def _audit_user(
    connection: Connection,
    event: str,
    user_id: str,
    user: NewUser,
    by: str,
    now: datetime,
    before: User | None = None,
) -> None:
    members = {"user_id": user_id, **members_of_user(user)}
    changed = {} if before is None else {"before": members_of_user(before)}
    Record(event).changed(connection, now, by=by, **changed, user=members)
