"""What happened reaches those whom it concerns: pushed (RFC 8935), or handed out to who asks (RFC 8936).

At least once, in order, and bounded: for each stream a few events are worked out and kept until they are taken; the
rest stays one row for each revocation, however long a receiver is away.
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path

import structlog
from sqlalchemy import Connection

from authserver import metrics, strict_json
from authserver.actors import resource_servers
from authserver.actors.fetcher import Fetcher, FetchFailed
from authserver.audit.events import Record
from authserver.concerned import concerned
from authserver.services import Services
from authserver.streams import log as happenings
from authserver.streams import records, sets
from authserver.streams.records import Stream, authorization_purpose
from authserver.streams.sets import Pending, Said

log = structlog.get_logger()

_AT_ONCE = 50  # pushed one after the other before it is another stream's turn
_TURN_SECONDS = 15.0
_READ_AT_ONCE = 100  # of what happened, in one transaction
_MOST_STREAMS = 64
_LONGEST_ANSWER = 4_096
# RFC 8935 §2.4: a receiver that says one of these will say something else when its own set-up was mended.
_MENDABLE = frozenset({"invalid_key", "authentication_failed", "access_denied"})
# From a receiver that was silent for so long, nothing is expected any more; and nothing is held for longer.
LONGEST_SILENCE = timedelta(days=30)
_ABANDONED = (
    "nothing was heard of the receiver for 30 days, or it did not take for 30 days what it was to be told"
)
# What happened is told within a second of it; to look costs one short read.
_LOOK_SECONDS = 0.2
_HEARD_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a receiver says when it polls: what it took, what was no good to it and why, and how much it wants now."""

    taken: tuple[str, ...]
    refused: Mapping[str, str]
    most: int


@dataclass(frozen=True, slots=True)
class Handed:
    """What it gets: tokens by their `jti`, oldest first, and whether there is more."""

    sets: Mapping[str, str]
    more: bool


class _Refused(Exception):
    """The receiver has it, and says that it is no good to it: it is not sent again. `str()` is its reason."""


class _NotDelivered(Exception):
    """It did not arrive, or not to somebody who could take it; `str()` is a short reason."""


class Places:
    """Who is served in this process at the moment: so many, and of those so many for one receiver, and no more."""

    def __init__(self, most: int, of_one: int) -> None:
        self._most, self._of_one = most, of_one
        self._lock, self._taken = threading.Lock(), Counter[str]()

    def take(self, receiver: str) -> bool:
        """Take a place, if there is one for that receiver."""
        with self._lock:
            if self._taken.total() >= self._most or self._taken[receiver] >= self._of_one:
                return False
            self._taken[receiver] += 1
            return True

    def leave(self, receiver: str) -> None:
        """Give it back."""
        with self._lock:
            self._taken[receiver] -= 1
            self._taken += Counter()  # keeps those alone who have any


# On how many streams one process pushes at the same time: a receiver whose streams are slow holds up no other.
_PLACES = Places(8, 3)


# --- working out what is to be told ---------------------------------------------------------------------------------


def work_out(services: Services, stream: Stream, newest: int, enough: int, now: datetime) -> Stream:
    """Let what happened up to `newest` become events of the stream, until `enough` are pending.

    Raises `Refusal` (503).
    """
    while stream.read_event < newest:
        found = services.database.read(partial(_next_events, services, stream, newest, enough, now))
        if found is None:
            break
        said, moved = found
        stream = services.database.write(partial(_kept, before=stream, after=moved, said=said, now=now))
    return stream


def _next_events(
    services: Services, stream: Stream, newest: int, enough: int, now: datetime, connection: Connection
) -> tuple[list[Said], Stream] | None:
    if records.pending_count(connection, stream.id) >= enough:
        return None
    said = list[Said]()
    for _ in range(_READ_AT_ONCE):
        event = happenings.after(connection, stream.read_event, newest)
        if event is None:
            return said, replace(stream, read_event=newest, read_within="")
        page = concerned(services, connection, stream, event, now)
        said += page.said
        if page.go_on is not None:
            return said, replace(stream, read_within=page.go_on)
        stream = replace(stream, read_event=event.id, read_within="")
        if len(said) >= enough:
            break
    return said, stream


def _kept(connection: Connection, before: Stream, after: Stream, said: list[Said], now: datetime) -> Stream:
    # Where another process was quicker, it has kept the same.
    if records.move_on(connection, before, after.read_event, after.read_within):
        records.add(connection, before.id, said, now)
    return records.find(connection, before.id) or replace(before, read_event=after.read_event)


