"""Delegations as rows, and the chain from the root to one of them."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, Row, Select, bindparam, func, select

from authserver.delegations.stored_details import StoredDetails
from authserver.ids import new_id
from authserver.policy.delegation_details import DelegationDetails
from authserver.schema import Agent, Budget, Delegation, Revocation, User, table_of
from authserver.statements import Prepared

_DELEGATIONS, _BUDGETS = table_of(Delegation), table_of(Budget)
_AGENTS, _USERS, _REVOCATIONS = table_of(Agent), table_of(User), table_of(Revocation)


@dataclass(frozen=True, slots=True)
class DelegationRecord:
    """One delegation with whom it binds and what it has spent. Money is in minor units of its currency."""

    id: str
    root_id: str
    path: tuple[str, ...]  # ids from the root to this one
    user_id: str
    user_disabled_at: datetime | None
    client_id: str
    trust_domain: str
    subject: str
    agent_disabled_at: datetime | None
    agent_actions: frozenset[str] | None  # those the agent may ever be allowed; None: whatever users delegate
    details_text: str
    stored: StoredDetails = field(repr=False, compare=False)
    not_before: datetime
    expires_at: datetime
    created_at: datetime
    created_by: str
    paused_at: datetime | None
    revocations_before: int
    task_id: str | None  # the one task it was handed on for
    total_spent: int  # reserved + authorized + captured - refunded
    action_count: int

    @property
    def details(self) -> DelegationDetails:
        """What was granted; parsed once for each process, and only where somebody asks."""
        return self.stored.read(self.details_text)

    open_count: int  # debits among them whose token was not used yet


@dataclass(frozen=True, slots=True)
class Chain:
    """A delegation and all above it, root first. `newest_revocation` is the id of the last one of any kind."""

    links: tuple[DelegationRecord, ...]
    newest_revocation: int

    @property
    def leaf(self) -> DelegationRecord:
        """The delegation in hand."""
        return self.links[-1]

    @property
    def root_id(self) -> str:
        """What all delegations of the chain share."""
        return self.leaf.root_id

    @property
    def task_id(self) -> str | None:
        """The one task that the delegation serves, where it or one above it was handed on for a task."""
        return next((link.task_id for link in self.links if link.task_id is not None), None)

    @property
    def agent_actions(self) -> frozenset[str] | None:
        """What each agent of the chain may ever be allowed: none can hand on what it could not do (A97)."""
        bounds = [link.agent_actions for link in self.links if link.agent_actions is not None]
        return frozenset.intersection(*bounds) if bounds else None


_SPENT = _BUDGETS.c.reserved + _BUDGETS.c.authorized + _BUDGETS.c.captured - _BUDGETS.c.refunded
_LINKS: Select[tuple[object, ...]] = select(
    _DELEGATIONS,
    _SPENT.label("total_spent"),
    _BUDGETS.c.action_count,
    _BUDGETS.c.open_count,
    _AGENTS.c.trust_domain,
    _AGENTS.c.subject,
    _AGENTS.c.disabled_at.label("agent_disabled_at"),
    _AGENTS.c.actions.label("agent_actions"),
    _USERS.c.disabled_at.label("user_disabled_at"),
    select(func.coalesce(func.max(_REVOCATIONS.c.id), 0)).scalar_subquery().label("newest_revocation"),
).select_from(
    _DELEGATIONS.join(
        _BUDGETS,
        (_BUDGETS.c.root_id == _DELEGATIONS.c.root_id) & (_BUDGETS.c.delegation_id == _DELEGATIONS.c.id),
    )
    .join(_AGENTS, _AGENTS.c.client_id == _DELEGATIONS.c.client_id)
    .join(_USERS, _USERS.c.user_id == _DELEGATIONS.c.user_id)
)

# Built once: what SQLAlchemy computes for a statement it keeps with the statement.
_BY_ID = Prepared(_LINKS.where(_DELEGATIONS.c.id == bindparam("delegation")))
_OF_IDS = _LINKS.where(_DELEGATIONS.c.id.in_(bindparam("ids", expanding=True)))
_AT_ONCE = 500  # parameters of one statement; SQLite takes 32,766
_ABOVE = _LINKS.where(
    _DELEGATIONS.c.root_id == bindparam("root"), _DELEGATIONS.c.id.in_(bindparam("ids", expanding=True))
)


def load_chains(
    connection: Connection, delegation_ids: Collection[str], stored: StoredDetails
) -> dict[str, Chain]:
    """The chains of many delegations at once, by the delegation's id."""
    rows = {row.id: row for row in _rows_of(connection, delegation_ids)}
    above = {name for row in rows.values() for name in row.path.split(" ")} - rows.keys()
    links = rows | {row.id: row for row in _rows_of(connection, above)}
    chains = dict[str, Chain]()
    for name, leaf in rows.items():
        path = (links[link] for link in leaf.path.split(" "))
        chains[name] = Chain(tuple(_record(row, stored) for row in path), leaf.newest_revocation)
    return chains


def _rows_of(connection: Connection, delegation_ids: Collection[str]) -> Iterator[Row[tuple[object, ...]]]:
    ids = sorted(delegation_ids)
    for start in range(0, len(ids), _AT_ONCE):
        yield from connection.execute(_OF_IDS, {"ids": ids[start : start + _AT_ONCE]})


