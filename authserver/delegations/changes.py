"""What may change of a delegation that was granted: it is paused for a while, or it becomes narrower."""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, update

from authserver.delegations.records import DelegationRecord
from authserver.delegations.stored_details import StoredDetails
from authserver.policy.delegation_details import DelegationDetails
from authserver.schema import Delegation, table_of

_TABLE = table_of(Delegation)


def pause(connection: Connection, link: DelegationRecord, now: datetime) -> int:
    """Let nothing be done under it until it is resumed; returns 1, or 0 where it was paused."""
    paused = update(_TABLE).where(_of(link), _TABLE.c.paused_at.is_(None)).values(paused_at=now)
    return connection.execute(paused).rowcount


def resume(connection: Connection, link: DelegationRecord) -> int:
    """Let it go on; returns 1, or 0 where it was not paused."""
    resumed = update(_TABLE).where(_of(link), _TABLE.c.paused_at.is_not(None)).values(paused_at=None)
    return connection.execute(resumed).rowcount


def narrow(
    connection: Connection, link: DelegationRecord, narrower: DelegationDetails, stored: StoredDetails
) -> int:
    """Write narrower details; returns 1, or 0 where somebody changed them since `link` was read."""
    unchanged = _TABLE.c.details == link.details_text
    values = {"details": stored.write(narrower), "expires_at": narrower.expires}
    changed = update(_TABLE).where(_of(link), unchanged).values(values)
    return connection.execute(changed).rowcount


def _of(link: DelegationRecord) -> ColumnElement[bool]:
    return (_TABLE.c.root_id == link.root_id) & (_TABLE.c.id == link.id)
