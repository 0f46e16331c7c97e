"""Delegations in pages, the newest first: of everybody, of one user, or of one agent; with whose they are."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from authserver import my_agents
from authserver.accounts import users
from authserver.accounts.users import User
from authserver.administration.cursors import Order, Page
from authserver.delegations import records
from authserver.my_agents import Held
from authserver.schema import Delegation, table_of
from authserver.services import Services

_DELEGATIONS = table_of(Delegation)
NEWEST_FIRST = Order((_DELEGATIONS.c.created_at, _DELEGATIONS.c.id), descending=True)


@dataclass(frozen=True, slots=True)
class Holding:
    """A delegation with whose it is; `user` is None where there is no such user any more."""

    held: Held
    user: User | None


@dataclass(frozen=True, slots=True)
class Whose:
    """Of whom; None is of everybody."""

    agent: str | None = None
    user: str | None = None


def delegations(
    services: Services, connection: Connection, whose: Whose, cursor: str | None, most: int, now: datetime
) -> Page[Holding]:
    """Up to `most` delegations, the newest first, those after the cursor. Raises `Refusal` for what is none."""
    rows = connection.execute(NEWEST_FIRST.applied(_of(whose), cursor, most)).all()
    ids = [row.id for row in rows[:most]]
    chains = records.load_chains(connection, ids, services.stored)
    standing = my_agents.as_held(connection, [chains[id] for id in ids if id in chains], now)
    people = users.by_ids(connection, {one.link.user_id for one in standing})
    holdings = [Holding(one, people.get(one.link.user_id)) for one in standing]
    return Page(holdings, NEWEST_FIRST.cursor_of(rows[most - 1]) if len(rows) > most else None)


def _of(whose: Whose) -> Select[Any]:
    query = select(_DELEGATIONS.c.id, _DELEGATIONS.c.created_at)
    if whose.agent is not None:
        query = query.where(_DELEGATIONS.c.client_id == whose.agent)
    if whose.user is not None:
        query = query.where(_DELEGATIONS.c.user_id == whose.user)
    return query
