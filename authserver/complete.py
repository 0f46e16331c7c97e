"""A resource server says that a job is done as far as it goes there (contract §7; docs/decisions/0016)."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from authserver import jose
from authserver.actors.resource_servers import ResourceServer
from authserver.audit.events import Record
from authserver.errors import Refusal
from authserver.ledger import actions
from authserver.ledger.actions import ActionRecord
from authserver.ledger.reservations import release_all
from authserver.schema import Action, table_of
from authserver.services import Services

_ACTIONS = table_of(Action)
_BATCH = 200


def complete_here(
    services: Services,
    task_id: str,
    unverified_token: str,
    caller: ResourceServer,
    record: Record,
    now: datetime,
) -> int:
    """End what is live at the calling resource server of the job that its token is of; how many tokens that were.

    The token, live or not, says which job is meant: another user's or agent's may have the same name. Raises `Refusal`:
    404 where the token is not the caller's or not of that job.
    """
    shown = _shown(services, task_id, unverified_token, caller, now)
    record.client_id, record.delegation_id = shown.client_id, shown.delegation_id
    ended = 0

    def end_some(connection: Connection) -> int:
        found = [ActionRecord(*row) for row in connection.execute(_live(shown, now))]
        return release_all(connection, found, "void", services.stored, now)

    while some := services.database.write(end_some):
        ended += some
    told = {"task": task_id, "resource_server": caller.identifier, "tokens": ended}
    services.database.write(lambda connection: record.changed(connection, now, **told))
    return ended


def _shown(
    services: Services, task_id: str, unverified_token: str, caller: ResourceServer, now: datetime
) -> ActionRecord:
    unknown = Refusal("not_found", "there is no such token here", rule="task.unknown_token", status=404)
    try:
        jti = services.action_tokens.read(unverified_token, now)
    except jose.TokenRefused as error:
        raise unknown from error
    action = services.database.read(lambda connection: actions.find(connection, jti))
    if action is None or (action.resource_server_id, action.task_id) != (caller.id, task_id):
        raise unknown
    return action


def _live(shown: ActionRecord, now: datetime) -> Select[Any]:
    return (
        select(*actions.COLUMNS)
        .where(
            _ACTIONS.c.root_id == shown.root_id,
            _ACTIONS.c.task_id == shown.task_id,
            _ACTIONS.c.resource_server_id == shown.resource_server_id,
            _ACTIONS.c.state == "reserved",
            _ACTIONS.c.expires_at > now,
        )
        .limit(_BATCH)
    )
