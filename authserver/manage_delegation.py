"""What may be done to a delegation by the person whose authority it is: pause it, let it go on, allow less.

Operators may pause it, too. To end it is `revoke`. Each of these waits for the exchanges under way, as a revocation
does, so that no token is issued under what was true before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from authserver.accounts.users import User
from authserver.approvals import rules
from authserver.audit.events import Record
from authserver.db import Conflict, wait_for_exchanges
from authserver.delegations import changes, records
from authserver.delegations.records import Chain, DelegationRecord, load_chain
from authserver.delegations.standing import Ending, ending
from authserver.errors import Refusal
from authserver.ledger import actions, terms
from authserver.ledger.reservations import release_all
from authserver.my_agents import own_chain
from authserver.policy.delegation_details import DelegationDetails
from authserver.services import Services
from authserver.streams import log


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody who may change everybody's delegations; `by` names them in the audit."""

    by: str


def pause(services: Services, who: User | Operator, delegation_id: str, now: datetime) -> None:
    """Let the agent, and all below it, do nothing for now. Raises `Refusal` (404, 409)."""

    def change(connection: Connection, link: DelegationRecord) -> None:
        if changes.pause(connection, link, now):
            log.tell(connection, "paused", "delegation", link.id, by=_name_of(who), now=now)
            _record("delegation.paused", link).changed(connection, now, by=_name_of(who))

    _change(services, who, delegation_id, change, now)


def resume(services: Services, who: User | Operator, delegation_id: str, now: datetime) -> None:
    """Undo a pause. Raises `Refusal` (404, 409)."""

    def change(connection: Connection, link: DelegationRecord) -> None:
        if changes.resume(connection, link):
            log.tell(connection, "resumed", "delegation", link.id, by=_name_of(who), now=now)
            _record("delegation.resumed", link).changed(connection, now, by=_name_of(who))

    _change(services, who, delegation_id, change, now)


def lower(
    services: Services,
    user: User,
    delegation_id: str,
    lowered: Callable[[DelegationDetails], DelegationDetails],
    now: datetime,
) -> None:
    """Allow less from now on: what `lowered` makes of what is allowed today. Tokens that nobody has used yet end.

    Raises `Refusal`: 404, 409 where more than the new limits is spent or the delegation has ended. What `lowered`
    raises goes through.
    """

    def change(connection: Connection, link: DelegationRecord) -> None:
        narrower = lowered(link.details)
        if narrower == link.details:
            return
        _end_unused(services, connection, link, now)
        if changes.narrow(connection, link, narrower, services.stored) != 1:
            raise Conflict
        try:
            terms.change(connection, link, narrower, link.not_before)
        except terms.AlreadySpent as spent:
            raise _below_spent(narrower, spent) from spent
        by = f"user:{user.user_id}"
        if narrower.approval != link.details.approval:
            rules.take_back_all(connection, link.id, by, now)
        log.tell(connection, "lowered", "delegation", link.id, by="user", now=now)
        record = _record("delegation.lowered", link)
        record.changed(connection, now, by=by, details=narrower.to_json())

    _change(services, user, delegation_id, change, now)


def _below_spent(details: DelegationDetails, spent: terms.AlreadySpent) -> Refusal:
    by_count = details.limits is None or spent.total <= details.limits.total.minor
    rule = "lower.spent_count" if by_count else "lower.spent"
    return Refusal("conflict", "more is spent or held already", rule, status=409)


def _end_unused(services: Services, connection: Connection, link: DelegationRecord, now: datetime) -> None:
    """What was issued under the broader details, here and below, is asked for anew."""
    below = [one.id for one in records.below(connection, link, services.stored)]
    unused = actions.unused(connection, link.root_id, below)
    release_all(connection, unused, "void", services.stored, now)


def _change(
    services: Services,
    who: User | Operator,
    delegation_id: str,
    change: Callable[[Connection, DelegationRecord], None],
    now: datetime,
) -> None:
    def write(connection: Connection) -> None:
        wait_for_exchanges(connection)
        chain = _chain(services, connection, who, delegation_id)
        ended = ending(connection, chain, now)
        if ended is not None and not _may_go_on(ended):
            raise Refusal("conflict", ended.reason, ended.rule, status=409)
        change(connection, chain.leaf)

    services.database.write(write)


def _chain(services: Services, connection: Connection, who: User | Operator, delegation_id: str) -> Chain:
    if isinstance(who, User):
        return own_chain(services, connection, who, delegation_id)
    chain = load_chain(connection, delegation_id, services.stored)
    if chain is None:
        raise Refusal("not_found", "there is no such delegation", "delegation.unknown", status=404)
    return chain


def _name_of(who: User | Operator) -> str:
    return who.by if isinstance(who, Operator) else f"user:{who.user_id}"


def _may_go_on(ended: Ending) -> bool:
    return ended.rule in ("delegation.paused", "delegation.not_yet_valid")


def _record(event: str, link: DelegationRecord) -> Record:
    return Record(event, client_id=link.client_id, delegation_id=link.id)
