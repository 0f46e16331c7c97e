"""Secrets that all processes share and that never change: made by whoever needs one first."""

import secrets
from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from authserver.db import Conflict
from authserver.schema import ServerSecret, table_of
from authserver.tokens.sealing import Seal

_TABLE = table_of(ServerSecret)


def purpose_of(name: str) -> str:
    """What the secret is sealed for."""
    return f"secret:{name}"


def shared_secret(connection: Connection, seal: Seal, name: str, now: datetime) -> bytes:
    """32 random bytes that are the same in every process. Run it in a transaction that may write."""
    sealed = connection.scalar(select(_TABLE.c.encrypted_value).where(_TABLE.c.name == name))
    if sealed is not None:
        return seal.open(sealed, purpose_of(name))
    made = secrets.token_bytes(32)
    row = {"name": name, "encrypted_value": seal.close(made, purpose_of(name)), "created_at": now}
    try:
        connection.execute(_TABLE.insert(), row)
    except IntegrityError as error:
        raise Conflict from error
    return made
