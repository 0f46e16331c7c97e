"""What an action token is worth now, for the one resource server that may know (RFC 7662, contract §7)."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection

from authserver import jose
from authserver.actors.resource_servers import ResourceServer
from authserver.delegations.records import load_chain, load_chains
from authserver.delegations.standing import ended_tasks, ending, endings
from authserver.issuing import claims_of
from authserver.ledger import actions
from authserver.services import Services
from authserver.tokens.action_tokens import ActionClaims


def introspect(
    services: Services, unverified_token: str, caller: ResourceServer, now: datetime
) -> ActionClaims | None:
    """The claims of a token that is live and addressed to the caller; None for all else, whatever the reason."""
    try:
        # Before the transaction: to verify may need the database, and nobody waits for one connection with another.
        jti = services.action_tokens.read(unverified_token, now)
    except jose.TokenRefused:
        return None
    return services.database.read(lambda connection: _live(services, connection, jti, caller, now))


def _live(
    services: Services, connection: Connection, jti: str, caller: ResourceServer, now: datetime
) -> ActionClaims | None:
    action = actions.find(connection, jti)
    # RFC 7662 §4: to whom a token is not addressed, it does not exist.
    if action is None or action.resource_server_id != caller.id or not action.is_live(now):
        return None
    chain = load_chain(connection, action.delegation_id, services.stored)
    if chain is None or ending(connection, chain, now, action.task_id) is not None:
        return None
    return claims_of(services, chain, action, caller.identifier)


def ended_indices(services: Services, connection: Connection, list_id: int, now: datetime) -> list[int]:
    """The indices of a status list whose tokens must not be used any more, though they have not expired."""
    ended = list[int]()
    over, standing = set[tuple[str, str | None]](), set[tuple[str, str | None]]()
    for part in actions.in_status_list(connection, list_id, now):
        unseen = (
            {(listed.delegation_id, listed.task_id) for listed in part if listed.is_live} - over - standing
        )
        over_now = _over(services, connection, unseen, now)
        over, standing = over | over_now, standing | (unseen - over_now)
        ended += [
            listed.status_index
            for listed in part
            if not listed.is_live or (listed.delegation_id, listed.task_id) in over
        ]
    return ended


def _over(
    services: Services, connection: Connection, used: Collection[tuple[str, str | None]], now: datetime
) -> set[tuple[str, str | None]]:
    """Those delegations, each with the task that it is used for, of which the one or the other has ended."""
    chains = load_chains(connection, {delegation for delegation, _ in used}, services.stored)
    delegations = endings(connection, chains.values(), now)
    with_task = [(chains[delegation], task) for delegation, task in used if task is not None]
    tasks = ended_tasks(connection, with_task)
    return {pair for pair in used if pair[0] in delegations or pair in tasks}
