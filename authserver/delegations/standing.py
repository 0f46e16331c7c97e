"""The one place that knows whether a delegation still stands, for every path that uses one."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    ScalarSelect,
    bindparam,
    func,
    literal,
    select,
    true,
    tuple_,
    union_all,
)

from authserver.delegations.records import Chain, DelegationRecord
from authserver.schema import EndedTask, Revocation, table_of

_REVOCATIONS, _ENDED_TASKS = table_of(Revocation), table_of(EndedTask)
_COVERING = (
    select(_REVOCATIONS.c.kind, _REVOCATIONS.c.target, func.max(_REVOCATIONS.c.id).label("newest"))
    .where(tuple_(_REVOCATIONS.c.kind, _REVOCATIONS.c.target).in_(bindparam("covering", expanding=True)))
    .group_by(_REVOCATIONS.c.kind, _REVOCATIONS.c.target)
)
# A task is ended for everybody by a revocation, and for one agent or one user by a row of its own; for good.
_EVERYBODY = ""
_OVER = union_all(
    select(_REVOCATIONS.c.target, literal(_EVERYBODY)).where(
        _REVOCATIONS.c.kind == "task", _REVOCATIONS.c.target.in_(bindparam("tasks", expanding=True))
    ),
    select(_ENDED_TASKS.c.task_id, _ENDED_TASKS.c.party).where(
        tuple_(_ENDED_TASKS.c.task_id, _ENDED_TASKS.c.party).in_(bindparam("of_parties", expanding=True))
    ),
)
_AT_ONCE = 500  # parameters of one statement; SQLite takes 32,766
Kind = Literal["delegation", "agent", "user", "trust_domain", "task", "all"]


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a delegation cannot be used: `rule` for the audit, `reason` for the agent that the grant names."""

    rule: str
    reason: str


_TASK_ENDED = Ending("task.ended", "the task has ended")


def ending(connection: Connection, chain: Chain, now: datetime, task_id: str | None = None) -> Ending | None:
    """What ended the chain's last delegation, or the task, or None while both stand.

    INVARIANT: every use of a delegation or of its tokens asks here, or `endings` for many at once
    (test_a_revocation_at_any_level_ends_every_path).
    """
    found = endings(connection, (chain,), now).get(chain.leaf.id)
    if found is not None or task_id in (None, chain.task_id):
        return found
    return _TASK_ENDED if ended_tasks(connection, ((chain, task_id),)) else None


def endings(connection: Connection, chains: Collection[Chain], now: datetime) -> dict[str, Ending]:
    """What ended the last delegation of each chain, or the task that it is for, by the delegation's id; those that
    stand are left out.
    """
    ended, standing = dict[str, Ending](), list[Chain]()
    for chain in chains:
        if found := next(filter(None, (_by_itself(link, now) for link in chain.links)), None):
            ended[chain.leaf.id] = found
        elif any(chain.newest_revocation > link.revocations_before for link in chain.links):
            standing.append(chain)  # something was revoked since: whether it covers this one is to be seen
    newest = _newest_revocations(connection, {t for chain in standing for t in _targets(chain)})
    for chain in standing:
        if any(
            newest.get(t, 0) > link.revocations_before for link in chain.links for t in covering_targets(link)
        ):
            ended[chain.leaf.id] = Ending("delegation.revoked", "the delegation was revoked")
    handed_on = [(c, c.task_id) for c in chains if c.task_id is not None and c.leaf.id not in ended]
    over = ended_tasks(connection, handed_on)
    return ended | {c.leaf.id: _TASK_ENDED for c, task_id in handed_on if (c.leaf.id, task_id) in over}


