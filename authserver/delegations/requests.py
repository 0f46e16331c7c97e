"""What agents ask people to allow, as rows: from the request, by the answer, to the one use of its code."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, func, select, update

from authserver.delegations.stored_details import StoredDetails
from authserver.ids import new_id
from authserver.policy.delegation_details import DelegationDetails
from authserver.schema import Agent as AgentRow
from authserver.schema import AuthorizationRequest as RequestRow
from authserver.schema import table_of

_TABLE, _AGENTS = table_of(RequestRow), table_of(AgentRow)
# How long an answered request is remembered: a code that comes again is known for one that was used (RFC 6749 §4.1.2).
_REMEMBERED = timedelta(days=1)
# And one that nobody answered: its device is told for a while that it came too late.
_REMEMBERED_UNANSWERED = timedelta(minutes=10)

Action = Literal["create", "merge", "replace"]


@dataclass(frozen=True, slots=True)
class ToBrowser:
    """Where the answer goes: back to the agent by redirect, with a code that only its verifier can use."""

    redirect_uri: str
    state: str | None
    code_challenge: str = field(repr=False)
    dpop_jkt: str | None
    prompt: tuple[str, ...]
    max_age: int | None
    acr_values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ToDevice:
    """The device that waits for the answer, as its request showed it (RFC 8628 §5.4)."""

    address: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of an existing delegation; `grant_id` is None where there is none."""

    action: Action
    grant_id: str | None


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request to be recorded; of its secrets, only the hashes are."""

    client_id: str
    details: DelegationDetails
    way: ToBrowser | ToDevice
    change: Change
    handle: str = field(repr=False)
    user_code: str | None = field(repr=False)
    interval: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request, and how far it has come."""

    id: str
    client_id: str
    state: str  # waiting | allowed | denied | used
    details: DelegationDetails
    way: ToBrowser | ToDevice
    change: Change
    user_id: str | None
    delegation_id: str | None
    authenticated_at: datetime | None
    acr: str | None
    interval: int
    polled_at: datetime | None
    created_at: datetime
    expires_at: datetime


def create(connection: Connection, new: NewRequest, stored: StoredDetails, now: datetime) -> str:
    """Record a request; returns its id."""
    row = {
        "id": new_id(),
        "client_id": new.client_id,
        "state": "waiting",
        "handle_hash": _hash_of(new.handle),
        "user_code_hash": None if new.user_code is None else _hash_of(new.user_code),
        "details": stored.write(new.details),
        "way": json.dumps(asdict(new.way)),
        "action": new.change.action,
        "grant_id": new.change.grant_id,
        "interval": new.interval,
        "created_at": now,
        "expires_at": new.expires_at,
    }
    connection.execute(_TABLE.insert(), row)
    return str(row["id"])


def waiting_of(
    connection: Connection, client_id: str, most: int, now: datetime
) -> tuple[int, datetime | None]:
    """How many requests of that agent wait, counted up to `most`, and when the first of those is over.

    The agent's row is locked until the transaction ends, so that of many that come at once each is counted.
    """
    connection.execute(select(_AGENTS.c.client_id).where(_AGENTS.c.client_id == client_id).with_for_update())
    waiting = (_TABLE.c.client_id == client_id, _TABLE.c.state == "waiting", _TABLE.c.expires_at > now)
    first = select(_TABLE.c.expires_at).where(*waiting).order_by(_TABLE.c.expires_at).limit(most).subquery()
    counted = select(func.count().label("number"), func.min(first.c.expires_at).label("over")).select_from(
        first
    )
    row = connection.execute(counted).one()
    return row.number, row.over


def find(connection: Connection, id: str, stored: StoredDetails) -> AuthorizationRequest | None:
    """The request of that id."""
    return _one(connection.execute(select(_TABLE).where(_TABLE.c.id == id)).first(), stored)


def find_by_handle(
    connection: Connection, unverified_handle: str, stored: StoredDetails
) -> AuthorizationRequest | None:
    """The request of that request_uri or device_code."""
    found = select(_TABLE).where(_TABLE.c.handle_hash == _hash_of(unverified_handle))
    return _one(connection.execute(found).first(), stored)


def find_by_user_code(
    connection: Connection, unverified_code: str, stored: StoredDetails
) -> AuthorizationRequest | None:
    """The request of that user_code."""
    found = select(_TABLE).where(_TABLE.c.user_code_hash == _hash_of(unverified_code))
    return _one(connection.execute(found).first(), stored)


