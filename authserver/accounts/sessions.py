"""Sessions of signed-in people: rows, of which the browser holds a secret and the database only its hash."""

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, Row, delete, select, update

from authserver.ids import new_id
from authserver.schema import Session as SessionRow
from authserver.schema import table_of

_TABLE = table_of(SessionRow)
_SEEN_EVERY = timedelta(minutes=1)  # a page that is looked at is no reason to write each time


@dataclass(frozen=True, slots=True)
class Visitor:
    """Where a request comes from, as far as it can be told: for the person's list of sessions and for counting."""

    address: str
    browser: str


@dataclass(frozen=True, slots=True)
class Authentication:
    """How somebody proved who they are: `amr` as RFC 8176 names it; `acr` and `at` where an upstream provider said so.

    `at` is when, which was before now where the provider knew the person already.
    """

    amr: tuple[str, ...]
    acr: str | None = None
    at: datetime | None = None

    def to_json(self) -> dict[str, object]:
        """For the audit, what RFC 9470 and OpenID Connect call these."""
        said = {"amr": list(self.amr), "acr": self.acr, "auth_time": self.at and int(self.at.timestamp())}
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Lasting:
    """How long sessions last: without a request, and in all."""

    idle: timedelta
    longest: timedelta


@dataclass(frozen=True, slots=True)
class Session:
    """One browser in which a person is signed in."""

    session_id: str
    user_id: str
    amr: tuple[str, ...]
    acr: str | None
    address: str
    browser: str
    authenticated_at: datetime
    seen_at: datetime
    expires_at: datetime

    def should_be_seen(self, now: datetime) -> bool:
        """Whether it is time to write down that it is in use."""
        return now - self.seen_at >= _SEEN_EVERY


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that has just begun, and what the browser keeps of it."""

    session_id: str
    secret: str = field(repr=False)


def begin(
    connection: Connection,
    user_id: str,
    how: Authentication,
    visitor: Visitor,
    lasting: Lasting,
    now: datetime,
) -> NewSession:
    """Begin a session under a new secret: one from before the sign-in is never taken over (threats A114)."""
    made = NewSession(new_id(), secrets.token_urlsafe(32))
    row = {
        "secret_hash": _hash_of(made.secret),
        "session_id": made.session_id,
        "user_id": user_id,
        "amr": json.dumps(how.amr),
        "acr": how.acr,
        "address": visitor.address,
        "browser": visitor.browser,
        "authenticated_at": min(how.at or now, now),
        "seen_at": now,
        "expires_at": now + lasting.longest,
    }
    connection.execute(_TABLE.insert(), row)
    return made


def find(connection: Connection, unverified_secret: str, lasting: Lasting, now: datetime) -> Session | None:
    """The session of that secret, or None where it has ended, whatever ended it."""
    row = connection.execute(
        select(_TABLE).where(
            _TABLE.c.secret_hash == _hash_of(unverified_secret),
            _TABLE.c.expires_at > now,
            _TABLE.c.seen_at > now - lasting.idle,
        )
    ).first()
    return None if row is None else _session(row)


def of_user(connection: Connection, user_id: str, lasting: Lasting, now: datetime) -> list[Session]:
    """The sessions of a person that have not ended, the one last used first."""
    rows = connection.execute(
        select(_TABLE)
        .where(_TABLE.c.user_id == user_id, _TABLE.c.expires_at > now, _TABLE.c.seen_at > now - lasting.idle)
        .order_by(_TABLE.c.seen_at.desc(), _TABLE.c.session_id)
    )
    return [_session(row) for row in rows]


def see(connection: Connection, session_id: str, now: datetime) -> None:
    """Write down that the session is in use."""
    connection.execute(
        update(_TABLE).where(_TABLE.c.session_id == session_id, _TABLE.c.seen_at < now).values(seen_at=now)
    )


def end(connection: Connection, session_id: str, *, of: str | None = None) -> int:
    """End one session, if it is `of` that user; returns how many that were, 0 where there was none."""
    ending = delete(_TABLE).where(_TABLE.c.session_id == session_id)
    if of is not None:
        ending = ending.where(_TABLE.c.user_id == of)
    return connection.execute(ending).rowcount


def end_all(connection: Connection, user_id: str) -> int:
    """End all sessions of a person; returns how many."""
    return connection.execute(delete(_TABLE).where(_TABLE.c.user_id == user_id)).rowcount


def prune(connection: Connection, now: datetime, most: int) -> int:
    """Forget up to `most` sessions that have ended by time; returns how many."""
    ended = select(_TABLE.c.session_id).where(_TABLE.c.expires_at <= now).limit(most)
    return connection.execute(delete(_TABLE).where(_TABLE.c.session_id.in_(ended))).rowcount


def _hash_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _session(row: Row[tuple[object, ...]]) -> Session:
    return Session(
        row.session_id,
        row.user_id,
        tuple(json.loads(row.amr)),
        row.acr,
        row.address,
        row.browser,
        row.authenticated_at,
        row.seen_at,
        row.expires_at,
    )
