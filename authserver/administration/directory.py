"""Delegations in pages, the newest first: of everybody, of one user, or of one agent; with whose they are."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Select, select

from authserver import my_agents
from authserver.accounts import users
from authserver.accounts.users import User
from authserver.delegations import records
from authserver.my_agents import Held
from authserver.schema import EPOCH, Delegation, table_of
from authserver.services import Services

_DELEGATIONS = table_of(Delegation)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Cursor:
    """After which delegation to go on: it was made at `at` and has that `id`."""

    at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class Holding:
    """A delegation with whose it is; `user` is None where there is no such user any more."""

    held: Held
    user: User | None

    @property
    def cursor(self) -> Cursor:
        """To go on after this one."""
        return Cursor(self.held.link.created_at, self.held.link.id)


@dataclass(frozen=True, slots=True)
class Whose:
    """Of whom; None is of everybody."""

    agent: str | None = None
    user: str | None = None


def delegations(
    services: Services, connection: Connection, whose: Whose, after: Cursor | None, most: int, now: datetime
) -> list[Holding]:
    """Up to `most` delegations, the newest first, those after `after`."""
    ids = list(connection.scalars(_newest(whose, after).limit(most)))
    chains = records.load_chains(connection, ids, services.stored)
    standing = my_agents.as_held(connection, [chains[id] for id in ids if id in chains], now)
    known = people(connection, (one.link.user_id for one in standing))
    return [Holding(one, known.get(one.link.user_id)) for one in standing]


def people(connection: Connection, user_ids: Iterable[str]) -> dict[str, User]:
    """The users of these ids."""
    found = (users.by_id(connection, user_id) for user_id in sorted(set(user_ids)))
    return {user.user_id: user for user in found if user is not None}


def _newest(whose: Whose, after: Cursor | None) -> Select[str]:
    query = select(_DELEGATIONS.c.id).order_by(_DELEGATIONS.c.created_at.desc(), _DELEGATIONS.c.id.desc())
    if whose.agent is not None:
        query = query.where(_DELEGATIONS.c.client_id == whose.agent)
    if whose.user is not None:
        query = query.where(_DELEGATIONS.c.user_id == whose.user)
    if after is not None:
        earlier = _DELEGATIONS.c.created_at < after.at
        same = (_DELEGATIONS.c.created_at == after.at) & (_DELEGATIONS.c.id < after.id)
        query = query.where(earlier | same)
    return query


def read_cursor(unverified: str) -> Cursor | None:
    """What `write_cursor` wrote; None for anything else, which begins anew."""
    micros, dot, id = unverified.partition(".")
    if not dot or not (micros.isascii() and micros.isdigit() and len(micros) < 17) or not id.isprintable():
        return None
    return Cursor(EPOCH + int(micros) * _MICROSECOND, id)


def write_cursor(cursor: Cursor) -> str:
    """A cursor as text."""
    return f"{(cursor.at - EPOCH) // _MICROSECOND}.{cursor.id}"
