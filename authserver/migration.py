"""The schema's version: which migrations a database has, and bringing it up to date."""

from functools import cache

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from authserver.config import MIGRATIONS
from authserver.db import Database

# Any number will do, as long as it is the same for all who migrate.
_MIGRATION_LOCK = 0x6D696772


def pending(database: Database) -> list[str]:
    """The revisions that the database lacks, oldest first.

    None where it is ahead of this program: during an upgrade, old processes go on with the new schema (F09).
    """
    return database.read(_missing)


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
            command.upgrade(_alembic(connection), to)
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
        command.downgrade(_alembic(connection), to)
        return [revision for revision in reversed(_missing(connection)) if revision not in before]

    return database.write(work)


@cache
def _revisions() -> tuple[str, ...]:
    newest_first = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    return tuple(reversed([script.revision for script in newest_first]))


def _missing(connection: Connection) -> list[str]:
    current = MigrationContext.configure(connection).get_current_revision()
    known = _revisions()
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


def _alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
