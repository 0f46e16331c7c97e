"""Events for others: JSON Lines as they are here, or the Open Cybersecurity Schema Framework (OCSF 1.4)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, select

from authserver import strict_json
from authserver.audit import batches
from authserver.audit.events import all_events
from authserver.schema import AuditBatch, table_of

Format = Literal["json", "ocsf"]
_BATCHES = table_of(AuditBatch)
_VERSION = "1.4.0"
# OCSF: Application Activity (6), API Activity (6003); what was done has no verb of its own there.
_CATEGORY, _CLASS, _OTHER_ACTIVITY = 6, 6003, 99
_INFORMATIONAL, _LOW = 1, 2
_SUCCESS, _FAILURE = 1, 2


@dataclass(frozen=True, slots=True)
class Period:
    """Which events: from `since` and before `until`; None where there is no such bound."""

    since: datetime | None = None
    until: datetime | None = None

    def has(self, at: datetime) -> bool:
        """Whether an instant is in it."""
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


def exported(connection: Connection, period: Period = Period()) -> Iterator[dict[str, object]]:
    """Events, oldest first, each with the `leaf` of the tree that it is; those not sealed yet have none."""
    leaves = _leaves(connection)
    for event in all_events(connection):
        if period.has(event.at):
            leaf = leaves.get(event.id)
            yield event.to_json() | ({"leaf": leaf} if leaf is not None else {})


def heads(connection: Connection) -> Iterator[str]:
    """Every signed head, the smallest tree first."""
    for batch in batches.all_batches(connection):
        yield batch.head


def line(event: Mapping[str, object], format: Format) -> str:  # as the setting is called
    """One event, given as it is exported, as one line without its end."""
    return strict_json.write(event if format == "json" else ocsf(event))


def ocsf(event: Mapping[str, object]) -> dict[str, object]:
    """One event, given as it is exported, as OCSF's API Activity; all that has no place there is in `unmapped`."""
    name, at = str(event["event"]), datetime.fromisoformat(str(event["at"]))
    refused = name.endswith(".refused")
    client = event.get("client_id")
    rule = event.get("rule")
    return {
        "category_uid": _CATEGORY,
        "class_uid": _CLASS,
        "activity_id": _OTHER_ACTIVITY,
        "activity_name": name,
        "type_uid": _CLASS * 100 + _OTHER_ACTIVITY,
        "time": int(at.timestamp() * 1_000),
        "severity_id": _LOW if refused else _INFORMATIONAL,
        "status_id": _FAILURE if refused else _SUCCESS,
        **({"status_detail": rule} if rule is not None else {}),
        "actor": {"app_uid": client} if client is not None else {"app_name": "authserver"},
        "api": {"operation": name, "service": {"name": "authserver"}},
        "src_endpoint": {"svc_name": client if client is not None else "authserver"},
        "metadata": {
            "version": _VERSION,
            "uid": str(event["id"]),
            "product": {"name": "authserver", "vendor_name": "authserver"},
        },
        "unmapped": dict(event),
    }


def _leaves(connection: Connection) -> dict[int, int]:
    """Which leaf each sealed event is."""
    known = dict[int, int]()
    for event_ids, first in connection.execute(select(_BATCHES.c.event_ids, _BATCHES.c.first)):
        known |= {number: first + place for place, number in enumerate(batches.numbers(event_ids))}
    return known
