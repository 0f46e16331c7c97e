"""Transactions on SQLite and PostgreSQL: begun and committed at the edge, retried within bounds, fair among writers."""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import structlog
from sqlalchemy import (
    Connection,
    Engine,
    Insert,
    Table,
    Update,
    bindparam,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

from authserver import metrics
from authserver.errors import Refusal
from authserver.sqlite_connections import Lost, SqliteConnections
from authserver.statements import Prepared

log = structlog.get_logger()
Result = TypeVar("Result")

_TRIES = 6
# PostgreSQL: serialization_failure, deadlock_detected, lock_not_available.
_RETRIED_STATES = {"40001", "40P01", "55P03"}
# Any number will do, as long as all processes use the same: see `hold_off_revocations`.
_REVOCATION_LOCK = 0x61757468
_COUNTING_LOCK = 0x636E74  # likewise, see `one_at_a_time`; locks by two numbers are apart from those by one


class Conflict(Exception):  # a turn of events, not an error
    """Two transactions met; doing this one again from its start will do."""


def unavailable() -> Refusal:
    """The database cannot commit (contract §6): nothing has happened, and trying again later is right."""
    return Refusal(
        "temporarily_unavailable",
        "the server cannot record this now; try again with the same Idempotency-Key",
        rule="database",
        status=503,
        headers={"Retry-After": "1"},
    )


class Database:
    """One database. `write` and `read` run a function in a transaction of its own."""

    def __init__(
        self,
        url: str,
        pool_size: int = 8,
        statement_timeout: int = 5_000,
        *,
        prepared_statements: bool = True,
    ) -> None:
        """`url` as SQLAlchemy writes it (`sqlite:///…`, `postgresql+psycopg://…`); `statement_timeout` in ms.

        `prepared_statements` is false where a pooler gives each transaction another connection and knows none of them.
        """
        self.url = _with_driver(make_url(url))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = _sqlite_engine(self.url, statement_timeout)
        else:
            # Not before: a server on SQLite never loads PostgreSQL's driver.
            from authserver.postgresql_connections import postgresql_engine

            self.engine = postgresql_engine(self.url, pool_size, statement_timeout, prepared_statements)
        self._patience = statement_timeout / 1000
        # The rest is for the database's own lock, so that the caller has its 503 while it still listens.
        self._sqlite = SqliteConnections(self.engine, self._patience / 2) if self.is_sqlite else None

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in a transaction and commit it; begun anew, a bounded number of times, after a conflict.

        `work` may run more than once, so it must do nothing that outlives a rollback.
        Raises `Refusal` with 503 where the database cannot commit.
        """
        deadline = time.monotonic() + self._patience
        for attempt in range(_TRIES):
            try:
                return self._sqlite.write(work) if self._sqlite else self._write(work)
            except (Conflict, Lost):
                pass
            except (SQLAlchemyError, sqlite3.Error, OSError) as error:
                if not _worth_another_try(error) or time.monotonic() > deadline:
                    raise _unavailable_after(error) from error
            metrics.begun_anew()
            time.sleep(0.002 * 2**attempt)
        log.error("database.conflicts", tries=_TRIES)
        metrics.not_committed()
        raise unavailable()

    def _write(self, work: Callable[[Connection], Result]) -> Result:
        with self.engine.connect() as connection:
            result = work(connection)
            _commit(connection)
            return result

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work`, which changes nothing, on one consistent connection. Raises `Refusal` with 503."""
        try:
            return self._read(work)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise _unavailable_after(error) from error
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise _unavailable_after(error) from error
        # A connection of the pool was dead, so all of them were thrown away: the database may have been started anew.
        try:
            return self._read(work)
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable_after(error) from error

    def _read(self, work: Callable[[Connection], Result]) -> Result:
        if self._sqlite:
            return self._sqlite.read(work)
        with self.engine.connect() as connection:
            return work(connection)

    def is_standby(self) -> bool:
        """Whether this is a copy that follows another PostgreSQL, and so may be behind (F13). Raises `Refusal`, 503."""
        if self.is_sqlite:
            return False
        return self.read(lambda connection: bool(connection.scalar(text("SELECT pg_is_in_recovery()"))))

    def connections(self) -> dict[str, int]:
        """How many connections to the database this process has, by what they do: `in_use`, `idle`."""
        if self._sqlite:
            return self._sqlite.connections()
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return {}
        return {"in_use": pool.checkedout(), "idle": pool.checkedin()}

    def dispose(self) -> None:
        """Close all connections."""
        if self._sqlite:
            self._sqlite.close()
        self.engine.dispose()


def hold_off_revocations(connection: Connection) -> None:
    """Let no revocation commit until this transaction has ended (many holders at once).

    INVARIANT: no action row is committed after the commit of a revocation that covers it
    (test_nothing_is_minted_after_a_revocation_that_races). SQLite has one writer at a time and needs nothing more.
    """
    if connection.dialect.name == "postgresql":
        if connection.in_transaction():
            connection.execute(text(_SHARED_LOCK))
        else:
            from authserver.postgresql_connections import begin_with

            begin_with(connection, _SHARED_LOCK)


def one_at_a_time(connection: Connection, name: str) -> None:
    """Wait until every other transaction that has called this with the same `name` has ended.

    For what is counted before it is added to. SQLite has one writer at a time and needs nothing more.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_NAMED_LOCK, {"kind": _COUNTING_LOCK, "name": name})


def see_one_instant(connection: Connection) -> None:
    """First in a transaction of `read`: let all that it reads be of one instant, while others write."""
    if connection.dialect.name == "postgresql":  # on SQLite it always is
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def wait_for_exchanges(connection: Connection) -> None:
    """Before a revocation is written: wait until every transaction that held it off has ended."""
    if connection.dialect.name == "postgresql":
        connection.execute(_EXCLUSIVE_LOCK)


_SHARED_LOCK = f"SELECT pg_advisory_xact_lock_shared({_REVOCATION_LOCK})"
_NAMED_LOCK = text("SELECT pg_advisory_xact_lock(:kind, hashtext(:name))")
_EXCLUSIVE_LOCK = text(f"SELECT pg_advisory_xact_lock({_REVOCATION_LOCK})")


@dataclass(frozen=True, slots=True)
class Row:
    """A row to be inserted; `values` names each of its columns."""

    table: Table
    values: Mapping[str, object]


def write_together(
    connection: Connection, rows: Sequence[Row], last: Update | None = None, **parameters: object
) -> int:
    """Insert the rows, then run `last`; returns how many rows `last` changed (without it, were inserted last).

    On PostgreSQL all is one statement and one round trip, and `last` holds its row's lock for as short as can be.
    SQLite has nobody to wait for, so there they are sent one by one.
    """
    if connection.dialect.name == "postgresql":
        shapes = tuple((row.table, tuple(row.values)) for row in rows)
        for number, row in enumerate(rows):
            parameters |= {f"{number}_{name}": value for name, value in row.values.items()}
        return _together(shapes, last).change(connection, parameters)
    for row in rows:
        _insert(row.table, tuple(row.values)).change(connection, row.values)
    return _together((), last).change(connection, parameters) if last is not None else 1


@lru_cache
def _insert(table: Table, names: tuple[str, ...]) -> Prepared:
    return Prepared(table.insert().inline(), names)


@lru_cache
def _together(shapes: tuple[tuple[Table, tuple[str, ...]], ...], last: Update | None) -> Prepared:
    inserts = [_insert_of(table, names, number) for number, (table, names) in enumerate(shapes)]
    final = inserts.pop() if last is None else last
    return Prepared(final.add_cte(*(insert.cte(f"row_{number}") for number, insert in enumerate(inserts))))


def _insert_of(table: Table, names: Sequence[str], number: int) -> Insert:
    parameters = {name: bindparam(f"{number}_{name}", type_=table.c[name].type) for name in names}
    return table.insert().values(parameters).inline()


def _with_driver(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except DBAPIError as error:
        # The server may have committed before the connection broke: to do it again would do it twice.
        if error.connection_invalidated:
            raise _unavailable_after(error) from error
        connection.invalidate()  # a transaction that may be open still must not go back to the pool
        raise


def _sqlite_engine(url: URL, timeout: int) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": timeout / 1000, "check_same_thread": False},
        poolclass=NullPool,  # `SqliteConnections` keeps them
        pool_reset_on_return=None,  # every transaction here is committed or rolled back by its own end
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions begin where we say
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        # Without it, INSERT OR REPLACE would get past the triggers that keep the audit and the transfers as written.
        cursor.execute("PRAGMA recursive_triggers=ON")
        cursor.close()

    return engine


def _worth_another_try(error: Exception) -> bool:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True  # before the commit: the server went away, or a new one took over
    original = getattr(error, "orig", error)  # what the driver raised, through SQLAlchemy or not
    if isinstance(original, sqlite3.OperationalError):
        return "locked" in str(original)
    return getattr(original, "sqlstate", None) in _RETRIED_STATES


def _unavailable_after(error: Exception) -> Refusal:
    # The driver's own words; SQLAlchemy's would show the statement's parameters.
    detail = str(getattr(error, "orig", error)).splitlines()
    log.error("database.failed", error=type(error).__name__, detail=detail[0] if detail else "")
    metrics.not_committed()
    return unavailable()