def _newest(services: Services) -> int:
    # Only PostgreSQL has to wait for anybody, and holds a lock meanwhile.
    run = services.database.read if services.database.is_sqlite else services.database.write
    return run(happenings.newest_of_all)


# --- pushing --------------------------------------------------------------------------------------------------------


def push(services: Services, now: datetime) -> int:
    """Push what is due on each stream, some of it; returns on how many streams. Outside of every transaction."""
    due = to_push(services, now)
    newest = _newest(services) if due else 0
    for stream_id, _receiver in due:
        push_on(services, stream_id, newest, now)
    return len(due)


def push_side_by_side(services: Services, now: datetime) -> int:
    """The same in threads of their own; returns how many were begun."""
    begun, due = 0, to_push(services, now)
    newest = _newest(services) if due else 0
    for stream_id, receiver in due:
        if not _PLACES.take(receiver):
            continue
        begun += 1
        arguments = (services, stream_id, receiver, newest, now)
        threading.Thread(target=_push_quietly, args=arguments, name="push", daemon=True).start()
    return begun


def to_push(services: Services, now: datetime) -> list[tuple[str, str]]:
    """The streams on which something is due to be pushed, each with its resource server."""
    return services.database.read(
        lambda connection: records.to_push(connection, happenings.newest(connection), now, _MOST_STREAMS)
    )


def _push_quietly(services: Services, stream_id: str, receiver: str, newest: int, now: datetime) -> None:
    try:
        push_on(services, stream_id, newest, now)
    except Exception as error:  # whatever it is, it must not be the last time  # noqa: BLE001
        log.error("events.failed", stream=stream_id, error=type(error).__name__)  # noqa: TRY400
    finally:
        _PLACES.leave(receiver)


def push_on(services: Services, stream_id: str, newest: int, now: datetime) -> None:
    """Push what one stream's receiver has not taken, in order, until something does not arrive."""
    stream = services.database.write(partial(records.claim, stream_id=stream_id, now=now))
    if stream is None:
        return
    stream = work_out(services, stream, newest, 1, now)
    pending = services.database.read(lambda connection: records.pending(connection, stream.id, _AT_ONCE))
    taken, until = [], time.monotonic() + _TURN_SECONDS
    try:
        for one in pending:
            _push_one(services, stream, one, now)
            taken.append(one.jti)
            if time.monotonic() > until:
                break
    except _NotDelivered as error:
        metrics.event_sent("push", "not_delivered")
        log.warning("event.not_delivered", stream=stream.id, reason=str(error))
        services.database.write(
            partial(_some_arrived, stream=stream, taken=taken, trouble=str(error), now=now)
        )
        return
    services.database.write(partial(records.arrived, stream=stream, jtis=taken, now=now))


def _some_arrived(
    connection: Connection, stream: Stream, taken: list[str], trouble: str, now: datetime
) -> None:
    if taken:
        records.arrived(connection, stream, taken, now)
        stream = records.find(connection, stream.id) or stream
    records.failed(connection, stream, trouble, now)


def _push_one(services: Services, stream: Stream, pending: Pending, now: datetime) -> None:
    try:
        _send(services, stream, pending, now)
        metrics.event_sent("push", "taken")
    except _Refused as error:
        metrics.event_sent("push", "refused")
        log.warning("event.refused", stream=stream.id, jti=pending.jti, reason=str(error))


def _send(services: Services, stream: Stream, pending: Pending, now: datetime) -> None:
    """One request of RFC 8935 §2.1. Raises `_Refused`, `_NotDelivered`."""
    body = _signed(services, stream, pending, now).encode("ascii")
    headers = {"Content-Type": f"application/{sets.TYPE}", "Accept": "application/json"}
    if stream.delivery.encrypted_authorization is not None:
        headers["Authorization"] = services.seal.open(
            stream.delivery.encrypted_authorization, authorization_purpose(stream.id)
        ).decode("ascii")
    settings = services.settings.events
    fetcher = _fetcher(settings.allow_private_network, settings.ca_file)
    try:
        status, answer = fetcher.ask(
            stream.delivery.endpoint_url or "", body, headers, most_read=_LONGEST_ANSWER
        )
    except FetchFailed as error:
        raise _NotDelivered(error.reason) from error
    if 200 <= status < 300:
        return
    reason = _error_in(answer) if status == 400 else None
    if reason is None or reason in _MENDABLE:
        raise _NotDelivered(reason or f"status {status}")
    raise _Refused(reason)