def find_by_code(
    connection: Connection, unverified_code: str, stored: StoredDetails
) -> AuthorizationRequest | None:
    """The request that was answered with that authorization code."""
    found = select(_TABLE).where(_TABLE.c.code_hash == _hash_of(unverified_code))
    return _one(connection.execute(found).first(), stored)


def open_for(connection: Connection, id: str, user_id: str, now: datetime) -> bool:
    """Let this person answer it, and from now on nobody else; False where it is not to be had any more."""
    mine = _TABLE.c.user_id.is_(None) | (_TABLE.c.user_id == user_id)
    return _move(connection, id, "waiting", now, mine, user_id=user_id)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the person said; where it was yes, with `code`, `delegation_id`, and when and
    how (`acr`) they had signed in."""

    state: Literal["allowed", "denied"]
    delegation_id: str | None
    code: str | None = field(repr=False)
    expires_at: datetime
    authenticated_at: datetime | None = None
    acr: str | None = None


def answer(connection: Connection, id: str, user_id: str, said: Answer, now: datetime) -> bool:
    """Answer it, once, by the person who opened it; False where it was answered or has expired."""
    return _move(
        connection,
        id,
        "waiting",
        now,
        _TABLE.c.user_id == user_id,
        state=said.state,
        delegation_id=said.delegation_id,
        code_hash=None if said.code is None else _hash_of(said.code),
        authenticated_at=said.authenticated_at,
        acr=said.acr,
        expires_at=said.expires_at,
    )


def use(connection: Connection, id: str, now: datetime) -> bool:
    """Use up the code of an allowed request, once; False where it was used or has expired."""
    return _move(connection, id, "allowed", now, state="used")


def polled(connection: Connection, id: str, interval: int, now: datetime) -> None:
    """Write down when its device asked last, and how long it has to wait from now on."""
    connection.execute(update(_TABLE).where(_TABLE.c.id == id).values(polled_at=now, interval=interval))


def unclaimed(connection: Connection, now: datetime, most: int) -> list[tuple[str, str]]:
    """(request, delegation) of what was allowed anew, and whose code nobody came to use."""
    found = (
        select(_TABLE.c.id, _TABLE.c.delegation_id)
        .where(_TABLE.c.expires_at <= now, _TABLE.c.state == "allowed", _TABLE.c.action == "create")
        .limit(most)
    )
    return [(row.id, row.delegation_id) for row in connection.execute(found)]


def given_up(connection: Connection, id: str) -> None:
    """Nobody came to use its code, and what it gave was taken back."""
    connection.execute(update(_TABLE).where(_TABLE.c.id == id).values(state="used"))


def prune(connection: Connection, now: datetime, most: int) -> int:
    """Forget up to `most` requests that ended a while ago; returns how many."""
    unanswered = (_TABLE.c.state == "waiting") & (_TABLE.c.expires_at <= now - _REMEMBERED_UNANSWERED)
    old = select(_TABLE.c.id).where((_TABLE.c.expires_at <= now - _REMEMBERED) | unanswered).limit(most)
    return connection.execute(delete(_TABLE).where(_TABLE.c.id.in_(old))).rowcount


def _move(
    connection: Connection, id: str, before: str, now: datetime, *conditions: object, **values: object
) -> bool:
    # The conditional update is the check: of two who come at once, one finds the request as it was.
    stands = (_TABLE.c.id == id, _TABLE.c.state == before, _TABLE.c.expires_at > now)
    changed = update(_TABLE).where(*stands, *conditions).values(values)  # type: ignore[arg-type]
    return connection.execute(changed).rowcount == 1


def _hash_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _one(row: Row[tuple[object, ...]] | None, stored: StoredDetails) -> AuthorizationRequest | None:
    if row is None:
        return None
    return AuthorizationRequest(
        id=row.id,
        client_id=row.client_id,
        state=row.state,
        details=stored.read(row.details),
        way=_way(json.loads(row.way)),
        change=Change(row.action, row.grant_id),
        user_id=row.user_id,
        delegation_id=row.delegation_id,
        authenticated_at=row.authenticated_at,
        acr=row.acr,
        interval=row.interval,
        polled_at=row.polled_at,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _way(members: dict[str, Any]) -> ToBrowser | ToDevice:
    if "address" in members:
        return ToDevice(str(members["address"]), str(members["user_agent"]))
    members |= {name: tuple(members[name]) for name in ("prompt", "acr_values")}
    return ToBrowser(**members)
