"""`/audit-events`: every decision and every change, as it was written, and whether it still is."""

import tempfile
import threading
from collections.abc import Iterator
from typing import IO

from sqlalchemy import Connection

from authserver.admin.bodies import EventsQuery, ExportQuery, Nothing
from authserver.admin.operations import Call, Operation, Reply, not_found
from authserver.admin.resources.listing import Resource
from authserver.admin.shapes import VerifiedAudit
from authserver.administration import lists
from authserver.administration.items import EventItem
from authserver.administration.roles import Permission
from authserver.audit import export
from authserver.audit.export import Period
from authserver.db import see_one_instant
from authserver.errors import Refusal
from authserver.policy.reading import read_instant
from authserver.verify_audit import verify_here

_EVENTS = Resource("/audit-events", "audit event", lists.EVENTS, EventItem, EventsQuery, "id")
_LIST, _READ = _EVENTS.reads()
_IN_MEMORY, _AT_ONCE = 1_000_000, 65_536
# All of the audit is read for either: one of them at a time is enough for one process.
_AT_WORK = threading.Lock()


def read_one(call: Call) -> Reply:
    """One event by its number."""
    name = call.name
    if not (name.isascii() and name.isdecimal() and len(name) < 19):
        raise not_found("audit event")
    return _EVENTS.one_of(call, int(name))


def verify(call: Call) -> Reply:
    """Hold it to itself, and to the heads that the witness's file keeps."""
    with _one_at_a_time():
        return Reply(verify_here(call.services).to_json())


def export_all(call: Call) -> Reply:
    """All events of a period as JSON Lines, oldest first."""
    query = call.asked(ExportQuery)
    since, until = (None if at is None else read_instant(at) for at in (query.since, query.until))
    # Not while the caller reads, who may be slow: nobody waits for a connection to the database meanwhile.
    file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  # closed when it was sent

    def write_out(connection: Connection) -> None:
        see_one_instant(connection)
        for event in export.exported(connection, Period(since, until)):
            file.write(export.line(event, query.format).encode() + b"\n")

    with _one_at_a_time():
        call.services.database.read(write_out)
    file.seek(0)
    return Reply(_chunks(file))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_AT_ONCE):
            yield chunk


class _one_at_a_time:  # reads as what it is
    def __enter__(self) -> None:
        if not _AT_WORK.acquire(blocking=False):
            raise Refusal(
                "temporarily_unavailable",
                "another request reads all of the audit; try again in a while",
                rule="api.busy",
                status=503,
                headers={"Retry-After": "5"},
            )

    def __exit__(self, *_: object) -> None:
        _AT_WORK.release()


OPERATIONS = (
    _LIST,
    Operation(
        "audit_events.export",
        "GET",
        "/audit-events/export",
        Permission.READ,
        "All events of a period as JSON Lines, oldest first, each with its leaf of the audit's tree.",
        export_all,
        str,
        query=ExportQuery,
        media_type="application/jsonl",
    ),
    Operation(
        "audit_events.read",
        "GET",
        "/audit-events/{id}",
        Permission.READ,
        "One event.",
        read_one,
        EventItem,
        shows_etag=True,
    ),
    Operation(
        "audit_events.verify",
        "POST",
        "/audit-events/verify",
        Permission.READ,
        "Whether any event was changed, removed, inserted or moved, or the newest were cut off.",
        verify,
        VerifiedAudit,
        body=Nothing,
    ),
)
