"""After a back-up was restored: see that it is one, and do again what ended something since it was made.

A witness's file that is kept elsewhere knows how far the audit once was. While it knows more than the database does,
nothing is minted; `restore` goes on from there, with a copy of the events that the database lacks, or without.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection

from authserver import api_tokens, register
from authserver.actors import NotRegistered
from authserver.audit import batches, heads
from authserver.audit.batches import Batch
from authserver.audit.events import Record
from authserver.audit.heads import Head, HeadRefused
from authserver.audit.tree import Tree
from authserver.audit.verification import RESTORED
from authserver.delegations import changes
from authserver.delegations.records import load_chain
from authserver.errors import Refusal
from authserver.notifications import collectors
from authserver.revoke import Target, UnknownTarget, revoke
from authserver.seal import seal
from authserver.services import Services
from authserver.tokens import signing_keys

log = structlog.get_logger()
_TAIL_BYTES = 65_536
Event = Mapping[str, object]
Data = dict[str, Any]


class CopyRefused(ValueError):
    """The copy does not hold what the witness has seen; the message says why."""


@dataclass(frozen=True, slots=True)
class Missing:
    """How many events the database has sealed, and the newest head that a witness has."""

    sealed: int
    head: Head


@dataclass(slots=True)
class Restored:
    """What was done again, by the name of its event, and what happened besides that could not be."""

    sealed: int
    witnessed: int
    done_again: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


def look(services: Services) -> Missing | None:
    """Compare the database with the witness's file, and let nothing be minted while it lacks something.

    Raises `Refusal` (503).
    """
    missing = _missing(services)
    said = None if missing is None else f"{missing.sealed} of {missing.head.tree_size} events"
    if said is not None and services.history.missing is None:
        log.error(
            "audit.history_missing",
            sealed=missing and missing.sealed,
            witnessed=missing and missing.head.tree_size,
        )
    services.history.missing = said
    return missing


def restore(
    services: Services, copy: Iterable[Mapping[str, object]] | None, *, by: str, now: datetime
) -> Restored:
    """Go on from the restored back-up. `copy` has the events it lacks, as exported; None accepts that they are lost.

    Raises `CopyRefused`, after which nothing was done, and `LookupError` where nothing is missing.
    """
    seal(services, now)
    missing, before = _missing(services), services.database.read(batches.latest)
    if missing is None:
        raise LookupError("the database has all that the witness has seen")
    done = Restored(missing.sealed, missing.head.tree_size)
    for event in _lacking(services, missing, copy) if copy is not None else ():
        counted = done.done_again if _done_again(services, event, by, now) else done.lost
        counted[str(event["event"])] += 1
    said = {"tree_size": done.sealed, "witnessed_size": done.witnessed, "by": by}
    services.database.write(
        lambda connection: Record(RESTORED).changed(
            connection,
            now,
            **said,
            done_again=dict(done.done_again),
            lost=dict(done.lost),
            with_copy=copy is not None,
        )
    )
    seal(services, now)
    _go_on(services, before)
    look(services)
    return done


def _missing(services: Services) -> Missing | None:
    path = services.settings.audit.witness_file
    newest = _newest(services, path) if path is not None else None
    if newest is None:
        return None
    here = services.database.read(batches.latest)
    size = here.tree.size if here else 0
    if newest.tree_size > size:
        return Missing(size, newest)
    then = services.database.read(lambda connection: batches.at_size(connection, newest.tree_size))
    # As many events or more, but others: somebody went on from the back-up.
    return None if then is not None and then.root() == newest.root else Missing(size, newest)


def _newest(services: Services, path: Path) -> Head | None:
    """The last head in the file that this server signed."""
    keys = services.database.read(signing_keys.all_public)
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().decode("ascii", "replace").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("audit.witness_unreadable", reason=error.strerror)
        return None
    for line in reversed(lines):
        try:
            return heads.read(line, keys)
        except HeadRefused:
            continue
    return None


def _lacking(
    services: Services, missing: Missing, copy: Iterable[Mapping[str, object]]
) -> list[Mapping[str, object]]:
    """The events that the database lacks, in order, as the witness has seen them."""
    by_leaf = {event["leaf"]: event for event in copy if isinstance(event.get("leaf"), int)}
    wanted = range(missing.sealed, missing.head.tree_size)
    if any(leaf not in by_leaf for leaf in wanted):
        raise CopyRefused(f"the copy lacks events of {missing.sealed} to {missing.head.tree_size - 1}")
    lacking = [by_leaf[leaf] for leaf in wanted]
    here = services.database.read(batches.latest)
    tree = (here.tree if here else Tree()).with_leaves([batches.leaf_of(_without_leaf(e)) for e in lacking])
    if tree.root() != missing.head.root:
        raise CopyRefused("the copy is of another history than the witness has seen")
    return lacking


def _without_leaf(event: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in event.items() if name != "leaf"}


def _done_again(services: Services, event: Mapping[str, object], by: str, now: datetime) -> bool:
    """End again what the event ended; False where it ended nothing."""
    again = _AGAIN.get(str(event["event"]))
    data = event.get("data")
    if again is None or not isinstance(data, dict):
        return False
    try:
        return again(services, event, data, by, now)
    except (UnknownTarget, NotRegistered, LookupError, Refusal) as error:
        # It was made after the back-up, so that it is not there to be ended.
        log.info("audit.not_done_again", event_name=event["event"], reason=str(error))
        return False


def _revoked(services: Services, event: Event, data: Data, by: str, now: datetime) -> bool:
    target = Target(data["kind"], data["target"], data.get("party", ""))
    revoke(services, target, reason=str(data.get("reason", "")), by=by, now=now)
    return True


def _agent_disabled(services: Services, event: Event, data: Data, by: str, now: datetime) -> bool:
    services.database.write(lambda c: register.disable_agent(c, str(event["client_id"]), by, now))
    return True


def _user_disabled(services: Services, event: Event, data: Data, by: str, now: datetime) -> bool:
    services.database.write(lambda c: register.disable_user(c, data["user_id"], by, now))
    return True


def _server_disabled(services: Services, event: Event, data: Data, by: str, now: datetime) -> bool:
    services.database.write(lambda c: register.disable_resource_server(c, data["id"], by, now))
    return True


def _token_revoked(services: Services, event: Event, data: Data, by: str, now: datetime) -> bool:
    api_tokens.revoke(services, data["api_token"]["id"], by=by, now=now)
    return True


def _paused(services: Services, event: Event, data: Data, by: str, now: datetime) -> bool:
    return services.database.write(lambda c: _pause(services, c, str(event["delegation_id"]), now))


# Each event that ended something, and how that is ended again.
_AGAIN: Mapping[str, Callable[[Services, Event, Data, str, datetime], bool]] = {
    "revocation": _revoked,
    "agent.disabled": _agent_disabled,
    "user.disabled": _user_disabled,
    "resource_server.disabled": _server_disabled,
    "api_token.revoked": _token_revoked,
    "delegation.paused": _paused,
}


def _pause(services: Services, connection: Connection, delegation_id: str, now: datetime) -> bool:
    chain = load_chain(connection, delegation_id, services.stored)
    return chain is not None and changes.pause(connection, chain.leaf, now) == 1


def _go_on(services: Services, before: Batch | None) -> None:
    """Tell the witness from where the history goes on, last of all: its newest line is what the database is held to."""
    path, newest = services.settings.audit.witness_file, services.database.read(batches.latest)
    if path is not None and newest is not None:
        collectors.append(path, [batch.head for batch in (before, newest) if batch is not None])