def ended_tasks(connection: Connection, used: Collection[tuple[Chain, str]]) -> set[tuple[str, str]]:
    """Those tasks that are over for the delegation with which each is used, as (delegation, task)."""
    wanted = {(task_id, party) for chain, task_id in used for party in task_parties(chain, task_id)}
    over = set[tuple[str, str]]()
    asked = sorted(wanted)
    for start in range(0, len(asked), _AT_ONCE):
        some = asked[start : start + _AT_ONCE]
        parameters = {"tasks": sorted({task_id for task_id, _ in some}), "of_parties": some}
        over |= {(row[0], row[1]) for row in connection.execute(_OVER, parameters)}
    return {
        (chain.leaf.id, task_id)
        for chain, task_id in used
        if any((task_id, party) in over for party in (_EVERYBODY, *task_parties(chain, task_id)))
    }


def task_parties(chain: Chain, task_id: str) -> tuple[str, ...]:
    """Who may have ended this task for what is done with this delegation: its agent, its user, and each agent above
    that handed it on for the task.
    """
    handed_on_by = {link.created_by for link in chain.links if link.task_id == task_id}
    return (agent_party(chain.leaf.client_id), user_party(chain.leaf.user_id), *sorted(handed_on_by))


def agent_party(client_id: str) -> str:
    """An agent as the party of a task, and as who handed on a delegation."""
    return f"agent:{client_id}"


def user_party(user_id: str) -> str:
    """A user as the party of a task."""
    return f"user:{user_id}"


def _targets(chain: Chain) -> Iterator[tuple[Kind, str]]:
    for link in chain.links:
        yield from covering_targets(link)


def _newest_revocations(
    connection: Connection, targets: Collection[tuple[Kind, str]]
) -> dict[tuple[Kind, str], int]:
    newest = dict[tuple[Kind, str], int]()
    asked = sorted(targets)
    for start in range(0, len(asked), _AT_ONCE):
        rows = connection.execute(_COVERING, {"covering": asked[start : start + _AT_ONCE]})
        newest |= {(row.kind, row.target): row.newest for row in rows}
    return newest


def _by_itself(link: DelegationRecord, now: datetime) -> Ending | None:
    if link.user_disabled_at is not None:
        return Ending("delegation.user_disabled", "the delegation has ended")
    if link.agent_disabled_at is not None:
        return Ending("delegation.agent_disabled", "the delegation has ended")
    if now >= link.expires_at:
        return Ending("delegation.expired", "the delegation has expired")
    if now < link.not_before:
        return Ending("delegation.not_yet_valid", "the delegation is not valid yet")
    if link.paused_at is not None:
        return Ending("delegation.paused", "the delegation is paused")
    return None


def not_revoked_by_name(delegation: FromClause, before: int | None = None) -> ColumnElement[bool]:
    """Whether neither a row of `delegations` nor the first of its chain was revoked by name, for statements that count
    many; with `before`, by a revocation with a lesser id. `newest_of` tells of the other levels.
    """
    by_name = select(_REVOCATIONS.c.target).where(_REVOCATIONS.c.kind == "delegation", _earlier(before))
    return delegation.c.id.not_in(by_name) & delegation.c.root_id.not_in(by_name)


def newest_of(kind: Kind, target: ColumnElement[str] | str, before: int | None = None) -> ScalarSelect[int]:
    """The id of the newest revocation of that target or of everything, 0 where there is none: it ended what has lesser
    `revocations_before`.
    """
    of_target = (_REVOCATIONS.c.kind == kind) & (_REVOCATIONS.c.target == target)
    of_all = (_REVOCATIONS.c.kind == "all") & (_REVOCATIONS.c.target == "")
    newest = select(func.coalesce(func.max(_REVOCATIONS.c.id), 0))
    return newest.where(of_target | of_all, _earlier(before)).scalar_subquery()


def _earlier(before: int | None) -> ColumnElement[bool]:
    return true() if before is None else _REVOCATIONS.c.id < before


def covering_targets(link: DelegationRecord) -> tuple[tuple[Kind, str], ...]:
    """Every revocation that would end this delegation, as (kind, target)."""
    return (
        ("delegation", link.id),
        ("agent", link.client_id),
        ("user", link.user_id),
        ("trust_domain", link.trust_domain),
        ("all", ""),
    )
