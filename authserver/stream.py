"""Tell witnesses of new heads and collectors of new events: in the tree's order, at least once, from any process."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

import structlog

from authserver.audit import batches, deliveries, export
from authserver.audit.batches import Batch, EventRow
from authserver.audit.events import event_of
from authserver.config import AuditStreamSettings
from authserver.notifications import collectors
from authserver.notifications.collectors import Line, NotTaken
from authserver.policy.reading import instant_text
from authserver.services import Services
from authserver.witnessed import look

log = structlog.get_logger()
_BATCHES = 20  # heads at once
_EVENTS = 500  # events at once, so that what is held in memory is bounded
# What is left of an event that does not fit into a datagram; none of it is longer than that many characters.
_NAMING = ("id", "at", "event", "client_id", "delegation_id", "action_id", "rule", "leaf")
_SHORT = 1_024

# Sends what comes after a position; returns the position that it reached, which is the same where nothing is new.
Send = Callable[[int], int]


def destinations_of(services: Services) -> dict[str, Send]:
    """Everybody who is to be told, by name."""
    settings = services.settings.audit
    found: dict[str, Send] = {}
    if settings.witness_file is not None:
        found[deliveries.WITNESS_FILE] = partial(_heads_to_file, services)
    if settings.witness_url is not None:
        found[deliveries.WITNESS_URL] = partial(_heads_to_url, services)
    return found | {f"stream:{s.name}": partial(_events_to, services, s) for s in settings.streams}


def deliver(services: Services, now: datetime) -> int:
    """Tell everybody who is due some of what is new; returns how many took something. Outside of every transaction."""
    told = destinations_of(services)
    waiting = (
        services.database.read(lambda connection: deliveries.waiting(connection, told, now)) if told else ()
    )
    return sum(_deliver(services, name, told[name], now) for name in waiting)


def _deliver(services: Services, name: str, send: Send, now: datetime) -> bool:
    delivery = services.database.write(lambda connection: deliveries.claim(connection, name, now))
    if delivery is None:
        return False
    try:
        position = send(delivery.position)
    except NotTaken as error:
        log.warning("audit.not_taken", destination=name, reason=str(error), attempts=delivery.attempts + 1)
        return False
    except Exception as error:  # whatever it is, whoever comes next is told all the same  # noqa: BLE001
        log.error("audit.not_sent", destination=name, error=type(error).__name__)  # noqa: TRY400
        return False
    services.database.write(partial(deliveries.taken, delivery=delivery, position=position, now=now))
    return position != delivery.position


def _new(services: Services, position: int, most: int) -> list[Batch]:
    return services.database.read(lambda connection: batches.after(connection, position, most))


def _heads_to_file(services: Services, position: int) -> int:
    path, new = services.settings.audit.witness_file, _new(services, position, _BATCHES)
    if not new or path is None:
        return position
    if position and not path.exists():
        # Where its disk is not there, a new file would know of no event that the database lacks (threats F15).
        raise NotTaken("the file is not there any more; if it is to begin anew, make an empty one")
    if look(services) is not None:
        raise NotTaken("the witness has seen more than the database has")
    collectors.append(path, [batch.head for batch in new])
    return new[-1].tree.size


def _heads_to_url(services: Services, position: int) -> int:
    settings, new = services.settings.audit, _new(services, position, 1)
    if not new or settings.witness_url is None:
        return position
    allow = settings.allow_private_network
    collectors.post(settings.witness_url, new[0].head, "application/jwt", None, allow_private_network=allow)
    return new[0].tree.size


def _events_to(services: Services, stream: AuditStreamSettings, position: int) -> int:
    new = _new(services, position, 1)
    if not new:
        return position
    start = position - new[0].first
    leaves = new[0].leaves[start : start + _EVENTS]
    events = services.database.read(lambda c: batches.events_of(c, [leaf.event_id for leaf in leaves]))
    # What retention has taken away in the meantime is passed over.
    lines = [
        _line(stream, events[leaf.event_id], place)
        for place, leaf in enumerate(leaves, start=position)
        if leaf.event_id in events
    ]
    collectors.send(stream, lines)
    return position + len(leaves)


def _line(stream: AuditStreamSettings, row: EventRow, leaf: int) -> Line:
    try:
        event = event_of(row).to_json() | {"leaf": leaf}
        text = export.line(event, stream.format)
    except (ValueError, TypeError, RecursionError):
        # Somebody changed the row. Stopping here would let them silence all that follows: it goes as what it is.
        log.error("audit.altered", event_id=row.id, leaf=leaf)  # noqa: TRY400  # it may hold anything
        data = row.data if isinstance(row.data, str) else repr(row.data)
        event = {
            "id": row.id,
            "at": instant_text(row.at),
            "event": str(row.event),
            "altered": data,
            "leaf": leaf,
        }
        text = export.line(event, stream.format)
    if stream.transport == "udp" and len(text) > collectors.MOST_OF_A_DATAGRAM:
        text = export.line(_shortened(event, len(text)), stream.format)
    return Line(str(event["at"]), text)


def _shortened(event: Mapping[str, object], length: int) -> dict[str, object]:
    """What names an event, and how long all of it is."""
    return {name: event[name] for name in _NAMING if name in event and len(str(event[name])) <= _SHORT} | {
        "cut": length
    }


def failing(services: Services) -> dict[str, int]:
    """Destinations that are configured and took nothing at the last attempts, and how many attempts."""
    known = destinations_of(services)
    return {
        name: times for name, times in services.database.read(deliveries.failing).items() if name in known
    }
