"""What a server sends to its database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from tests.world import World


@contextmanager
def statements(world: World) -> Iterator[list[str]]:
    """Collects what is sent to the database, but for the prepared statements of the hot paths."""
    sent: list[str] = []

    def hear(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        sent.append(statement)

    engine: Engine = world.services.database.engine
    event.listen(engine, "before_cursor_execute", hear)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", hear)
