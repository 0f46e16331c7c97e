"""Where users want to be told: a browser's push endpoint, or an e-mail address that they confirmed."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, Row, delete, select, update
from sqlalchemy.exc import IntegrityError

from authserver import strict_json
from authserver.db import Conflict
from authserver.ids import new_id
from authserver.schema import NotificationAddress, table_of
from authserver.tokens.sealing import Seal

_TABLE = table_of(NotificationAddress)
PURPOSE = "notification-address"
MOST = 10  # of one user

Channel = Literal["push", "email"]


@dataclass(frozen=True, slots=True)
class Address:
    """One place; `data` is the push subscription, or the e-mail address as `{"email"}`.

    `language` is the one that its person reads, None where it was added before that was known.
    """

    id: str
    user_id: str
    channel: Channel
    confirmed: bool
    language: str | None
    data: dict[str, object] = field(repr=False)


class TooMany(Exception):
    """The user has as many addresses as anybody may."""


def add(
    connection: Connection,
    seal: Seal,
    user_id: str,
    channel: Channel,
    data: Mapping[str, object],
    now: datetime,
    *,
    language: str,
    confirmed: bool,
) -> str:
    """Record an address of somebody who reads `language`. Returns its id.

    One that is not `confirmed` is not used before its code has come back. The same address again takes the
    place of the first. Raises `TooMany`.
    """
    text = strict_json.write(data)
    digest = hashlib.sha256(text.encode()).digest()
    same = (_TABLE.c.user_id == user_id, _TABLE.c.channel == channel, _TABLE.c.address_hash == digest)
    connection.execute(delete(_TABLE).where(*same))
    if len(connection.scalars(select(_TABLE.c.id).where(_TABLE.c.user_id == user_id)).all()) >= MOST:
        raise TooMany
    row = {
        "id": new_id(),
        "user_id": user_id,
        "channel": channel,
        "address_hash": digest,
        "encrypted_address": seal.close(text.encode(), PURPOSE),
        "confirmed_at": now if confirmed else None,
        "language": language,
        "created_at": now,
    }
    try:
        connection.execute(_TABLE.insert(), row)
    except IntegrityError as error:
        raise Conflict from error
    return str(row["id"])


def code_of(secret: bytes, address_id: str) -> str:
    """The code that shows that somebody reads what is sent to an address; it follows from the id."""
    digest = hmac.digest(secret, b"address:" + address_id.encode(), hashlib.sha256)
    return urlsafe_b64encode(digest[:24]).decode()


def confirm(connection: Connection, secret: bytes, user_id: str, unverified_code: str, now: datetime) -> bool:
    """Believe the user's address that this code was sent to; False where there is none."""
    waiting = select(_TABLE.c.id).where(_TABLE.c.user_id == user_id, _TABLE.c.confirmed_at.is_(None))
    for address_id in connection.scalars(waiting):
        if hmac.compare_digest(code_of(secret, address_id).encode(), unverified_code.encode()):
            connection.execute(update(_TABLE).where(_TABLE.c.id == address_id).values(confirmed_at=now))
            return True
    return False


def of_users(
    connection: Connection, seal: Seal, user_ids: Collection[str], *, confirmed: bool = True
) -> list[Address]:
    """The addresses of some users, oldest first; without `confirmed`, those too that are not used yet."""
    query = select(_TABLE).where(_TABLE.c.user_id.in_(user_ids))
    if confirmed:
        query = query.where(_TABLE.c.confirmed_at.is_not(None))
    return [
        _address(row, seal) for row in connection.execute(query.order_by(_TABLE.c.created_at, _TABLE.c.id))
    ]


def speak(connection: Connection, user_id: str, language: str) -> None:
    """From now on this person is written to in that language, wherever it is."""
    connection.execute(update(_TABLE).where(_TABLE.c.user_id == user_id).values(language=language))


def find(connection: Connection, seal: Seal, address_id: str) -> Address | None:
    """The address of that id."""
    row = connection.execute(select(_TABLE).where(_TABLE.c.id == address_id)).first()
    return None if row is None else _address(row, seal)


def remove(connection: Connection, address_id: str, user_id: str | None = None) -> bool:
    """Forget an address; with `user_id`, only one of that user. False where there is none."""
    gone = delete(_TABLE).where(_TABLE.c.id == address_id)
    if user_id is not None:
        gone = gone.where(_TABLE.c.user_id == user_id)
    return connection.execute(gone).rowcount == 1


def _address(row: Row[tuple[object, ...]], seal: Seal) -> Address:
    data = json.loads(seal.open(row.encrypted_address, PURPOSE))
    return Address(row.id, row.user_id, row.channel, row.confirmed_at is not None, row.language, data)
