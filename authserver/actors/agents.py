"""Agents: OAuth clients that are each bound to one workload identity."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, literal, select, update
from sqlalchemy.exc import IntegrityError

from authserver.actors import AlreadyRegistered, NotRegistered
from authserver.schema import Agent as AgentRow
from authserver.schema import Instant

_agents = AgentRow.__table__
_ALL = select(_agents)
_BY_CLIENT_ID = _ALL.where(_agents.c.client_id == bindparam("client_id"))
_BY_WORKLOAD = _ALL.where(
    _agents.c.trust_domain == bindparam("trust_domain"), _agents.c.subject == bindparam("subject")
)


@dataclass(frozen=True, slots=True)
class Agent:
    """A registered agent. `subject` is its workload's in `trust_domain`, compared as exact text.

    `actions` are those it may ever be allowed, `None` for whatever users delegate; `jwks` is the JWK Set
    (JSON text) it may use for `private_key_jwt`. `disabled_at` is set once it may do nothing any more.
    `risk` is what policies know of it: one of `facts.RISKS`, or nothing. Where the `client_id` is the address of a
    metadata document, `document_read_at` is when redirect URIs and keys were read from there.
    """

    client_id: str
    trust_domain: str
    subject: str
    name: str
    owner: str | None
    actions: frozenset[str] | None
    redirect_uris: tuple[str, ...]
    jwks: str | None
    created_at: datetime
    disabled_at: datetime | None
    risk: str | None = None
    document_read_at: datetime | None = None

    @property
    def has_document(self) -> bool:
        """Whether the `client_id` is the address of its metadata: no other has a colon."""
        return ":" in self.client_id


def find(connection: Connection, client_id: str) -> Agent | None:
    """The agent of that `client_id`, disabled or not."""
    row = connection.execute(_BY_CLIENT_ID, {"client_id": client_id}).one_or_none()
    return None if row is None else _agent(row)


def find_by_workload(connection: Connection, trust_domain: str, subject: str) -> Agent | None:
    """The agent that the workload is, disabled or not: `subject` is compared as exact text, never as a prefix
    or pattern.
    """
    row = connection.execute(_BY_WORKLOAD, {"trust_domain": trust_domain, "subject": subject}).one_or_none()
    return None if row is None else _agent(row)


def find_named(connection: Connection, name: str, trust_domains: Iterable[str]) -> tuple[Agent, ...]:
    """All agents, disabled or not, that `name` could mean: a `client_id`, or a workload's subject in one of the
    trust domains.
    """
    by_subject = select(_agents).where(
        _agents.c.trust_domain.in_(sorted(trust_domains)), _agents.c.subject == name
    )
    rows = [
        *connection.execute(_BY_CLIENT_ID, {"client_id": name}),
        *connection.execute(by_subject),
    ]
    return tuple({row.client_id: _agent(row) for row in rows}.values())


def list_all(connection: Connection) -> tuple[Agent, ...]:
    """All agents, by `client_id`."""
    return tuple(_agent(row) for row in connection.execute(_ALL.order_by(_agents.c.client_id)))


def list_some(connection: Connection, after: str, most: int) -> tuple[Agent, ...]:
    """Up to `most` agents by `client_id`, those after that one."""
    query = _ALL.where(_agents.c.client_id > after).order_by(_agents.c.client_id).limit(most)
    return tuple(_agent(row) for row in connection.execute(query))


def create(connection: Connection, agent: Agent) -> None:
    """Register an agent. Raises `AlreadyRegistered` where its `client_id` or its workload is taken; roll back
    then.
    """
    bound = {"client_id": agent.client_id, "trust_domain": agent.trust_domain, "subject": agent.subject}
    times = {"created_at": agent.created_at, "disabled_at": agent.disabled_at}
    try:
        connection.execute(insert(AgentRow), {**bound, **_registered(agent), **_published(agent), **times})
    except IntegrityError as error:
        raise AlreadyRegistered from error


def change(connection: Connection, agent: Agent) -> None:
    """Write all of an agent that may change: never its `client_id` nor the workload that users trusted, nor what its
    document says. Raises `NotRegistered`.
    """
    values = _registered(agent) | ({} if agent.has_document else _published(agent))
    of_agent = update(AgentRow).where(_agents.c.client_id == agent.client_id)
    if connection.execute(of_agent.values(values)).rowcount != 1:
        raise NotRegistered


def disable(connection: Connection, client_id: str, now: datetime) -> None:
    """End what the agent may do; the first time counts. Raises `NotRegistered`."""
    first = func.coalesce(_agents.c.disabled_at, literal(now, Instant()))
    changed = connection.execute(
        update(AgentRow).where(_agents.c.client_id == client_id).values(disabled_at=first)
    )
    if changed.rowcount != 1:
        raise NotRegistered


def enable(connection: Connection, client_id: str) -> None:
    """Let the agent be allowed something again. Raises `NotRegistered`."""
    changed = connection.execute(
        update(AgentRow).where(_agents.c.client_id == client_id).values(disabled_at=None)
    )
    if changed.rowcount != 1:
        raise NotRegistered


# --- metadata documents -------------------------------------------------------------------------------------------


def documents_due(connection: Connection, now: datetime, most: int) -> tuple[Agent, ...]:
    """Enabled agents whose documents are to be read, those that waited longest first."""
    due = _ALL.where(_agents.c.document_due_at <= now, _agents.c.disabled_at.is_(None))
    rows = connection.execute(due.order_by(_agents.c.document_due_at).limit(most))
    return tuple(_agent(row) for row in rows)


def claim_document(connection: Connection, agent: Agent, now: datetime, again_at: datetime) -> bool:
    """Be the one who reads a document now; False where another process is."""
    due = update(AgentRow).where(_agents.c.client_id == agent.client_id, _agents.c.document_due_at <= now)
    return connection.execute(due.values(document_due_at=again_at)).rowcount == 1


def take_document(connection: Connection, agent: Agent) -> None:
    """Write what was read from an agent's document."""
    values = {"name": agent.name, **_published(agent)}
    values.pop("document_due_at")
    connection.execute(update(AgentRow).where(_agents.c.client_id == agent.client_id).values(values))


def _registered(agent: Agent) -> dict[str, object]:
    """What an operator says of an agent."""
    return {
        "name": agent.name,
        "owner": agent.owner,
        "actions": None if agent.actions is None else json.dumps(sorted(agent.actions)),
        "risk": agent.risk,
    }


def _published(agent: Agent) -> dict[str, object]:
    """What is in an agent's document, where it has one."""
    return {
        "redirect_uris": json.dumps(agent.redirect_uris),
        "jwks": agent.jwks,
        "document_read_at": agent.document_read_at,
        "document_due_at": agent.created_at if agent.has_document else None,
    }


def _agent(row: Row[Any]) -> Agent:
    return Agent(
        client_id=row.client_id,
        trust_domain=row.trust_domain,
        subject=row.subject,
        name=row.name,
        owner=row.owner,
        actions=None if row.actions is None else frozenset(json.loads(row.actions)),
        redirect_uris=tuple(json.loads(row.redirect_uris)),
        jwks=row.jwks,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        risk=row.risk,
        document_read_at=row.document_read_at,
    )