def load_chain(connection: Connection, delegation_id: str, stored: StoredDetails) -> Chain | None:
    """The delegation and all above it, or None where there is no such delegation."""
    leaf = _BY_ID.first(connection, {"delegation": delegation_id})
    if leaf is None:
        return None
    above = leaf.path.split(" ")[:-1]
    rows: list[Row[tuple[object, ...]]] = [leaf]
    if above:
        rows += connection.execute(_ABOVE, {"root": leaf.root_id, "ids": above}).all()
    rows.sort(key=lambda row: len(row.path))
    return Chain(tuple(_record(row, stored) for row in rows), leaf.newest_revocation)


def list_delegations(connection: Connection, stored: StoredDetails) -> Iterable[DelegationRecord]:
    """All delegations, oldest first."""
    for row in connection.execute(_LINKS.order_by(_DELEGATIONS.c.created_at, _DELEGATIONS.c.id)):
        yield _record(row, stored)


def roots_of_user(
    connection: Connection, user_id: str, stored: StoredDetails, most: int
) -> list[tuple[DelegationRecord, int]]:
    """The newest delegations that a user granted, not those handed on below them, each with the newest revocation."""
    query = _LINKS.where(_DELEGATIONS.c.user_id == user_id, _DELEGATIONS.c.id == _DELEGATIONS.c.root_id)
    newest_first = query.order_by(_DELEGATIONS.c.created_at.desc(), _DELEGATIONS.c.id).limit(most)
    return [(_record(row, stored), row.newest_revocation) for row in connection.execute(newest_first)]


def below(
    connection: Connection, top: DelegationRecord, stored: StoredDetails, most: int | None = None
) -> list[DelegationRecord]:
    """`top` and all that was handed on below it, each after the one that it hangs below, oldest first; for a tree.

    With `most`, those nearest to `top`.
    """
    prefix = " ".join(top.path)
    query = _LINKS.where(
        _DELEGATIONS.c.root_id == top.root_id,
        # Compared as text, since ids may hold what LIKE would expand.
        func.substr(_DELEGATIONS.c.path + " ", 1, len(prefix) + 1) == prefix + " ",
    )
    if most is not None:  # whatever is above another has the shorter path
        query = query.order_by(func.length(_DELEGATIONS.c.path), _DELEGATIONS.c.created_at).limit(most)
    rows = connection.execute(query).all()
    age = {row.id: (row.created_at, row.id) for row in rows}
    above = len(top.path) - 1
    rows = sorted(rows, key=lambda row: [age[link] for link in row.path.split(" ")[above:]])
    return [_record(row, stored) for row in rows]


@dataclass(frozen=True, slots=True)
class NewDelegation:
    """A delegation to be recorded. `details` are final: `not_before` is set and `expires` is bounded.

    `above` is the delegation that it is handed on from, None for a root; `task_id` the one task that it is for.
    """

    user_id: str
    client_id: str
    details: DelegationDetails
    not_before: datetime
    created_by: str
    above: DelegationRecord | None = None
    task_id: str | None = None


def create(connection: Connection, new: NewDelegation, stored: StoredDetails, now: datetime) -> str:
    """Record a delegation with its empty budget; returns its id. Revocations must be held off meanwhile."""
    delegation_id = new_id()
    root_id = new.above.root_id if new.above else delegation_id
    # INVARIANT: each link of a chain keeps what was revoked before itself, so that a child never revives what is above
    # it (test_A94_a_child_never_revives_a_revoked_ancestor).
    newest = connection.scalar(select(func.coalesce(func.max(_REVOCATIONS.c.id), 0)))
    row = {
        "root_id": root_id,
        "id": delegation_id,
        "path": " ".join((*(new.above.path if new.above else ()), delegation_id)),
        "user_id": new.user_id,
        "client_id": new.client_id,
        "details": stored.write(new.details),
        "not_before": new.not_before,
        "expires_at": new.details.expires,
        "created_at": now,
        "created_by": new.created_by,
        "revocations_before": newest,
        "task_id": new.task_id,
    }
    connection.execute(_DELEGATIONS.insert(), row)
    limits = new.details.limits
    budget = {
        "root_id": root_id,
        "delegation_id": delegation_id,
        "total_limit": limits.total.minor if limits else None,
        "count_limit": limits.count if limits else None,
    }
    connection.execute(_BUDGETS.insert(), budget)
    return delegation_id


def change(
    connection: Connection,
    link: DelegationRecord,
    details: DelegationDetails,
    not_before: datetime,
    stored: StoredDetails,
) -> None:
    """Give a delegation other details; `ledger.terms` brings its budget along in the same transaction."""
    values = {"details": stored.write(details), "not_before": not_before, "expires_at": details.expires}
    mine = (_DELEGATIONS.c.root_id == link.root_id) & (_DELEGATIONS.c.id == link.id)
    connection.execute(_DELEGATIONS.update().where(mine).values(values))


def _record(row: Row[tuple[object, ...]], stored: StoredDetails) -> DelegationRecord:
    return DelegationRecord(
        id=row.id,
        root_id=row.root_id,
        path=tuple(row.path.split(" ")),
        user_id=row.user_id,
        user_disabled_at=row.user_disabled_at,
        client_id=row.client_id,
        trust_domain=row.trust_domain,
        subject=row.subject,
        agent_disabled_at=row.agent_disabled_at,
        agent_actions=None if row.agent_actions is None else frozenset(json.loads(row.agent_actions)),
        details_text=row.details,
        stored=stored,
        not_before=row.not_before,
        expires_at=row.expires_at,
        created_at=row.created_at,
        created_by=row.created_by,
        paused_at=row.paused_at,
        revocations_before=row.revocations_before,
        task_id=row.task_id,
        total_spent=row.total_spent,
        action_count=row.action_count,
        open_count=row.open_count,
    )
