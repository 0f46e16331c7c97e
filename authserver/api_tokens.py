"""Tokens for programs that administer come to be, and end; both are audited."""

from datetime import datetime

from sqlalchemy import Connection

from authserver.accounts import api_tokens
from authserver.accounts.api_tokens import ApiToken
from authserver.audit.events import Record
from authserver.members import without_none
from authserver.policy.reading import instant_text
from authserver.services import Services


class NoSuchToken(LookupError):
    """There is no API token of that id."""


def members_of(token: ApiToken) -> dict[str, object]:
    """What the audit and operators see of a token."""
    return without_none(
        id=token.id,
        name=token.name,
        role=token.role,
        created_at=_text(token.created_at),
        created_by=token.created_by,
        expires_at=_text(token.expires_at),
        used_at=_text(token.used_at),
        revoked_at=_text(token.revoked_at),
    )


def create(
    services: Services, *, name: str, role: str, expires_at: datetime | None, by: str, now: datetime
) -> tuple[ApiToken, str]:
    """Make a token; returns it with its text, to be shown once. Raises `Refusal` (503)."""

    def write(connection: Connection) -> tuple[ApiToken, str]:
        made, text = api_tokens.create(connection, name, role, expires_at, by, now)
        Record("api_token.created").changed(connection, now, by=by, api_token=members_of(made))
        return made, text

    return services.database.write(write)


def revoke(services: Services, id: str, *, by: str, now: datetime) -> ApiToken:
    """End a token, from the next request on. Raises `NoSuchToken`."""

    def write(connection: Connection) -> ApiToken:
        before = api_tokens.find(connection, id)
        if before is None or api_tokens.revoke(connection, id, now) != 1:
            raise NoSuchToken(id)
        Record("api_token.revoked").changed(connection, now, by=by, api_token=members_of(before))
        return api_tokens.find(connection, id) or before

    return services.database.write(write)


def _text(at: datetime | None) -> str | None:
    return None if at is None else instant_text(at)
