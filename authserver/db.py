"""Transactions on SQLite and PostgreSQL: begun and committed at the edge, retried within bounds, fair among writers."""

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from authserver.errors import Refusal

log = structlog.get_logger()
Result = TypeVar("Result")

_TRIES = 6
# PostgreSQL: serialization_failure, deadlock_detected, lock_not_available.
_RETRIED_STATES = {"40001", "40P01", "55P03"}
# Any number will do, as long as all processes use the same: see `hold_off_revocations`.
_REVOCATION_LOCK = 0x61757468


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

    def __init__(self, url: str, pool_size: int = 4, statement_timeout: int = 5_000) -> None:
        """`url` as SQLAlchemy writes it (`sqlite:///…`, `postgresql+psycopg://…`); `statement_timeout` in ms."""
        self.url = _with_driver(make_url(url))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        engine = _sqlite_engine if self.is_sqlite else _postgresql_engine
        self.engine = engine(self.url, pool_size, statement_timeout)
        self._queue = _WriterQueue(self.url.database if self.is_sqlite else None)

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in a transaction and commit it; begun anew, a bounded number of times, after a conflict.

        `work` may run more than once, so it must do nothing that outlives a rollback.
        Raises `Refusal` with 503 where the database cannot commit.
        """
        for attempt in range(_TRIES):
            try:
                with self._queue, self.engine.connect() as connection:
                    if self.is_sqlite:
                        # The write lock at once: a read that grows into a write could not be retried.
                        connection.exec_driver_sql("BEGIN IMMEDIATE")
                    result = work(connection)
                    _commit(connection)
                    return result
            except Conflict:
                pass
            except (SQLAlchemyError, OSError) as error:
                if not _worth_another_try(error):
                    raise _unavailable_after(error) from error
            time.sleep(0.002 * 2**attempt)
        log.error("database.conflicts", tries=_TRIES)
        raise unavailable()

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work`, which changes nothing, on one consistent connection. Raises `Refusal` with 503."""
        try:
            with self.engine.connect() as connection:
                if self.is_sqlite:
                    connection.exec_driver_sql("BEGIN")
                return work(connection)
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable_after(error) from error

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def hold_off_revocations(connection: Connection) -> None:
    """Let no revocation commit until this transaction has ended (many holders at once).

    INVARIANT: no action row is committed after the commit of a revocation that covers it
    (test_nothing_is_minted_after_a_revocation_that_races). SQLite has one writer at a time and needs nothing more.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_SHARED_LOCK)


def wait_for_exchanges(connection: Connection) -> None:
    """Before a revocation is written: wait until every transaction that held it off has ended."""
    if connection.dialect.name == "postgresql":
        connection.execute(_EXCLUSIVE_LOCK)


_SHARED_LOCK = text(f"SELECT pg_advisory_xact_lock_shared({_REVOCATION_LOCK})")
_EXCLUSIVE_LOCK = text(f"SELECT pg_advisory_xact_lock({_REVOCATION_LOCK})")


def _with_driver(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except DBAPIError as error:
        # The server may have committed before the connection broke: to do it again would do it twice.
        if error.connection_invalidated:
            raise _unavailable_after(error) from error
        raise


class _WriterQueue:
    """SQLite has one writer. Its own waiting is by naps of growing length, which starves single writers for
    seconds; here threads and processes wait in the kernel instead, and the lock goes from hand to hand.
    """

    def __init__(self, database: str | None) -> None:
        self._turn = threading.Lock()
        self._path = Path(f"{database}-writer") if database and database != ":memory:" else None
        self._file: int | None = None

    def __enter__(self) -> None:
        if self._path is None:
            return
        self._turn.acquire()
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except BaseException:
            self._turn.release()
            raise

    def __exit__(self, *exception: object) -> None:
        if self._file is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._turn.release()


def _sqlite_engine(url: URL, pool_size: int, timeout: int) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": timeout / 1000, "check_same_thread": False},
        pool_size=32,  # a connection is a file handle here; one for each thread that reads
        max_overflow=0,
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


def _postgresql_engine(url: URL, pool_size: int, timeout: int) -> Engine:
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_reset_on_return=None,  # every transaction here is committed or rolled back by its own end
        connect_args={"connect_timeout": 5, "options": f"-c statement_timeout={timeout}"},
    )


def _worth_another_try(error: Exception) -> bool:
    if isinstance(error, PoolTimeout) or not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True  # before the commit: the server went away, or a new one took over
    state = getattr(error.orig, "sqlstate", None)
    return state in _RETRIED_STATES or (isinstance(error, OperationalError) and "locked" in str(error.orig))


def _unavailable_after(error: Exception) -> Refusal:
    # The driver's own words; SQLAlchemy's would show the statement's parameters.
    detail = str(getattr(error, "orig", error)).splitlines()
    log.error("database.failed", error=type(error).__name__, detail=detail[0] if detail else "")
    return unavailable()
