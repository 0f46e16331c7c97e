"""The schema goes up, down and up again, and is then what schema.py says, the same on both databases."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Table, create_engine, delete, func, insert, inspect, select, text, update
from sqlalchemy.engine import Inspector
from sqlalchemy.exc import IntegrityError

from authserver.config import MIGRATIONS
from authserver.db import Database
from authserver.errors import Refusal
from authserver.migration import downgrade, is_current, pending, upgrade
from authserver.schema import AuditEvent, Base, Revocation, Transfer

NOW = datetime(2026, 1, 1, tzinfo=UTC)

TRANSFER = {"root_id": "d1", "action_id": "a1", "step": 1, "kind": "reserve", "amount": 100, "at": NOW}
EVENT = {"at": NOW, "event": "exchange.permitted", "data": "{}"}
REVOCATION = {"kind": "agent", "target": "a", "reason": "", "revoked_by": "b", "revoked_at": NOW}


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    database = Database(empty_database_url)
    yield database
    database.dispose()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.dispose()


def test_the_schema_goes_up_and_down_and_up_again(empty: Database) -> None:
    revisions = pending(empty)
    assert revisions
    assert not is_current(empty)
    for _ in range(2):
        assert upgrade(empty) == revisions
        assert is_current(empty)
        assert downgrade(empty, "base") == revisions[::-1]
        assert pending(empty) == revisions
        assert _everything(empty) == {"alembic_version"}
    assert upgrade(empty) == revisions


def test_migrations_are_one_line_in_the_order_of_their_numbers(empty: Database) -> None:
    newest_first = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    assert pending(empty) == [script.revision for script in newest_first][::-1]


def test_each_migration_goes_up_and_down_by_itself(empty: Database) -> None:
    below = "base"
    for revision in pending(empty):
        assert upgrade(empty, revision) == [revision]
        assert downgrade(empty, below) == [revision]
        assert upgrade(empty, revision) == [revision]
        below = revision
    assert is_current(empty)


def test_a_current_schema_is_left_as_it_is(database: Database) -> None:
    assert is_current(database)
    assert upgrade(database) == []


def test_a_migrated_database_is_what_the_schema_says(database: Database) -> None:
    def differences(connection: Connection) -> object:
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)

    assert database.read(differences) == []


def test_a_migrated_database_checks_what_the_schema_checks(empty: Database) -> None:
    # Alembic compares no CHECK constraints, and the ledger stands on them.
    upgrade(empty)
    migrated = _checks(inspect(empty.engine))
    assert migrated["budgets"]
    downgrade(empty, "base")
    Base.metadata.create_all(empty.engine)
    assert migrated == _checks(inspect(empty.engine))


def test_two_who_migrate_at_once_do_it_once(empty: Database) -> None:
    revisions = pending(empty)
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: upgrade(empty), range(4)))
    assert sorted(done) == [[], [], [], revisions]


def test_F09_an_interrupted_migration_leaves_nothing_behind(empty: Database) -> None:
    # The first migration meets a table of its own name half-way.
    empty.write(lambda connection: connection.execute(text("CREATE TABLE transfers (x INTEGER)")))
    with pytest.raises(Refusal):
        upgrade(empty)
    assert _everything(empty) == {"transfers"}
    empty.write(lambda connection: connection.execute(text("DROP TABLE transfers")))
    assert upgrade(empty)


def test_F09_an_old_process_takes_a_newer_schema_as_it_is(database: Database) -> None:
    database.write(
        lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    )
    assert is_current(database)
    assert upgrade(database) == []


@pytest.mark.parametrize(
    ("table", "row", "changed"),
    [
        (Transfer.__table__, TRANSFER, "at"),
        (AuditEvent.__table__, EVENT, "at"),
        (Revocation.__table__, REVOCATION, "revoked_at"),
    ],
)
def test_the_database_refuses_to_change_what_was_recorded(
    database: Database, table: Table, row: Mapping[str, object], changed: str
) -> None:
    database.write(lambda connection: connection.execute(insert(table), row))
    for change in (delete(table), update(table).values({changed: NOW})):
        with database.engine.connect() as connection, pytest.raises(IntegrityError, match="append-only"):
            connection.execute(change)
    assert database.read(lambda connection: connection.scalar(select(func.count()).select_from(table))) == 1


@pytest.mark.parametrize("table", ["transfers", "audit_events", "revocations"])
def test_postgresql_refuses_to_empty_what_was_recorded(postgresql_url: str, table: str) -> None:
    engine = create_engine(postgresql_url)
    with engine.connect() as connection, pytest.raises(IntegrityError, match="append-only"):
        connection.execute(text(f"TRUNCATE {table}"))
    engine.dispose()


def _everything(database: Database) -> set[str]:
    # Triggers and functions too: nothing may stay behind.
    sqlite = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    postgresql = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        " UNION SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    )
    found = text(sqlite if database.is_sqlite else postgresql)
    return {*database.read(lambda connection: connection.scalars(found).all())}


def _checks(inspector: Inspector) -> dict[str, set[tuple[str | None, str]]]:
    return {
        table: {(check["name"], check["sqltext"]) for check in inspector.get_check_constraints(table)}
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }
