"""Against approval bombing (threats A82): how many requests may wait, and how many may come in a minute."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from authserver.config import ApprovalsSettings
from authserver.errors import Refusal, Violation
from authserver.schema import Approval, User, table_of

_TABLE, _USERS = table_of(Approval), table_of(User)
_MINUTE = timedelta(minutes=1)

_ONE_AT_A_TIME = select(_USERS.c.user_id).where(_USERS.c.user_id == bindparam("user")).with_for_update()


def check(
    connection: Connection, settings: ApprovalsSettings, client_id: str, user_id: str, now: datetime
) -> None:
    """One request more may wait for this user. Raises `Refusal` (`access_denied`).

    The user's row is locked until the request is written, so that a hundred at once are counted one by one.
    """
    connection.execute(_ONE_AT_A_TIME, {"user": user_id})
    mine, agents = _TABLE.c.user_id == user_id, _TABLE.c.client_id == client_id
    open_now = (_TABLE.c.state == "waiting") & (_TABLE.c.expires_at > now)
    lately = _TABLE.c.created_at > now - _MINUTE
    _at_most(connection, settings.open_for_agent, "agent", mine & agents & open_now)
    _at_most(connection, settings.open_for_user, "user", mine & open_now)
    _at_most(connection, settings.per_minute, "minute", mine & agents & lately)


def _at_most(connection: Connection, most: int, which: str, counted: ColumnElement[bool]) -> None:
    there = connection.scalar(select(func.count()).select_from(_TABLE).where(counted)) or 0
    if there >= most:
        raise Refusal(
            "access_denied",
            "too many requests wait for an approval, or came in a minute",
            rule=f"approval.limit.{which}",
            violations=(Violation("approval", there + 1, most),),
        )
