"""What time undoes: reservations whose tokens died unused, and memories that are no longer needed.

Any process may do it, at any time, together with others; no process has to.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import Connection

from authserver.actors import replay
from authserver.errors import Refusal
from authserver.ledger import idempotency
from authserver.ledger.reservations import release_expired
from authserver.services import Services

log = structlog.get_logger()
_BATCH = 200
_EVERY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Tidied:
    """How much was undone."""

    reservations: int
    idempotency_keys: int
    seen_tokens: int


def tidy(services: Services, now: datetime) -> Tidied:
    """Undo all that is due at `now`, in bounded transactions. Raises `Refusal` (503)."""

    def expired(connection: Connection) -> int:
        return release_expired(connection, services.stored, now, _BATCH)

    return Tidied(
        reservations=_repeated(services, expired),
        idempotency_keys=_repeated(services, lambda c: idempotency.prune(c, now, _BATCH)),
        seen_tokens=_repeated(services, lambda c: replay.forget(c, now, _BATCH)),
    )


def _repeated(services: Services, work: Callable[[Connection], int]) -> int:
    done = 0
    while batch := services.database.write(work):
        done += batch
        if batch < _BATCH:
            break
    return done


def start(services: Services) -> threading.Event:
    """Tidy every few seconds in a thread of its own, until the returned event is set."""
    stop = threading.Event()
    threading.Thread(target=_run, args=(services, stop), name="upkeep", daemon=True).start()
    return stop


def _run(services: Services, stop: threading.Event) -> None:
    while not stop.wait(_EVERY_SECONDS):
        try:
            tidied = tidy(services, services.clock.now())
        except Refusal:
            continue  # the database's own log line says why; it is tried again
        if tidied != Tidied(0, 0, 0):
            log.info(
                "upkeep.tidied",
                reservations=tidied.reservations,
                idempotency_keys=tidied.idempotency_keys,
                seen_tokens=tidied.seen_tokens,
            )
