"""Actions: one row for each action token, committed before the token is signed."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select

from authserver import strict_json
from authserver.db import Row
from authserver.jose import LEEWAY
from authserver.policy.details import Merchant
from authserver.schema import Action, table_of
from authserver.statements import Prepared

_TABLE = table_of(Action)


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """One action token and what became of it. Amounts are in minor units of the delegation's currency."""

    root_id: str
    id: str
    delegation_id: str
    client_id: str
    resource_server_id: str
    action: str
    budget: str
    state: str
    details: str  # the agent_action as granted, JSON
    scope: bool
    amount: int
    authorized: int
    captured: int
    refunded: int
    reference: str | None
    task_id: str | None
    jkt: str | None
    status_list: int
    status_index: int
    issued_at: datetime
    expires_at: datetime
    ends_at: datetime | None
    approval_id: str | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether its token can still be used, as far as its own state and life say."""
        return _is_live(self.state, self.issued_at, self.expires_at, now)


@dataclass(frozen=True, slots=True)
class Listed:
    """What a status list needs to know of an action."""

    status_index: int
    delegation_id: str
    task_id: str | None
    is_live: bool


def _is_live(state: str, issued_at: datetime, expires_at: datetime, now: datetime) -> bool:
    # One that was issued in the future was issued by a clock that was wrong; its end means nothing (threats F07).
    return state == "reserved" and issued_at - LEEWAY <= now < expires_at


COLUMNS = tuple(_TABLE.c[name] for name in ActionRecord.__dataclass_fields__)
_ALL = select(*COLUMNS)
_BY_ID = Prepared(_ALL.where(_TABLE.c.id == bindparam("action")))
_NAMES = tuple(ActionRecord.__dataclass_fields__)
_LISTED = select(
    *(_TABLE.c[n] for n in ("status_index", "delegation_id", "task_id", "state", "issued_at", "expires_at"))
)
_PART = 1_000


def find(connection: Connection, action_id: str) -> ActionRecord | None:
    """The action of that id, which is also its token's `jti`."""
    if "\x00" in action_id:
        return None  # PostgreSQL would not even look for it
    row = _BY_ID.first(connection, {"action": action_id})
    return None if row is None else ActionRecord(*row)


def find_all(connection: Connection, root_id: str, ids: Collection[str]) -> dict[str, ActionRecord]:
    """The actions of one root by their ids."""
    rows = connection.execute(_ALL.where(_TABLE.c.root_id == root_id, _TABLE.c.id.in_(ids))) if ids else ()
    return {action.id: action for action in (ActionRecord(*row) for row in rows)}


def unused(connection: Connection, root_id: str, delegation_ids: Collection[str]) -> list[ActionRecord]:
    """The actions of these delegations of one root whose tokens nobody has used yet."""
    query = _ALL.where(
        _TABLE.c.root_id == root_id,
        _TABLE.c.delegation_id.in_(delegation_ids),
        _TABLE.c.state == "reserved",
        _TABLE.c.ends_at.is_not(None),
    )
    return [ActionRecord(*row) for row in connection.execute(query)]


def with_datatypes(connection: Connection, root_id: str, delegation_id: str, most: int) -> list[ActionRecord]:
    """The newest actions of a delegation that open personal data, the last first."""
    query = (
        _ALL.where(
            _TABLE.c.root_id == root_id,
            _TABLE.c.delegation_id == delegation_id,
            _TABLE.c.details.contains('"datatypes":', autoescape=True),
        )
        .order_by(_TABLE.c.issued_at.desc())
        .limit(most)
    )
    return [ActionRecord(*row) for row in connection.execute(query)]


def tokens_of_task(connection: Connection, task_id: str, most: int) -> list[ActionRecord]:
    """The newest actions of a task, whoever it is of, the last first."""
    query = _ALL.where(_TABLE.c.task_id == task_id).order_by(_TABLE.c.issued_at.desc()).limit(most)
    return [ActionRecord(*row) for row in connection.execute(query)]


def of_task(connection: Connection, root_id: str, task_id: str) -> tuple[int, datetime | None]:
    """How many tokens were issued for a task under one root, and when the first one was."""
    query = select(func.count(), func.min(_TABLE.c.issued_at))
    row = connection.execute(query.where(_TABLE.c.root_id == root_id, _TABLE.c.task_id == task_id)).one()
    return int(row[0]), row[1]


def row_of(action: ActionRecord) -> Row:
    """A new action as a row; `ledger.reservations.reserve` is who writes it."""
    return Row(_TABLE, {name: getattr(action, name) for name in _NAMES})


def in_status_list(connection: Connection, list_id: int, now: datetime) -> Iterator[list[Listed]]:
    """The actions of one status list whose tokens somebody may still accept: expired ones, too, within the leeway.

    In parts: a busy list holds more of them than a process should hold at once.
    """
    query = _LISTED.where(_TABLE.c.status_list == list_id, _TABLE.c.expires_at > now - LEEWAY)
    for part in connection.execute(query, execution_options={"yield_per": _PART}).partitions():
        yield [
            Listed(
                row.status_index,
                row.delegation_id,
                row.task_id,
                _is_live(row.state, row.issued_at, row.expires_at, now),
            )
            for row in part
        ]


def merchant_of(action: ActionRecord) -> Merchant | None:
    """The merchant in the action's details, as it was granted."""
    details = strict_json.parse(action.details)
    merchant = details.get("merchant") if isinstance(details, dict) else None
    return None if merchant is None else Merchant.parse(merchant)
