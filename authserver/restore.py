"""After a back-up was restored: do again what ended or lowered something since it was made.

A witness's file that is kept elsewhere knows how far the audit once was (`witnessed`). While it knows more than the
database does, nothing is minted or sealed; `restore` goes on from there, with a copy of the events that the database
lacks, or without.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection

from authserver import api_tokens, manage_delegation, register, rotate_keys
from authserver.accounts import users
from authserver.actors import NotRegistered
from authserver.audit import batches, heads
from authserver.audit.events import Record
from authserver.audit.tree import Tree
from authserver.audit.verification import RESTORED
from authserver.delegations import changes
from authserver.delegations.records import load_chain
from authserver.errors import Refusal
from authserver.notifications import collectors
from authserver.policy.delegation_details import parse_delegation
from authserver.revoke import Target, UnknownTarget, revoke
from authserver.seal import seal
from authserver.services import Services
from authserver.tokens.signing_keys import UnknownKey
from authserver.witnessed import Missing, compare, last_agreed, look

log = structlog.get_logger()
Event = Mapping[str, object]
Data = dict[str, Any]


class CopyRefused(ValueError):
    """The copy does not hold what the witness has seen; the message says why."""


@dataclass(slots=True)
class Restored:
    """What was done again, by the name of its event, and what happened besides that could not be."""

    sealed: int
    witnessed: int
    done_again: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


def restore(services: Services, copy: Iterable[Event] | None, *, by: str, now: datetime) -> Restored:
    """Go on from the restored back-up. `copy` has the events it lacks, as exported; None accepts that they are lost.

    Raises `CopyRefused`, after which nothing was done, `LookupError` where nothing is missing, `OSError` where the
    witness's file cannot be read, and `Refusal` (503), after which it can be begun anew.
    """
    path = services.settings.audit.witness_file
    missing = compare(services.database, services.issuer, path) if path is not None else None
    if path is None or missing is None:
        raise LookupError("the database has all that the witness has seen")
    agreed = last_agreed(services.database, services.issuer, path)
    done = Restored(agreed.size, missing.head.tree_size)
    for event in _lacking(services, agreed, missing, copy) if copy is not None else ():
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
    _go_on(services, path, agreed, now)
    look(services)
    return done


def _lacking(services: Services, agreed: Tree, missing: Missing, copy: Iterable[Event]) -> list[Event]:
    """The events that the database lacks, in order: as the witness has seen them, then those that nobody witnessed."""
    wanted = range(agreed.size, missing.head.tree_size)
    by_leaf, later = dict[int, Event](), list[Event]()
    for event in copy:
        leaf = event.get("leaf")
        if type(leaf) is int and leaf in wanted:
            by_leaf[leaf] = event
            later.clear()  # what is before it in the copy did not happen after it
        elif leaf is None or (type(leaf) is int and leaf >= wanted.stop):
            later.append(event)
    if len(by_leaf) < len(wanted):
        raise CopyRefused(f"the copy lacks events of {wanted.start} to {wanted.stop - 1}")
    seen = [by_leaf[leaf] for leaf in wanted]
    tree = agreed.with_leaves([batches.leaf_of(_without_leaf(event)) for event in seen])
    if tree.root() != missing.head.root:
        raise CopyRefused("the copy is of another history than the witness has seen")
    return _not_here(services, [*seen, *later])


def _not_here(services: Services, events: list[Event]) -> list[Event]:
    """Those of them that the database does not have: it may not have sealed its newest when the back-up was made."""
    numbers = [number for event in events if type(number := event.get("id")) is int]
    rows = services.database.read(lambda connection: batches.events_of(connection, numbers))
    here = {batches.leaf_in(row).hash for row in rows.values()}
    return [event for event in events if batches.leaf_of(_without_leaf(event)) not in here]


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
    except (UnknownTarget, UnknownKey, NotRegistered, LookupError, Refusal) as error:
        if isinstance(error, Refusal) and error.status >= 500:
            raise  # it is not done, and may be there
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


def _lowered(services: Services, event: Event, data: Data, by: str, now: datetime) -> bool:
    narrower = parse_delegation(data["details"], services.vocabulary)
    user = services.database.read(lambda c: users.by_id(c, str(data["by"]).removeprefix("user:")))
    if user is None:
        return False
    manage_delegation.lower(services, user, str(event["delegation_id"]), lambda _: narrower, now)
    return True


def _key_revoked(services: Services, event: Event, data: Data, by: str, now: datetime) -> bool:
    rotate_keys.revoke(services, str(data["kid"]), reason=str(data.get("reason", "")), by=by, now=now)
    return True


# Each event that ended or lowered something, and how that is done again.
_AGAIN: Mapping[str, Callable[[Services, Event, Data, str, datetime], bool]] = {
    "revocation": _revoked,
    "agent.disabled": _agent_disabled,
    "user.disabled": _user_disabled,
    "resource_server.disabled": _server_disabled,
    "api_token.revoked": _token_revoked,
    "delegation.paused": _paused,
    "delegation.lowered": _lowered,
    "key.revoked": _key_revoked,
}


def _pause(services: Services, connection: Connection, delegation_id: str, now: datetime) -> bool:
    chain = load_chain(connection, delegation_id, services.stored)
    return chain is not None and changes.pause(connection, chain.leaf, now) == 1


def _go_on(services: Services, path: Path, agreed: Tree, now: datetime) -> None:
    """Tell the witness from where the history goes on, last of all: its newest line is what the database is held to."""
    key = services.signing_keys.active()
    told = [heads.sign(agreed, services.issuer, key, now)]
    after = agreed.size
    while more := services.database.read(lambda connection: batches.after(connection, after, 50)):  # noqa: B023
        told += [batch.head for batch in more]
        after = more[-1].tree.size
    collectors.append(path, told)
