"""Every secret at rest, sealed anew with the present encryption key, so that the one before can go."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, Update, select, update

from authserver.audit.events import Record
from authserver.notifications import addresses
from authserver.schema import EventStream, NotificationAddress, ServerSecret, SigningKey, table_of
from authserver.services import Services
from authserver.streams.records import authorization_purpose
from authserver.tokens import server_secrets, signing_keys

_BATCH = 200


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A column of sealed secrets, and what each was sealed for."""

    table: Table
    column: str
    purpose: Callable[[Any], str]  # of a row with its key


# INVARIANT: every column that is called encrypted_… is here (test_every_secret_at_rest_is_renewed).
SEALED = (
    _Sealed(table_of(SigningKey), "encrypted_private_key", lambda row: signing_keys.purpose_of(str(row.kid))),
    _Sealed(table_of(ServerSecret), "encrypted_value", lambda row: server_secrets.purpose_of(str(row.name))),
    _Sealed(table_of(EventStream), "encrypted_authorization", lambda row: authorization_purpose(str(row.id))),
    _Sealed(table_of(NotificationAddress), "encrypted_address", lambda row: addresses.PURPOSE),
)


def reencrypt(services: Services, by: str, now: datetime) -> int:
    """Seal everything with the present encryption key; how many secrets had another.

    Raises `tokens.sealing.SealBroken` where one was sealed with neither key; then nothing has changed. What is written
    while it runs has the present key already, so to run it again after an interruption is all that is ever needed.
    """
    renewed = services.database.read(lambda connection: [*_renewed(services, connection)])
    for begin in range(0, len(renewed), _BATCH):
        # In small transactions, so that nobody else waits for long.
        some = renewed[begin : begin + _BATCH]
        services.database.write(lambda connection, some=some: _write(connection, some))  # type: ignore[misc]
    event = Record("keys.reencrypted")
    services.database.write(lambda connection: event.changed(connection, now, by=by, secrets=len(renewed)))
    return len(renewed)


def _renewed(services: Services, connection: Connection) -> Iterator[Update]:
    for sealed in SEALED:
        table, column = sealed.table, sealed.table.c[sealed.column]
        for row in connection.execute(select(*table.primary_key, column)):
            before = getattr(row, sealed.column)
            after = None if before is None else services.seal.renew(before, sealed.purpose(row))
            if after is not None:
                # Who was changed or deleted meanwhile has nothing of the other key any more.
                same = (key == getattr(row, key.name) for key in table.primary_key)
                yield update(table).where(*same, column == before).values({sealed.column: after})


def _write(connection: Connection, updates: Sequence[Update]) -> None:
    for one in updates:
        connection.execute(one)
