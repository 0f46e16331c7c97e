"""Who a user is at the upstream provider, as rows: `sub` names a person there for ever, and no other claim does."""

from datetime import datetime

from sqlalchemy import Connection, select

from authserver.schema import UpstreamIdentity, table_of

_TABLE = table_of(UpstreamIdentity)


def find(connection: Connection, issuer: str, subject: str) -> str | None:
    """The id of the user who is that person."""
    query = select(_TABLE.c.user_id).where(_TABLE.c.issuer == issuer, _TABLE.c.subject == subject)
    return connection.scalar(query)


def is_linked(connection: Connection, issuer: str, user_id: str) -> bool:
    """Whether a user is somebody at that provider already."""
    query = select(_TABLE.c.subject).where(_TABLE.c.issuer == issuer, _TABLE.c.user_id == user_id).limit(1)
    return connection.scalar(query) is not None


def link(connection: Connection, issuer: str, subject: str, user_id: str, now: datetime) -> None:
    """Record that they are one."""
    row = {"issuer": issuer, "subject": subject, "user_id": user_id, "linked_at": now}
    connection.execute(_TABLE.insert(), row)
