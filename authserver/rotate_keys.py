"""A new signing key takes over from the present ones, or one is taken back."""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from authserver.audit.events import Record
from authserver.policy.reading import instant_text
from authserver.services import Services
from authserver.tokens import signing_keys
from authserver.tokens.signing_keys import KeyRecord


def rotate(services: Services, *, by: str, now: datetime) -> KeyRecord:
    """Publish a new key, which signs after `[keys] publish_ahead`. Raises `Refusal` (503)."""

    def write(connection: Connection) -> KeyRecord:
        publish_ahead = timedelta(seconds=services.settings.keys.publish_ahead)
        key = signing_keys.rotate(
            connection, services.seal, now, publish_ahead=publish_ahead, longest_life=services.longest_life()
        )
        _created(connection, key, by, now)
        return key

    return services.database.write(write)


def revoke(services: Services, kid: str, *, reason: str, by: str, now: datetime) -> None:
    """Take a key back that others may have: all that it signed ends. Raises `UnknownKey`, and `Refusal` (503)."""

    def write(connection: Connection) -> None:
        made = signing_keys.revoke(connection, services.seal, kid, now)
        Record("key.revoked").changed(connection, now, by=by, kid=kid, reason=reason)
        if made is not None:
            _created(connection, made, by, now)

    services.database.write(write)


def _created(connection: Connection, key: KeyRecord, by: str, now: datetime) -> None:
    activates_at = instant_text(key.activates_at)
    Record("key.created").changed(connection, now, by=by, kid=key.kid, activates_at=activates_at)
