"""Decisions as they are made: what agents asked for, what came of it, and what decided; the newest first."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import ColumnElement, Connection, func, select

from authserver.administration.windows import MOST_LOOKED_THROUGH
from authserver.audit.events import Event, event_of
from authserver.schema import Agent, AuditEvent, Delegation, User, table_of

_EVENTS, _AGENTS = table_of(AuditEvent), table_of(Agent)
_DELEGATIONS, _USERS = table_of(Delegation), table_of(User)

Outcome = Literal["permitted", "refused", "awaiting"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
# `deferred` is an exchange that is completed after an approval; a hand-over is an exchange for a grant.
EVENTS: Mapping[Outcome, tuple[str, ...]] = {
    "permitted": ("exchange.permitted", "deferred.permitted", "hand_over.permitted", "redemption.permitted"),
    "refused": ("exchange.refused", "deferred.refused", "hand_over.refused", "redemption.refused"),
    "awaiting": ("exchange.deferred",),
}
_OUTCOME_OF: Mapping[str, Outcome] = {name: outcome for outcome, names in EVENTS.items() for name in names}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which decisions; None wants all. `reason` is the rule that refused, as the audit names it."""

    agent: str | None = None
    action: str | None = None
    outcome: Outcome | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision; `agent` and `user` are names, None where the audit does not say whose it was."""

    event: Event
    outcome: Outcome
    agent: str | None
    user_id: str | None
    user: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some decisions; `older` is the cursor of those before them, None where there are none."""

    decisions: tuple[Decision, ...]
    older: int | None


def outcome_of(event: str) -> Outcome | None:
    """What an event of that name decided; None where it is no decision."""
    return _OUTCOME_OF.get(event)


@dataclass(frozen=True, slots=True)
class Some:
    """Some events; `older` is the number before which there may be more, None where there are none."""

    events: tuple[Event, ...]
    older: int | None


def newest(
    connection: Connection, conditions: Iterable[ColumnElement[bool]], before: int | None, most: int
) -> Some:
    """Up to `most` events, the last first; with `before`, those earlier than the event of that number."""
    if before is None:
        before = (connection.scalar(select(func.max(_EVENTS.c.id))) or 0) + 1
    floor = before - MOST_LOOKED_THROUGH
    query = select(_EVENTS).where(_EVENTS.c.id < before, _EVENTS.c.id >= floor, *conditions)
    rows = connection.execute(query.order_by(_EVENTS.c.id.desc()).limit(most + 1)).all()
    if len(rows) > most:
        return Some(tuple(map(event_of, rows[:most])), rows[most - 1].id)
    is_there = select(_EVENTS.c.id).where(_EVENTS.c.id < floor).limit(1)
    return Some(tuple(map(event_of, rows)), floor if connection.scalar(is_there) is not None else None)


def decisions(connection: Connection, wanted: Wanted, before: int | None, most: int) -> Page:
    """Up to `most` decisions, the last first; with `before`, those earlier than the event of that id."""
    found = newest(connection, _conditions(wanted), before, most)
    return Page(with_names(connection, found.events), found.older)


def with_names(connection: Connection, events: Sequence[Event]) -> tuple[Decision, ...]:
    """Those events that are decisions, with the names of agents and users."""
    agents = _agents(connection, {event.client_id for event in events if event.client_id})
    users = _users(connection, {event.delegation_id for event in events if event.delegation_id})
    decided = []
    for event in events:
        outcome = outcome_of(event.event)
        if outcome is not None:
            user_id, user = users.get(event.delegation_id or "", (None, None))
            decided.append(Decision(event, outcome, agents.get(event.client_id or ""), user_id, user))
    return tuple(decided)


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    names = EVENTS[wanted.outcome] if wanted.outcome else tuple(_OUTCOME_OF)
    conditions: list[ColumnElement[bool]] = [_EVENTS.c.event.in_(names)]
    if wanted.agent is not None:
        conditions.append(_EVENTS.c.client_id == wanted.agent)
    if wanted.reason is not None:
        conditions.append(_EVENTS.c.rule == wanted.reason)
    if wanted.action is not None:
        # As `strict_json` writes it; a quotation mark inside a value is escaped, so no other text reads like this.
        conditions.append(_EVENTS.c.data.contains(f'"actions":["{wanted.action}"]', autoescape=True))
    return conditions


def _agents(connection: Connection, client_ids: Collection[str]) -> dict[str, str]:
    query = select(_AGENTS.c.client_id, _AGENTS.c.name).where(_AGENTS.c.client_id.in_(client_ids))
    return {row.client_id: row.name for row in connection.execute(query)} if client_ids else {}


def _users(connection: Connection, delegations: Collection[str]) -> dict[str, tuple[str, str]]:
    query = (
        select(_DELEGATIONS.c.id, _USERS.c.user_id, _USERS.c.name)
        .join(_USERS, _USERS.c.user_id == _DELEGATIONS.c.user_id)
        .where(_DELEGATIONS.c.id.in_(delegations))
    )
    return {row.id: (row.user_id, row.name) for row in connection.execute(query)} if delegations else {}
