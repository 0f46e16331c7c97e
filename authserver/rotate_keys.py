"""A new signing key takes over from the present ones."""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from authserver.audit.events import Record
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
        activates_at = key.activates_at.isoformat().replace("+00:00", "Z")
        Record("key.created").changed(connection, now, by=by, kid=key.kid, activates_at=activates_at)
        return key

    return services.database.write(write)
