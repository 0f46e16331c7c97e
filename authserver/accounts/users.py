"""Users as rows: the people whose authority is delegated, and those who operate the server."""

import hashlib
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Row, and_, func, literal, select, update
from sqlalchemy.exc import IntegrityError

from authserver.accounts import passwords
from authserver.ids import new_id
from authserver.schema import Instant, table_of
from authserver.schema import User as UserRow

_TABLE = table_of(UserRow)
_ENROLMENT_LASTS = timedelta(days=1)


class UserExists(Exception):
    """There is a user of that name already."""


@dataclass(frozen=True, slots=True)
class User:
    """A person. `role` is set for operators of the server, `groups` are the groups that approve."""

    user_id: str
    username: str
    name: str
    role: str | None
    groups: tuple[str, ...]
    created_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to be made. `password` is hashed with argon2id and never kept."""

    username: str
    name: str
    role: str | None = None
    groups: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False)


def create(connection: Connection, new: NewUser, now: datetime) -> tuple[str, str]:
    """Record a user; returns the id and a secret, good once within a day, to enrol with. Raises `UserExists`."""
    user_id, secret = new_id(), secrets.token_urlsafe(32)
    row = {
        "user_id": user_id,
        "username": new.username,
        "name": new.name,
        "role": new.role,
        "groups": json.dumps(list(new.groups)),
        "password_hash": passwords.hash_of(new.password) if new.password is not None else None,
        "enrolment_hash": hashlib.sha256(secret.encode()).digest(),
        "enrolment_expires_at": now + _ENROLMENT_LASTS,
        "created_at": now,
    }
    try:
        connection.execute(_TABLE.insert(), row)
    except IntegrityError as error:
        raise UserExists(new.username) from error
    return user_id, secret


def invite(connection: Connection, user_id: str, now: datetime) -> str:
    """A new secret to enrol with, good once within a day, in place of the one before; gives it."""
    secret = secrets.token_urlsafe(32)
    values = {
        "enrolment_hash": hashlib.sha256(secret.encode()).digest(),
        "enrolment_expires_at": now + _ENROLMENT_LASTS,
    }
    connection.execute(update(_TABLE).where(_TABLE.c.user_id == user_id).values(values))
    return secret


def forget_password(connection: Connection, user_id: str) -> None:
    """Let nobody sign in with the password any more."""
    connection.execute(update(_TABLE).where(_TABLE.c.user_id == user_id).values(password_hash=None))


def change(connection: Connection, user: User) -> None:
    """Write all of a user that an operator may change: the name, the role and the groups."""
    values = {"name": user.name, "role": user.role, "groups": json.dumps(list(user.groups))}
    connection.execute(_TABLE.update().where(_TABLE.c.user_id == user.user_id).values(values))


def disable(connection: Connection, user_id: str, now: datetime) -> int:
    """Let a user sign in and grant no more; the first time counts. Returns 1, or 0 where there is no such user."""
    first = func.coalesce(_TABLE.c.disabled_at, literal(now, Instant()))
    gone = {"disabled_at": first, "enrolment_hash": None, "enrolment_expires_at": None}
    return connection.execute(update(_TABLE).where(_TABLE.c.user_id == user_id).values(gone)).rowcount


def enable(connection: Connection, user_id: str) -> int:
    """Let a user sign in again with what they had. Returns 1, or 0 where nobody of that id was disabled."""
    disabled = (_TABLE.c.user_id == user_id, _TABLE.c.disabled_at.is_not(None))
    return connection.execute(update(_TABLE).where(*disabled).values(disabled_at=None)).rowcount


def lock_owners(connection: Connection) -> int:
    """How many owners can sign in; none of them stops being one meanwhile, but by this transaction."""
    # In one order, so that two who lock them do not wait for each other.
    owners = select(_TABLE.c.user_id).where(_TABLE.c.role == "owner", _TABLE.c.disabled_at.is_(None))
    return len(connection.execute(owners.order_by(_TABLE.c.user_id).with_for_update()).all())


def find(connection: Connection, name: str) -> User | None:
    """The user of that user name or id."""
    row = connection.execute(
        select(_TABLE)
        .where((_TABLE.c.username == name) | (_TABLE.c.user_id == name))
        .order_by(_TABLE.c.username != name)
    ).first()
    return None if row is None else _user(row)


def by_id(connection: Connection, user_id: str) -> User | None:
    """The user of that id."""
    row = connection.execute(select(_TABLE).where(_TABLE.c.user_id == user_id)).first()
    return None if row is None else _user(row)


def to_sign_in(connection: Connection, username: str) -> tuple[User, str | None] | None:
    """The enabled user of that user name, and the hash of the password if there is one."""
    row = connection.execute(
        select(_TABLE).where(_TABLE.c.username == username, _TABLE.c.disabled_at.is_(None))
    ).first()
    return None if row is None else (_user(row), row.password_hash)


def to_enrol(connection: Connection, unverified_secret: str, now: datetime) -> User | None:
    """The user whose enrolment link has that secret, while it is good."""
    row = connection.execute(select(_TABLE).where(_enrols(unverified_secret, now))).first()
    return None if row is None else _user(row)


def use_enrolment(connection: Connection, unverified_secret: str, now: datetime) -> int:
    """Use an enrolment link up; returns 1, or 0 where it was used or is too old."""
    used = {"enrolment_hash": None, "enrolment_expires_at": None}
    return connection.execute(update(_TABLE).where(_enrols(unverified_secret, now)).values(used)).rowcount


def set_password(connection: Connection, user_id: str, password_hash: str) -> None:
    """Give a user another password. A link to enrol with, which somebody else may have seen, ends with the old one."""
    values = {"password_hash": password_hash, "enrolment_hash": None, "enrolment_expires_at": None}
    connection.execute(update(_TABLE).where(_TABLE.c.user_id == user_id).values(values))


def has_password(connection: Connection, user_id: str) -> bool:
    """Whether a user can sign in with a password."""
    found = select(_TABLE.c.password_hash).where(_TABLE.c.user_id == user_id)
    return connection.scalar(found) is not None


def _enrols(unverified_secret: str, now: datetime) -> ColumnElement[bool]:
    secret_hash = hashlib.sha256(unverified_secret.encode()).digest()
    return and_(
        _TABLE.c.enrolment_hash == secret_hash,
        _TABLE.c.enrolment_expires_at > now,
        _TABLE.c.disabled_at.is_(None),
    )


def list_all(connection: Connection) -> list[User]:
    """All users by user name."""
    return [_user(row) for row in connection.execute(select(_TABLE).order_by(_TABLE.c.username))]


def by_ids(connection: Connection, user_ids: Collection[str]) -> dict[str, User]:
    """The users of these ids, those that there are."""
    rows = connection.execute(select(_TABLE).where(_TABLE.c.user_id.in_(user_ids))) if user_ids else ()
    return {user.user_id: user for user in map(_user, rows)}


def list_some(connection: Connection, after: str, most: int) -> list[User]:
    """Up to `most` users by user name, those after that one."""
    query = select(_TABLE).where(_TABLE.c.username > after).order_by(_TABLE.c.username).limit(most)
    return [_user(row) for row in connection.execute(query)]


def _user(row: Row[tuple[object, ...]]) -> User:
    return User(
        row.user_id,
        row.username,
        row.name,
        row.role,
        tuple(json.loads(row.groups)),
        row.created_at,
        row.disabled_at,
    )
