"""Ending things: a delegation, an agent, a user, a trust domain, a task, everything; or one token.

The row in `revocations` is what ends; it is in force for every request that begins after its commit. What it covers is
then given back in bounded transactions, so that one press can end a million delegations.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, FromClause, Table, func, select, true

from authserver import jose
from authserver.actors.agents import Agent as AgentRecord
from authserver.audit.events import Record
from authserver.db import wait_for_exchanges
from authserver.delegations.records import load_chain
from authserver.delegations.standing import Kind
from authserver.errors import Refusal
from authserver.ledger import actions
from authserver.ledger.actions import ActionRecord
from authserver.ledger.reservations import release, release_all
from authserver.policy.catalogue import LONGEST_LIFETIME
from authserver.schema import Action, Agent, Delegation, Revocation, User, table_of
from authserver.services import Services

_ACTIONS, _DELEGATIONS, _AGENTS = table_of(Action), table_of(Delegation), table_of(Agent)
_USERS, _REVOCATIONS = table_of(User), table_of(Revocation)
_BATCH = 200
_LONGEST_LIFE = timedelta(seconds=LONGEST_LIFETIME + 60)  # of a token, and servers' clocks apart


@dataclass(frozen=True, slots=True)
class Target:
    """What is to end; `name` is empty for `all`."""

    kind: Kind
    name: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How many delegations stood, and how many tokens were live, when it was revoked."""

    delegations: int
    tokens: int


class UnknownTarget(LookupError):
    """There is nothing of that name to revoke."""


def revoke(services: Services, target: Target, *, reason: str, by: str, now: datetime) -> Ended:
    """End everything that `target` covers. Raises `UnknownTarget`, or `Refusal` (503) when it could not be recorded."""

    def write(connection: Connection) -> int:
        wait_for_exchanges(connection)
        _must_exist(connection, target)
        row = {
            "kind": target.kind,
            "target": target.name,
            "reason": reason,
            "revoked_by": by,
            "revoked_at": now,
        }
        made = connection.execute(_REVOCATIONS.insert().returning(_REVOCATIONS.c.id), row)
        revocation = int(made.scalar_one())
        record = Record("revocation", delegation_id=target.name if target.kind == "delegation" else None)
        record.changed(connection, now, kind=target.kind, target=target.name, reason=reason, by=by)
        return revocation

    revocation = services.database.write(write)
    # From here on everything is ended. To count it and to give back what it held takes longer, and holds up nobody.
    ended = services.database.read(lambda connection: _count(connection, target, now))
    while services.database.write(
        lambda connection: _void_some(services, connection, target, revocation, now)
    ):
        pass
    return ended


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
    record.permitted(connection, now)


def _must_exist(connection: Connection, target: Target) -> None:
    columns: dict[Kind, ColumnElement[str]] = {
        "delegation": _DELEGATIONS.c.id,
        "agent": _AGENTS.c.client_id,
        "user": _USERS.c.user_id,
    }
    column = columns.get(target.kind)
    if column is not None and connection.scalar(select(column).where(column == target.name).limit(1)) is None:
        raise UnknownTarget(f"there is no {target.kind} {target.name}")


def _count(connection: Connection, target: Target, now: datetime) -> Ended:
    standing = select(func.count()).select_from(_DELEGATIONS).where(_DELEGATIONS.c.expires_at > now)
    live = select(func.count()).select_from(_ACTIONS)
    live = live.where(
        _ACTIONS.c.state == "reserved",
        _ACTIONS.c.expires_at > now,
        _ACTIONS.c.issued_at > now - _LONGEST_LIFE,  # says the same, to the index
    )
    tokens = connection.scalar(live.where(_of(_ACTIONS, _ACTIONS.c.delegation_id, target))) or 0
    if target.kind == "task":
        return Ended(0, tokens)
    return Ended(connection.scalar(standing.where(_of(_DELEGATIONS, _DELEGATIONS.c.id, target))) or 0, tokens)


def _of(
    table: Table, delegation_id: ColumnElement[str], target: Target, revocation: int | None = None
) -> ColumnElement[bool]:
    """Whether a row of `table` belongs to what the target covers; with `revocation`, to what that one ended."""
    if target.kind == "task":
        return _ACTIONS.c.task_id == target.name
    top, below = _DELEGATIONS.alias("top"), _DELEGATIONS.alias("below")
    covered = (
        select(below.c.id)
        .join(top, top.c.root_id == below.c.root_id)
        .where(
            below.c.root_id == table.c.root_id,
            below.c.id == delegation_id,
            # Itself, or an id further down its path; compared as text, since ids may hold what LIKE would expand.
            func.substr(below.c.path + " ", 1, func.length(top.c.path) + 1) == top.c.path + " ",
            _condition(top, target),
        )
    )
    if revocation is not None:
        covered = covered.where(top.c.revocations_before < revocation)
    return covered.exists()


def _condition(delegation: FromClause, target: Target) -> ColumnElement[bool]:
    if target.kind == "delegation":
        return delegation.c.id == target.name
    if target.kind == "user":
        return delegation.c.user_id == target.name
    if target.kind == "agent":
        return delegation.c.client_id == target.name
    if target.kind == "trust_domain":
        agents = select(_AGENTS.c.client_id).where(_AGENTS.c.trust_domain == target.name)
        return delegation.c.client_id.in_(agents)
    return true()


def _void_some(
    services: Services, connection: Connection, target: Target, revocation: int, now: datetime
) -> int:
    """Give back what some of the ended tokens still hold; returns how many were found, 0 when all is done."""
    covered = _of(_ACTIONS, _ACTIONS.c.delegation_id, target, revocation)
    holds = (_ACTIONS.c.ends_at.is_not(None), _ACTIONS.c.state == "reserved")  # the first names the index
    query = select(*actions.COLUMNS).where(*holds, covered).limit(_BATCH)
    found = [ActionRecord(*row) for row in connection.execute(query)]
    # Where another was quicker with all of these, there may still be more.
    release_all(connection, found, "void", services.stored, now)
    return len(found)
