"""The schema's version: which migrations a database has, and bringing it up to date.

A migration's file is called by its revision, which is a number of four digits: `0001_first_tables.py`.
"""

from functools import cache
from typing import Literal

from sqlalchemy import Connection, inspect, text

from authserver.config import MIGRATIONS, ConfigurationError
from authserver.db import Database

# Any number will do, as long as it is the same for all who migrate.
_MIGRATION_LOCK = 0x6D696772


def pending(database: Database) -> list[str]:
    """The revisions that the database lacks, oldest first.

    Empty where it is ahead of this program: during an upgrade, old processes go on with the new schema (F09).
    """
    return database.read(_missing)


def check_usable(database: Database) -> None:
    """Hold a database to what every process needs of it before it begins: the primary, with today's schema.

    Raises `ConfigurationError`, and `Refusal` with 503 where it cannot be asked.
    """
    if database.is_standby():
        raise ConfigurationError(
            "database.url: leads to a standby, which is read-only and may be behind; takes the primary (with all hosts "
            "in the URL, target_session_attrs=read-write finds it)"
        )
    if not is_current(database):
        raise ConfigurationError("the database's schema is behind: run  python manage.py migrate")


def is_current(database: Database) -> bool:
    """Whether the database has every revision that this program knows."""
    return not pending(database)


def upgrade(database: Database, to: str = "head") -> list[str]:
    """Bring the schema up to the revision `to`, all in one transaction; the revisions that were applied.

    Raises `Refusal` with 503 where the database cannot do it; then nothing has changed.
    """

    def work(connection: Connection) -> list[str]:
        _wait_for_others(connection)
        before = _missing(connection)
        if before:
            _run_alembic("upgrade", connection, to)
        after = _missing(connection)
        return [revision for revision in before if revision not in after]

    return database.write(work)


def downgrade(database: Database, to: str) -> list[str]:
    """Take the schema back to the revision `to`, or to nothing with `base`; the revisions that were undone.

    What only the undone revisions can hold is lost. Raises `Refusal` with 503; then nothing has changed.
    """

    def work(connection: Connection) -> list[str]:
        _wait_for_others(connection)
        before = _missing(connection)
        _run_alembic("downgrade", connection, to)
        return [revision for revision in reversed(_missing(connection)) if revision not in before]

    return database.write(work)


@cache
def _revisions() -> tuple[str, ...]:
    return tuple(sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py")))


def _missing(connection: Connection) -> list[str]:
    known, current = _revisions(), None
    if inspect(connection).has_table("alembic_version"):
        current = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if current is None:
        return list(known)
    # A revision that is not known here is of a newer program, which has all of ours: history is one line.
    return list(known[known.index(current) + 1 :]) if current in known else []


def _wait_for_others(connection: Connection) -> None:
    # SQLite's writers are one at a time already.
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        # A long table takes longer than a request may.
        connection.execute(text("SET LOCAL statement_timeout = 0"))


def _run_alembic(verb: Literal["upgrade", "downgrade"], connection: Connection, to: str) -> None:
    # Imported here: it costs a quarter of a second, and a server that starts only asks whether it is current.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    run = command.upgrade if verb == "upgrade" else command.downgrade
    run(config, to)
