"""Ending things: a delegation, an agent, a user, a trust domain, a task, everything; or one token.

The row in `revocations` is what ends; it is in force for every request that begins after its commit. What it covers is
then given back in bounded transactions, so that one press can end a million delegations.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, FromClause, Join, func, literal, select, true

from authserver import jose
from authserver.actors.agents import Agent as AgentRecord
from authserver.audit.events import Record
from authserver.db import wait_for_exchanges
from authserver.delegations.records import load_chain
from authserver.delegations.standing import Kind, newest_of, not_revoked_by_name
from authserver.errors import Refusal
from authserver.ledger import actions
from authserver.ledger.actions import ActionRecord
from authserver.ledger.reservations import release, release_all
from authserver.policy.catalogue import LONGEST_LIFETIME
from authserver.schema import Action, Agent, Delegation, EndedTask, Revocation, User, table_of
from authserver.services import Services
from authserver.streams import log

_ACTIONS, _DELEGATIONS, _AGENTS = table_of(Action), table_of(Delegation), table_of(Agent)
_USERS, _REVOCATIONS, _ENDED_TASKS = table_of(User), table_of(Revocation), table_of(EndedTask)
_BATCH = 200
_LONGEST_LIFE = timedelta(seconds=LONGEST_LIFETIME + 60)  # of a token, and servers' clocks apart


@dataclass(frozen=True, slots=True)
class Target:
    """What is to end; `name` is empty for `all`.

    `party` is whose task it is: `agent:CLIENT_ID` or `user:USER_ID` (`standing.agent_party`, `user_party`), or empty
    for everybody's of that name.
    """

    kind: Kind
    name: str
    party: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """What stood when it was revoked.

    Delegations that had neither expired nor been revoked before, at the same level or by name, with whose they were
    and who held them; tokens that were live, with the tasks they served; and what was authorized, which may still be
    captured (contract §7).
    """

    delegations: int
    tokens: int
    authorized: int
    agents: int
    users: int
    tasks: int


class UnknownTarget(LookupError):
    """There is nothing of that name to revoke."""


def revoke(services: Services, target: Target, *, reason: str, by: str, now: datetime) -> Ended:
    """End everything that `target` covers. Raises `UnknownTarget`, or `Refusal` (503) when it could not be recorded."""

    def write(connection: Connection) -> int:
        wait_for_exchanges(connection)
        _must_exist(connection, target)
        record = Record("revocation", delegation_id=target.name if target.kind == "delegation" else None)
        party = {"party": target.party} if target.party else {}
        said = {"kind": target.kind, "target": target.name, **party, "reason": reason}
        record.changed(connection, now, **said, by=by)
        if target.party:
            return _task_ended(connection, target, by, now)
        made = _REVOCATIONS.insert().returning(_REVOCATIONS.c.id)
        row = {"kind": target.kind, "target": target.name, "reason": reason, "revoked_by": by}
        revocation = int(connection.execute(made, {**row, "revoked_at": now}).scalar_one())
        log.tell(connection, "revoked", target.kind, target.name, by=by, now=now, revocation_id=revocation)
        return revocation

    revocation = services.database.write(write)
    # From here on everything is ended. To count it and to give back what it held takes longer, and holds up nobody.
    ended = services.database.read(lambda connection: _count(connection, target, now, revocation or None))
    while services.database.write(
        lambda connection: _void_some(services, connection, target, revocation, now)
    ):
        pass
    return ended


def _task_ended(connection: Connection, target: Target, by: str, now: datetime) -> int:
    row = {"task_id": target.name, "party": target.party, "ended_by": by, "ended_at": now}
    over = select(_ENDED_TASKS.c.party).where(
        _ENDED_TASKS.c.task_id == target.name, _ENDED_TASKS.c.party == target.party
    )
    if connection.scalar(over) is None:
        connection.execute(_ENDED_TASKS.insert(), row)
        log.tell(connection, "revoked", "task", target.name, by=by, now=now, party=target.party)
    return 0  # no revocation; a task is over whatever was granted since


def would_end(services: Services, target: Target, now: datetime) -> Ended:
    """What `revoke` would end now. Raises `UnknownTarget`."""

    def read(connection: Connection) -> Ended:
        _must_exist(connection, target)
        return _count(connection, target, now)

    return services.database.read(read)


def revoke_token(
    services: Services, unverified_token: str, caller: AgentRecord, record: Record, now: datetime
) -> None:
    """RFC 7009: end the caller's own action token, or the delegation of its grant.

    Anything else (unknown, ended, another's) needs nothing and is told nothing (§2.2); the record says which it was.
    """
    record.client_id = caller.client_id
    jti, delegation_id = _read(services, unverified_token, now)
    if jti is not None:
        services.database.write(lambda connection: _void_one(services, connection, jti, caller, record, now))
    elif delegation_id is not None and _is_own(services, delegation_id, caller):
        revoke(
            services,
            Target("delegation", delegation_id),
            reason="revoked by the agent",
            by=f"agent:{caller.client_id}",
            now=now,
        )
    else:
        raise Refusal(
            "invalid_request", "not a token of this client", rule="revocation.unknown_token", status=200
        )


def _read(services: Services, unverified_token: str, now: datetime) -> tuple[str | None, str | None]:
    try:
        return services.action_tokens.read(unverified_token, now), None
    except jose.TokenRefused:
        pass
    try:
        return None, services.grants.read(unverified_token, now).delegation_id
    except jose.TokenRefused:
        return None, None


def _is_own(services: Services, delegation_id: str, caller: AgentRecord) -> bool:
    chain = services.database.read(lambda connection: load_chain(connection, delegation_id, services.stored))
    return chain is not None and chain.leaf.client_id == caller.client_id


def _void_one(
    services: Services, connection: Connection, jti: str, caller: AgentRecord, record: Record, now: datetime
) -> None:
    action = actions.find(connection, jti)
    if action is None or action.client_id != caller.client_id:
        raise Refusal(
            "invalid_request", "not a token of this client", rule="revocation.unknown_token", status=200
        )
    record.action_id, record.delegation_id = action.id, action.delegation_id
    # What a resource server has authorized is no longer the agent's to take back (contract §7).
    if action.state == "reserved":
        release(connection, action, "void", services.stored, now)
        log.tell(connection, "revoked", "token", action.id, by=f"agent:{caller.client_id}", now=now)
    record.permitted(connection, now)


def _must_exist(connection: Connection, target: Target) -> None:
    columns: dict[str, ColumnElement[str]] = {
        "delegation": _DELEGATIONS.c.id,
        "agent": _AGENTS.c.client_id,
        "user": _USERS.c.user_id,
    }
    party_kind, _, party_name = target.party.partition(":")
    for kind, name in ((target.kind, target.name), (party_kind, party_name)):
        column = columns.get(kind)
        if column is not None and connection.scalar(select(column).where(column == name).limit(1)) is None:
            raise UnknownTarget(f"there is no {kind} {name}")


def _count(connection: Connection, target: Target, now: datetime, revocation: int | None = None) -> Ended:
    top, below, together = covering()
    of_delegations = select(
        *(func.count(below.c[name].distinct()) for name in ("id", "client_id", "user_id"))
    ).select_from(together)
    # What was revoked before at this level, or by name, is not counted again.
    earlier = newest_of(target.kind, target.name, before=revocation)
    stands = (top.c.revocations_before >= earlier) & not_revoked_by_name(below, before=revocation)
    standing = of_delegations.where(condition(top, target), below.c.expires_at > now, stands)
    delegations, agents, users = tuple(connection.execute(standing).one())
    where, covered = _actions_of(target)
    live = select(func.count(_ACTIONS.c.id.distinct()), func.count(_ACTIONS.c.task_id.distinct())).where(
        _ACTIONS.c.state == "reserved",
        _ACTIONS.c.expires_at > now,
        _ACTIONS.c.issued_at > now - _LONGEST_LIFE,  # says the same, to the index
        covered,
    )
    tokens, tasks = connection.execute(live.select_from(where)).one()
    authorized = select(func.count(_ACTIONS.c.id.distinct())).select_from(where)
    authorized = authorized.where(_ACTIONS.c.ends_at > now, _ACTIONS.c.state == "authorized", covered)
    return Ended(delegations, tokens, connection.scalar(authorized) or 0, agents, users, tasks)


def _actions_of(target: Target) -> tuple[FromClause, ColumnElement[bool]]:
    """The actions that the target covers, from what it names downwards: where from, and which."""
    if target.kind == "task":
        return _ACTIONS, of_task(target)
    top, below, together = covering()
    return together.join(_ACTIONS, _is_of(below)), condition(top, target)


def of_task(target: Target) -> ColumnElement[bool]:
    """Whether an action is of the task: anybody's, or the party's with what it handed on for the task."""
    of_task = _ACTIONS.c.task_id == target.name
    if not target.party:
        return of_task
    own = literal("agent:") + _ACTIONS.c.client_id == target.party
    of_user = select(_DELEGATIONS.c.id).where(
        _is_of(_DELEGATIONS), literal("user:") + _DELEGATIONS.c.user_id == target.party
    )
    top, below, together = covering()
    handed_on = select(below.c.id).select_from(together).where(_is_of(below), condition(top, target))
    return of_task & (own | of_user.exists() | handed_on.exists())


def _is_of(delegation: FromClause) -> ColumnElement[bool]:
    return (delegation.c.root_id == _ACTIONS.c.root_id) & (delegation.c.id == _ACTIONS.c.delegation_id)


def covering() -> tuple[FromClause, FromClause, Join]:
    """A delegation `top`, and `below`: itself and all that was handed on from it."""
    top, below = _DELEGATIONS.alias("top"), _DELEGATIONS.alias("below")
    # Itself, or an id further down its path; compared as text, since ids may hold what LIKE would expand.
    further_down = func.substr(below.c.path + " ", 1, func.length(top.c.path) + 1) == top.c.path + " "
    return top, below, top.join(below, (top.c.root_id == below.c.root_id) & further_down)


def _ended_by(target: Target, revocation: int) -> ColumnElement[bool]:
    """Whether that revocation ended an action: asked of the few that hold something."""
    if target.kind == "task":
        return of_task(target)
    top, below, together = covering()
    covered = select(below.c.id).select_from(together).where(_is_of(below), condition(top, target))
    return covered.where(top.c.revocations_before < revocation).exists()


def condition(delegation: FromClause, target: Target) -> ColumnElement[bool]:
    """Whether the target names a delegation by itself; `covering` adds what hangs below."""
    if target.kind == "delegation":
        return delegation.c.id == target.name
    if target.kind == "user":
        return delegation.c.user_id == target.name
    if target.kind == "agent":
        return delegation.c.client_id == target.name
    if target.kind == "task":  # what was handed on for it
        of_party = (delegation.c.created_by == target.party) | (
            literal("user:") + delegation.c.user_id == target.party
        )
        return (delegation.c.task_id == target.name) & (of_party if target.party else true())
    if target.kind == "trust_domain":
        agents = select(_AGENTS.c.client_id).where(_AGENTS.c.trust_domain == target.name)
        return delegation.c.client_id.in_(agents)
    return true()


def _void_some(
    services: Services, connection: Connection, target: Target, revocation: int, now: datetime
) -> int:
    """Give back what some of the ended tokens still hold; returns how many were found, 0 when all is done."""
    covered = _ended_by(target, revocation)
    holds = (_ACTIONS.c.ends_at.is_not(None), _ACTIONS.c.state == "reserved")  # the first names the index
    query = select(*actions.COLUMNS).where(*holds, covered).limit(_BATCH)
    found = [ActionRecord(*row) for row in connection.execute(query)]
    # Where another was quicker with all of these, there may still be more.
    release_all(connection, found, "void", services.stored, now)
    return len(found)
