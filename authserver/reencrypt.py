"""Every secret at rest, sealed anew with the present encryption key, so that the one before can go."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Table, and_, select, update

from authserver.audit.events import Record
from authserver.notifications import addresses
from authserver.schema import NotificationAddress, ServerSecret, SigningKey, table_of
from authserver.services import Services
from authserver.tokens import server_secrets, signing_keys


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A column of sealed secrets, and what each was sealed for."""

    table: Table
    column: str
    purpose: Callable[[Row[Any]], str]


# INVARIANT: every column that is called encrypted_… is here (test_every_secret_at_rest_is_renewed).
SEALED = (
    _Sealed(table_of(SigningKey), "encrypted_private_key", lambda row: signing_keys.purpose_of(str(row.kid))),
    _Sealed(table_of(ServerSecret), "encrypted_value", lambda row: server_secrets.purpose_of(str(row.name))),
    _Sealed(table_of(NotificationAddress), "encrypted_address", lambda row: addresses.PURPOSE),
)


def reencrypt(services: Services, by: str, now: datetime) -> int:
    """Seal everything with the present encryption key, all in one transaction; how many secrets had another.

    Raises `tokens.sealing.SealBroken` where one was sealed with neither key; then nothing has changed.
    """

    def write(connection: Connection) -> int:
        renewed = sum(_renew(services, connection, sealed) for sealed in SEALED)
        Record("keys.reencrypted").changed(connection, now, by=by, secrets=renewed)
        return renewed

    return services.database.write(write)


def _renew(services: Services, connection: Connection, sealed: _Sealed) -> int:
    table, renewed = sealed.table, 0
    for row in connection.execute(select(table)).all():
        before = getattr(row, sealed.column)
        after = services.seal.renew(before, sealed.purpose(row))
        if after is None:
            continue
        # Who was deleted or changed meanwhile has nothing of the old key any more.
        same = and_(
            *(column == getattr(row, column.name) for column in table.primary_key),
            table.c[sealed.column] == before,
        )
        renewed += connection.execute(update(table).where(same).values({sealed.column: after})).rowcount
    return renewed
