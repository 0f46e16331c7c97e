"""The jobs that agents are at under a delegation, as its person sees them: what may be stopped by its name."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from authserver.actors import agents
from authserver.delegations import records
from authserver.delegations.records import Chain
from authserver.delegations.standing import ended_tasks, endings, user_party
from authserver.schema import Action, EndedTask, table_of
from authserver.services import Services

_ACTIONS, _ENDED = table_of(Action), table_of(EndedTask)
_LATELY = timedelta(days=1)
_JUST_NOW = timedelta(minutes=5)
_MOST = 50


@dataclass(frozen=True, slots=True)
class Job:
    """A task that is not over. `agents` are the names of those at work on it, `actions` how many tokens they got.

    `last` is when the newest of these was issued; None where it was only handed on.
    """

    task_id: str
    agents: tuple[str, ...]
    actions: int
    last: datetime | None


@dataclass(frozen=True, slots=True)
class _Part:
    """What one delegation has to do with a task."""

    chain: Chain
    task_id: str
    actions: int
    last: datetime | None


def running(services: Services, connection: Connection, chain: Chain, now: datetime) -> list[Job]:
    """The tasks of the delegation and of all below it, the last first: those that something was done for in the last
    day, and those that a part was handed on for. A task that is over for whoever worked on it is not among them.
    """
    chains = {below.leaf.id: below for below in _with_below(services, connection, chain)}
    ended = endings(connection, chains.values(), now)
    standing = {name: one for name, one in chains.items() if name not in ended}
    parts = [*_acted(connection, standing, now), *_handed_on(standing.values())]
    over = ended_tasks(connection, [(part.chain, part.task_id) for part in parts])
    return _jobs(connection, [part for part in parts if (part.chain.leaf.id, part.task_id) not in over])


def stopped_lately(connection: Connection, user_id: str, now: datetime) -> bool:
    """Whether the person has stopped a job within the last minutes."""
    mine = user_party(user_id)
    of_mine = (_ENDED.c.party == mine) & (_ENDED.c.ended_by == mine) & (_ENDED.c.ended_at > now - _JUST_NOW)
    return connection.scalar(select(_ENDED.c.task_id).where(of_mine).limit(1)) is not None


def _with_below(services: Services, connection: Connection, chain: Chain) -> Iterable[Chain]:
    links = records.below(connection, chain.leaf, services.stored)
    known = {link.id: link for link in (*chain.links, *links)}
    return [Chain(tuple(known[id] for id in link.path), chain.newest_revocation) for link in links]


def _acted(connection: Connection, standing: dict[str, Chain], now: datetime) -> list[_Part]:
    if not standing:
        return []
    root_id = next(iter(standing.values())).root_id
    query = (
        select(
            _ACTIONS.c.delegation_id,
            _ACTIONS.c.task_id,
            func.count().label("actions"),
            func.max(_ACTIONS.c.issued_at).label("last"),
        )
        .where(
            _ACTIONS.c.root_id == root_id,
            _ACTIONS.c.delegation_id.in_(standing),
            _ACTIONS.c.task_id.is_not(None),
            _ACTIONS.c.issued_at > now - _LATELY,
        )
        .group_by(_ACTIONS.c.delegation_id, _ACTIONS.c.task_id)
    )
    rows = connection.execute(query)
    return [_Part(standing[row.delegation_id], row.task_id, row.actions, row.last) for row in rows]


def _handed_on(standing: Iterable[Chain]) -> list[_Part]:
    return [_Part(chain, chain.task_id, 0, None) for chain in standing if chain.task_id is not None]


def _jobs(connection: Connection, parts: Sequence[_Part]) -> list[Job]:
    by_task = defaultdict[str, list[_Part]](list)
    for part in parts:
        by_task[part.task_id].append(part)
    jobs = [_job(connection, task_id, of_task) for task_id, of_task in by_task.items()]
    newest_first = sorted(jobs, key=lambda job: (job.last is not None, job.last, job.task_id), reverse=True)
    return newest_first[:_MOST]


def _job(connection: Connection, task_id: str, parts: Sequence[_Part]) -> Job:
    found = (agents.find(connection, name) for name in sorted({p.chain.leaf.client_id for p in parts}))
    return Job(
        task_id,
        tuple(agent.name for agent in found if agent is not None),
        sum(part.actions for part in parts),
        max((part.last for part in parts if part.last is not None), default=None),
    )