def _signed(services: Services, stream: Stream, pending: Pending, now: datetime) -> str:
    server = services.database.read(
        lambda connection: resource_servers.find(connection, stream.resource_server_id)
    )
    if server is None:
        raise _NotDelivered("receiver")
    key = services.signing_keys.active()
    return sets.signed(pending, key, issuer=services.issuer, audience=server.identifier, now=now)


def _error_in(answer: bytes) -> str | None:
    """The `err` of a refusal (RFC 8935 §2.3): a short code, for the log."""
    try:
        said = strict_json.parse(answer, max_bytes=_LONGEST_ANSWER)
    except strict_json.JsonRefused:
        return None
    error = said.get("err") if isinstance(said, dict) else None
    return error[:64] if isinstance(error, str) and error else None


@lru_cache(maxsize=4)
def _fetcher(allow_private_network: bool, ca_file: Path | None) -> Fetcher:
    return Fetcher(allow_private_network=allow_private_network, ca_file=ca_file)


# --- handing out ----------------------------------------------------------------------------------------------------


def hand_out(services: Services, stream: Stream, asked: Asked, now: datetime) -> Handed:
    """Forget what the receiver took, and give it what it has not taken (RFC 8936 §2). Raises `Refusal` (503)."""
    _acknowledge(services, stream, asked, now)
    if asked.most == 0 or stream.status != "enabled" or stream.delivery.method != "poll":
        return Handed({}, more=False)
    newest = _newest(services) if _is_behind(services, stream) else stream.read_event
    stream = work_out(services, stream, newest, asked.most + 1, now)
    pending = services.database.read(
        lambda connection: records.pending(connection, stream.id, asked.most + 1)
    )
    signed = {one.jti: _signed(services, stream, one, now) for one in pending[: asked.most]}
    return Handed(signed, more=len(pending) > asked.most or stream.read_event < newest)


def _is_behind(services: Services, stream: Stream) -> bool:
    return services.database.read(happenings.newest) > stream.read_event


def _acknowledge(services: Services, stream: Stream, asked: Asked, now: datetime) -> None:
    for jti, reason in asked.refused.items():
        log.warning("event.refused", stream=stream.id, jti=jti, reason=reason)

    def write(connection: Connection) -> tuple[int, int]:
        records.heard(connection, stream, now)
        refused = records.taken(connection, stream.id, asked.refused.keys())
        return records.taken(connection, stream.id, asked.taken), refused

    if asked.taken or asked.refused or now - stream.heard_at > _HEARD_EVERY:
        for outcome, number in zip(("taken", "refused"), services.database.write(write), strict=True):
            metrics.event_sent("poll", outcome, number)


def wait_for_news(services: Services, stream_id: str, seconds: float) -> None:
    """Return as soon as there is something to be handed out, and after that time at the latest."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if services.database.read(
            lambda connection: records.has_news(connection, stream_id, happenings.newest(connection))
        ):
            return
        time.sleep(_LOOK_SECONDS)


# --- giving up ------------------------------------------------------------------------------------------------------


def give_up(services: Services, now: datetime) -> int:
    """End the streams of receivers that were silent for a month, or took nothing; returns how many (SSF §8.1.1).

    A disabled stream holds nothing (SSF §8.1.2.1), and its status says why: so nobody keeps what happened for ever, and
    a receiver that comes back sees that it missed something.
    """
    abandoned = services.database.read(lambda c: records.abandoned(c, now - LONGEST_SILENCE))
    for stream in abandoned:
        _say_goodbye(services, stream, now)
    return sum(services.database.write(partial(_ended, stream=stream, now=now)) for stream in abandoned)


def _ended(connection: Connection, stream: Stream, now: datetime) -> int:
    dropped = records.pending_count(connection, stream.id)
    if not records.end_abandoned(connection, stream, now - LONGEST_SILENCE, _ABANDONED):
        return 0
    Record("event_stream.disabled").changed(
        connection,
        now,
        by="server",
        stream=stream.id,
        resource_server=stream.resource_server_id,
        reason=_ABANDONED,
        dropped_events=dropped,
        told_until=stream.read_event,
    )
    return 1


def _say_goodbye(services: Services, stream: Stream, now: datetime) -> None:
    # SSF §8.1.5: it is told before the stream stops, if there is anybody to tell.
    said = Said(sets.STREAM_UPDATED, sets.stream_subject(stream.id), {"status": "disabled"})
    try:
        if stream.delivery.method == "push":
            _send(services, stream, Pending(0, sets.new_jti(), said), now)
    except (_Refused, _NotDelivered) as error:
        log.warning("event.not_delivered", stream=stream.id, reason=str(error))
