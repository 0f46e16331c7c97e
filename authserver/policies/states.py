"""How far each set of policies has come: drafted, observed or enforced. Kept in the database, the same for everyone."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, cast, get_args

from sqlalchemy import Connection, select, update

from authserver.schema import PolicyState, table_of

State = Literal["draft", "observe", "enforce"]
STATES: tuple[State, ...] = get_args(State)

_TABLE = table_of(PolicyState)


def read_all(connection: Connection) -> Mapping[str, State]:
    """The state of each set that somebody has moved, by name."""
    return {
        row.name: cast(State, row.state) for row in connection.execute(select(_TABLE.c.name, _TABLE.c.state))
    }


def moved_by(connection: Connection, name: str) -> tuple[State, str] | None:
    """The state into which somebody moved a set, and who; None where nobody has."""
    query = select(_TABLE.c.state, _TABLE.c.changed_by).where(_TABLE.c.name == name).with_for_update()
    row = connection.execute(query).first()
    return None if row is None else (cast(State, row.state), row.changed_by)


def move(connection: Connection, name: str, state: State, by: str, now: datetime) -> None:
    """Write the state of a set; the caller writes the audit event in the same transaction."""
    values = {"state": state, "changed_at": now, "changed_by": by}
    changed = connection.execute(update(_TABLE).where(_TABLE.c.name == name).values(values))
    if changed.rowcount == 0:
        connection.execute(_TABLE.insert(), {"name": name, **values})
