"""What time undoes: reservations whose tokens died unused, and memories that are no longer needed.

Any process may do it, at any time, together with others; no process has to.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from authserver import metrics, notify, observe, seal, stream, transmit, witnessed
from authserver.accounts import challenges, sessions, tries
from authserver.actors import replay
from authserver.approvals import records as approvals
from authserver.audit.events import Record
from authserver.delegations import requests
from authserver.ledger import idempotency
from authserver.ledger.reservations import release_expired
from authserver.revoke import Target, revoke
from authserver.services import Services
from authserver.streams import log as happenings
from authserver.tokens import status_lists

log = structlog.get_logger()
_BATCH = 200
_EVERY_SECONDS = 5.0
_DELIVER_SECONDS = 1.0
_SEAL_SECONDS = 5.0
# What happened is known to resource servers within a second of it.
_TELL_SECONDS = 0.2
# What every stream has read is kept a little longer, for whoever looks into what happened.
_TOLD_AFTER = timedelta(hours=1)
_SIGN_INS = (sessions.prune, challenges.prune, tries.prune)
# A clock that went so much faster or slower than the machine has jumped; it has to go steadily for so long then.
_JUMP_SECONDS = 60.0
_STEADY_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Tidied:
    """How much was undone."""

    reservations: int
    idempotency_keys: int
    seen_tokens: int
    status_lists: int
    unclaimed_grants: int
    authorization_requests: int
    approvals: int
    abandoned_streams: int
    security_events: int
    sign_ins: int  # sessions that are over, challenges that nobody answered, counts of tries
    audit_events: int  # older than they are kept


def tidy(services: Services, now: datetime) -> Tidied:
    """Undo all that is due at `now`, in bounded transactions. Raises `Refusal` (503)."""

    def expired(connection: Connection) -> int:
        return release_expired(connection, services.stored, now, _BATCH)

    return Tidied(
        reservations=_repeated(services, expired),
        idempotency_keys=_repeated(services, lambda c: idempotency.prune(c, now, _BATCH)),
        seen_tokens=_repeated(services, lambda c: replay.forget(c, now, _BATCH)),
        status_lists=_repeated(services, lambda c: status_lists.retire(c, now, _BATCH)),
        unclaimed_grants=_take_back_unclaimed(services, now),
        authorization_requests=_repeated(services, lambda c: requests.prune(c, now, _BATCH)),
        approvals=_approvals(services, now),
        # First whoever will not hear of it any more, since that is forgotten next.
        abandoned_streams=transmit.give_up(services, now),
        security_events=_repeated(services, lambda c: happenings.forget(c, now - _TOLD_AFTER, _BATCH)),
        sign_ins=sum(_repeated(services, partial(prune, now=now, most=_BATCH)) for prune in _SIGN_INS),
        audit_events=seal.remove_old(services, now),
    )


def _approvals(services: Services, now: datetime) -> int:
    """No answer is a refusal (contract §8); before that, others are asked."""

    def expire(connection: Connection) -> int:
        over = approvals.overdue(connection, now, _BATCH)
        for approval in over:
            record = Record("approval.expired", approval.client_id, approval.delegation_id)
            record.changed(connection, now, approval=approval.id, state=approval.state)
        return len(over)

    def escalate(connection: Connection) -> int:
        due = approvals.due_for_escalation(connection, now, _BATCH)
        for approval, step in due:
            record = Record("approval.escalated", approval.client_id, approval.delegation_id)
            record.changed(connection, now, approval=approval.id, to=step.to)
            notify.escalated(services, connection, approval, step, now)
        return len(due)

    expired = _repeated(services, expire)
    metrics.approval_answered("expire", expired)
    done = expired + _repeated(services, escalate)
    return done + _repeated(services, lambda c: approvals.forget_keys(c, now, _BATCH))


def _take_back_unclaimed(services: Services, now: datetime) -> int:
    """End what was allowed to agents that never came for it (FAPI Grant Management, lifecycle of the grant)."""
    unclaimed = services.database.read(lambda c: requests.unclaimed(c, now, _BATCH))
    for request_id, delegation_id in unclaimed:
        target = Target("delegation", delegation_id)
        revoke(services, target, reason="the agent never came for it", by="server", now=now)
        services.database.write(partial(requests.given_up, id=request_id))
    return len(unclaimed)


def _repeated(services: Services, work: Callable[[Connection], int]) -> int:
    done = 0
    while batch := services.database.write(work):
        done += batch
        if batch < _BATCH:
            break
    return done


class Steadiness:
    """Whether the clock on the wall goes as the machine does; one that has just jumped may be wrong (threats F07).

    What time undoes is not done again: keys that are forgotten, authorizations that lapse.
    """

    def __init__(self) -> None:
        self._apart: float | None = None
        self._since = float("-inf")

    def after(self, now: datetime, running: float) -> bool:
        """Told every few seconds what both say, `running` in seconds: whether `now` can be believed."""
        apart = now.timestamp() - running
        if self._apart is not None and abs(apart - self._apart) > _JUMP_SECONDS:
            log.warning("upkeep.clock_jumped", seconds=round(apart - self._apart))
            self._since = running
        self._apart = apart
        return running - self._since >= _STEADY_SECONDS


def start(services: Services) -> threading.Event:
    """Tidy every few seconds in a thread of its own, until the returned event is set."""
    stop = threading.Event()
    observe.note(services, services.clock.now())
    threading.Thread(target=_run, args=(services, stop), name="upkeep", daemon=True).start()
    witnessed.look(services)
    _start(services, "audit", _SEAL_SECONDS, stop, _keep_audit)
    if notify.is_configured(services):
        _start(services, "notifications", _DELIVER_SECONDS, stop, _deliver)
    _start(services, "events", _TELL_SECONDS, stop, _tell)
    return stop


def _tell(services: Services) -> int:
    """Events are pushed by threads of their own, so there is nothing to go on with at once."""
    transmit.push_side_by_side(services, services.clock.now())
    return 0


def _deliver(services: Services) -> int:
    return notify.deliver(services, services.clock.now())


def tend_audit(services: Services, now: datetime) -> int:
    """Seal what is new and tell of it; returns how many took something. Raises `Refusal` (503).

    Not while the database lacks what the witness has seen: another history would take the place of what is lost.
    """
    if witnessed.look(services) is not None or services.history.missing is not None:
        return 0
    seal.seal(services, now)
    return stream.deliver(services, now)


def _keep_audit(services: Services) -> int:
    return tend_audit(services, services.clock.now())


def _start(
    services: Services,
    name: str,
    every_seconds: float,
    stop: threading.Event,
    work: Callable[[Services], int],
) -> None:
    """Do it every so often in a thread of its own, so that whoever does not answer holds nothing else up; again at
    once while it says that it did something.
    """

    def run() -> None:
        done = 0
        while done or not stop.wait(every_seconds):
            if stop.is_set():
                return
            try:
                done = work(services)
            except Exception as error:  # whatever it is, it must not be the last time  # noqa: BLE001
                log.error(f"{name}.failed", error=type(error).__name__)  # noqa: TRY400  # it may hold what was asked
                done = 0

    threading.Thread(target=run, name=name, daemon=True).start()


def _run(services: Services, stop: threading.Event) -> None:
    steady = Steadiness()
    while not stop.wait(_EVERY_SECONDS):
        now = services.clock.now()
        observe.note(services, now)
        if not steady.after(now, time.monotonic()):
            continue
        try:
            tidied = tidy(services, now)
        except Exception as error:  # whatever it is, it must not be the last time  # noqa: BLE001
            log.error("upkeep.failed", error=type(error).__name__)  # noqa: TRY400  # it may hold what was asked
            continue
        if any(asdict(tidied).values()):
            log.info("upkeep.tidied", **asdict(tidied))
