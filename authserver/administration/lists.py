"""What there is, in pages: agents, resource servers, users, delegations, actions, redemptions, approvals, keys, events.

A list has one order, which an index carries, and takes only the filters that it names. A filter is compared as exact
text; `q` is looked for inside names, where capital letters do not count and nothing is a pattern (threats A123).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, and_, exists, or_, select

from authserver.accounts import users
from authserver.administration import shown
from authserver.administration.cursors import Order, Page
from authserver.administration.directory import NEWEST_FIRST
from authserver.administration.items import (
    ActionItem,
    AgentItem,
    ApprovalItem,
    DelegationItem,
    EventItem,
    KeyItem,
    RedemptionItem,
    ResourceServerItem,
    Shown,
    UserItem,
)
from authserver.administration.looked_for import holds, json_holds
from authserver.administration.windows import MOST_LOOKED_THROUGH, window_since
from authserver.approvals.records import ApprovalRecord
from authserver.audit.events import event_of
from authserver.errors import Refusal
from authserver.ledger.actions import COLUMNS
from authserver.policy.reading import read_instant
from authserver.schema import (
    Action,
    Agent,
    Approval,
    AuditEvent,
    Delegation,
    ResourceServer,
    SigningKey,
    Transfer,
    User,
    table_of,
)
from authserver.services import Services

_AGENTS, _SERVERS, _USERS = table_of(Agent), table_of(ResourceServer), table_of(User)
_DELEGATIONS, _ACTIONS, _TRANSFERS = table_of(Delegation), table_of(Action), table_of(Transfer)
_APPROVALS, _EVENTS, _KEYS = table_of(Approval), table_of(AuditEvent), table_of(SigningKey)
_ALL_OF_TIME = 2**62

Item = TypeVar("Item", bound=Shown)
Filter = Callable[["Looked", str], ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Looked:
    """Who looks, with what, and when."""

    services: Services
    connection: Connection
    now: datetime


@dataclass(frozen=True, slots=True)
class Listing(Generic[Item]):
    """One list: what is in it, what names an item, in which order they are, by what they can be filtered, and how they
    are shown.
    """

    query: Select[Any]
    key: Column[Any]
    order: Order
    filters: Mapping[str, Filter]
    show: Callable[[Looked, Sequence[Row[Any]]], Sequence[Item]]


def page_of(
    looked: Looked, listing: Listing[Item], filters: Mapping[str, str], limit: int, cursor: str | None = None
) -> Page[Item]:
    """Up to `limit` items after the cursor; fewer, or none, where few of the next rows are what the filters want.

    Raises `Refusal` (`invalid_request`) for a filter or cursor it has not.
    """
    order = listing.order
    query = order.applied(listing.query, cursor, limit)
    for name, value in filters.items():
        query = query.where(_filter(listing, name)(looked, value))
    last = _last_looked_at(looked.connection, order, cursor) if filters else None
    rows = looked.connection.execute(query if last is None else query.where(order.up_to(last))).all()
    there = rows[:limit]
    goes_on_after = there[-1] if len(rows) > limit else last
    return Page(
        listing.show(looked, there), None if goes_on_after is None else order.cursor_of(goes_on_after)
    )


def _last_looked_at(connection: Connection, order: Order, cursor: str | None) -> Row[Any] | None:
    """The row with which a page ends whatever it has found; None where the list ends before."""
    places = order.applied(select(*order.columns), cursor, 0)
    return connection.execute(places.offset(MOST_LOOKED_THROUGH - 1)).first()


def one_of(looked: Looked, listing: Listing[Item], value: object, *, lock: bool = False) -> Item | None:
    """The one item of a list that `value` names, or None; with `lock`, nobody else changes it meanwhile."""
    if isinstance(value, str) and "\x00" in value:
        return None  # PostgreSQL would not even look for it
    query = listing.query.where(listing.key == value).limit(1)
    items = listing.show(looked, looked.connection.execute(query.with_for_update() if lock else query).all())
    return items[0] if items else None


def _filter(listing: Listing[Item], name: str) -> Filter:
    found = listing.filters.get(name)
    if found is None:
        raise Refusal("invalid_request", "this list has no such filter", rule="list.filter")
    return found


# --- filters ------------------------------------------------------------------------------------------------------


def _is(column: Column[Any]) -> Filter:
    return lambda _looked, value: column == value


def _holds(*columns: Column[Any]) -> Filter:
    return lambda _looked, value: holds(value, *columns)


def _is_disabled(column: Column[Any]) -> Filter:
    return lambda _looked, value: column.is_not(None) if value == "true" else column.is_(None)


def _has_member(column: Column[Any]) -> Filter:
    # The column holds a JSON array of names without anything that JSON would escape.
    return lambda _looked, value: column.contains(json.dumps(value), autoescape=True)


def _between(column: Column[Any], *, until: bool) -> Filter:
    def bound(_looked: Looked, value: str) -> ColumnElement[bool]:
        at = read_instant(value)
        return column < at if until else column >= at

    return bound


def _event_bound(looked: Looked, value: str, *, until: bool) -> ColumnElement[bool]:
    # By the number of the first event since then, for which there is an index.
    first = window_since(looked.connection, read_instant(value), _ALL_OF_TIME).first
    return _EVENTS.c.id < first if until else _EVENTS.c.id >= first


def _of_user(looked: Looked, value: str) -> ColumnElement[bool]:
    user = users.find(looked.connection, value)
    return _DELEGATIONS.c.user_id == (user.user_id if user else value)


# --- the lists ----------------------------------------------------------------------------------------------------

AGENTS: Listing[AgentItem] = Listing(
    select(_AGENTS),
    _AGENTS.c.client_id,
    Order((_AGENTS.c.client_id,)),
    {
        "q": _holds(_AGENTS.c.client_id, _AGENTS.c.name, _AGENTS.c.subject),
        "trust_domain": _is(_AGENTS.c.trust_domain),
        "owner": _is(_AGENTS.c.owner),
        "disabled": _is_disabled(_AGENTS.c.disabled_at),
    },
    lambda _looked, rows: [shown.agent(row) for row in rows],
)
RESOURCE_SERVERS: Listing[ResourceServerItem] = Listing(
    select(_SERVERS),
    _SERVERS.c.id,
    Order((_SERVERS.c.identifier,)),
    {
        "q": _holds(_SERVERS.c.identifier, _SERVERS.c.name),
        "auth": _is(_SERVERS.c.auth_method),
        "disabled": _is_disabled(_SERVERS.c.disabled_at),
    },
    lambda _looked, rows: [shown.resource_server(row) for row in rows],
)
USERS: Listing[UserItem] = Listing(
    select(_USERS),
    _USERS.c.user_id,
    Order((_USERS.c.username,)),
    {
        "q": _holds(_USERS.c.username, _USERS.c.name),
        "role": _is(_USERS.c.role),
        "group": _has_member(_USERS.c.groups),
        "disabled": _is_disabled(_USERS.c.disabled_at),
    },
    lambda _looked, rows: [shown.user(row) for row in rows],
)
DELEGATIONS: Listing[DelegationItem] = Listing(
    select(_DELEGATIONS.c.id, _DELEGATIONS.c.created_at),
    _DELEGATIONS.c.id,
    NEWEST_FIRST,
    {
        "user": _of_user,
        "client_id": _is(_DELEGATIONS.c.client_id),
        "root_id": _is(_DELEGATIONS.c.root_id),
        "task_id": _is(_DELEGATIONS.c.task_id),
    },
    lambda looked, rows: shown.delegations(
        looked.services, looked.connection, [row.id for row in rows], looked.now
    ),
)
_ACTION_FILTERS: Mapping[str, Filter] = {
    "delegation_id": _is(_ACTIONS.c.delegation_id),
    "client_id": _is(_ACTIONS.c.client_id),
    "resource_server_id": _is(_ACTIONS.c.resource_server_id),
    "action": _is(_ACTIONS.c.action),
    "state": _is(_ACTIONS.c.state),
    "task_id": _is(_ACTIONS.c.task_id),
    "reference": _is(_ACTIONS.c.reference),
    "since": _between(_ACTIONS.c.issued_at, until=False),
    "until": _between(_ACTIONS.c.issued_at, until=True),
}
# Status lists are filled one after the other, and have an index; within one the newest come first.
_NEWEST_ACTIONS = Order((_ACTIONS.c.status_list, _ACTIONS.c.issued_at, _ACTIONS.c.id), descending=True)
ACTIONS: Listing[ActionItem] = Listing(
    select(*COLUMNS),
    _ACTIONS.c.id,
    _NEWEST_ACTIONS,
    _ACTION_FILTERS,
    lambda _looked, rows: [shown.action(row) for row in rows],
)
REDEMPTIONS: Listing[RedemptionItem] = Listing(
    select(*COLUMNS).where(
        exists().where(
            _TRANSFERS.c.root_id == _ACTIONS.c.root_id,
            _TRANSFERS.c.action_id == _ACTIONS.c.id,
            _TRANSFERS.c.kind.in_(("authorize", "settle")),
        )
    ),
    _ACTIONS.c.id,
    _NEWEST_ACTIONS,
    _ACTION_FILTERS,
    lambda looked, rows: shown.redemptions(looked.connection, rows),
)
APPROVALS: Listing[ApprovalItem] = Listing(
    select(*(_APPROVALS.c[name] for name in ApprovalRecord.__dataclass_fields__)),
    _APPROVALS.c.id,
    Order((_APPROVALS.c.created_at, _APPROVALS.c.id), descending=True),
    {
        "state": lambda looked, value: _approval_state(value, looked.now),
        "user_id": _is(_APPROVALS.c.user_id),
        "client_id": _is(_APPROVALS.c.client_id),
        "delegation_id": _is(_APPROVALS.c.delegation_id),
    },
    lambda looked, rows: shown.approvals(looked.connection, rows, looked.now),
)
KEYS: Listing[KeyItem] = Listing(
    select(_KEYS),
    _KEYS.c.kid,
    Order((_KEYS.c.activates_at, _KEYS.c.kid), descending=True),
    {},
    lambda looked, rows: [shown.key(row, looked.now) for row in rows],
)
EVENTS: Listing[EventItem] = Listing(
    select(_EVENTS),
    _EVENTS.c.id,
    Order((_EVENTS.c.id,), descending=True),
    {
        "event": _is(_EVENTS.c.event),
        "rule": _is(_EVENTS.c.rule),
        "client_id": _is(_EVENTS.c.client_id),
        "delegation_id": _is(_EVENTS.c.delegation_id),
        "action_id": _is(_EVENTS.c.action_id),
        "q": lambda _looked, value: json_holds(value, _EVENTS.c.data),
        "since": partial(_event_bound, until=False),
        "until": partial(_event_bound, until=True),
    },
    lambda _looked, rows: [shown.event(event_of(row)) for row in rows],
)


def _approval_state(state: str, now: datetime) -> ColumnElement[bool]:
    """As `ApprovalRecord.state_at` says it: no answer in time is `expired`, whether or not that was written down."""
    late = and_(_APPROVALS.c.state.in_(("waiting", "approved")), _APPROVALS.c.expires_at <= now)
    if state == "expired":
        return or_(_APPROVALS.c.state == state, late)
    return and_(_APPROVALS.c.state == state, ~late)
