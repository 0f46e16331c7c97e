"""One box for everything that has a name or an id. Names are looked for inside, ids as they are."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from authserver.administration.looked_for import holds
from authserver.schema import Action, Agent, Delegation, EndedTask, ResourceServer, User, table_of

_AGENTS, _USERS, _SERVERS = table_of(Agent), table_of(User), table_of(ResourceServer)
_DELEGATIONS, _ACTIONS = table_of(Delegation), table_of(Action)
_ENDED_TASKS = table_of(EndedTask)
LONGEST = 200  # characters of what is looked for


@dataclass(frozen=True, slots=True)
class Hit:
    """Something that was found: `id` names it, `name` is what people call it."""

    id: str
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, of each kind; `tasks` are names of tasks that some action belongs to."""

    agents: Sequence[Hit] = ()
    users: Sequence[Hit] = ()
    resource_servers: Sequence[Hit] = ()
    delegations: Sequence[Hit] = ()
    actions: Sequence[Hit] = ()
    tasks: Sequence[Hit] = ()

    @property
    def number(self) -> int:
        """How many hits there are in all."""
        kinds = (self.agents, self.users, self.resource_servers, self.delegations, self.actions, self.tasks)
        return sum(len(hits) for hits in kinds)


def search(connection: Connection, unverified: str, most: int) -> Found:
    """Up to `most` of each kind. What LIKE would expand stands for itself; capital letters do not count."""
    text = unverified.strip()
    if not text or len(text) > LONGEST or not text.isprintable():
        return Found()
    return Found(
        agents=_agents(connection, text, most),
        users=_users(connection, text, most),
        resource_servers=_servers(connection, text, most),
        delegations=_delegations(connection, text, most),
        actions=_actions(connection, text),
        tasks=_tasks(connection, text),
    )


def _agents(connection: Connection, text: str, most: int) -> list[Hit]:
    columns = (_AGENTS.c.client_id, _AGENTS.c.name, _AGENTS.c.subject)
    query = select(*columns).where(holds(text, *columns)).order_by(_AGENTS.c.client_id).limit(most)
    return [Hit(row.client_id, row.name, row.subject) for row in connection.execute(query)]


def _users(connection: Connection, text: str, most: int) -> list[Hit]:
    named = holds(text, _USERS.c.username, _USERS.c.name) | (_USERS.c.user_id == text)
    columns = (_USERS.c.user_id, _USERS.c.username, _USERS.c.name)
    query = select(*columns).where(named).order_by(_USERS.c.username).limit(most)
    return [Hit(row.user_id, row.name, row.username) for row in connection.execute(query)]


def _servers(connection: Connection, text: str, most: int) -> list[Hit]:
    columns = (_SERVERS.c.id, _SERVERS.c.identifier, _SERVERS.c.name)
    query = select(*columns).where(holds(text, *columns)).order_by(_SERVERS.c.identifier).limit(most)
    return [Hit(row.id, row.name, row.identifier) for row in connection.execute(query)]


def _delegations(connection: Connection, text: str, most: int) -> list[Hit]:
    of = (_DELEGATIONS.c.id == text) | (_DELEGATIONS.c.task_id == text)
    query = (
        select(_DELEGATIONS.c.id, _AGENTS.c.name.label("agent"), _USERS.c.name.label("user"))
        .join(_AGENTS, _AGENTS.c.client_id == _DELEGATIONS.c.client_id)
        .join(_USERS, _USERS.c.user_id == _DELEGATIONS.c.user_id)
        .where(of)
        .limit(most)
    )
    return [Hit(row.id, row.agent, row.user) for row in connection.execute(query)]


def _actions(connection: Connection, text: str) -> list[Hit]:
    query = select(_ACTIONS.c.id, _ACTIONS.c.action, _ACTIONS.c.state).where(_ACTIONS.c.id == text).limit(1)
    return [Hit(row.id, row.action, row.state) for row in connection.execute(query)]


def _tasks(connection: Connection, text: str) -> list[Hit]:
    """The task of that name, where anything belongs to it."""
    places = (
        select(_ACTIONS.c.id).where(_ACTIONS.c.task_id == text).limit(1),
        select(_DELEGATIONS.c.id).where(_DELEGATIONS.c.task_id == text).limit(1),
    )
    is_known = any(connection.scalar(place) is not None for place in places)
    over = select(_ENDED_TASKS.c.party).where(_ENDED_TASKS.c.task_id == text).limit(1)
    return [Hit(text, text)] if is_known or connection.scalar(over) is not None else []
