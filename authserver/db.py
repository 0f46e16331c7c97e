"""Transactions on SQLite and PostgreSQL: begun and committed at the edge, retried within bounds, fair among writers."""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
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


class Conflict(Exception):
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
        """`url` as SQLAlchemy writes it (`sqlite:///…`, `postgresql+psycopg://…`); `statement_timeout` in milliseconds."""
        self.url = make_url(url)
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = (
            _sqlite_engine(self, statement_timeout)
            if self.is_sqlite
            else _postgresql_engine(self, pool_size, statement_timeout)
        )
        self._queue = _WriterQueue(self.url.database if self.is_sqlite else None)

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in a transaction and commit it; begun anew, a bounded number of times, after a conflict.

        `work` may run more than once, so it must do nothing that outlives a rollback.
        Raises `Refusal` with 503 where the database cannot commit.
        """
        for attempt in range(_TRIES):
            try:
                with self._queue, self.engine.connect() as connection:
                    result = work(connection)
                    connection.commit()
                    return result
            except Conflict:
                pass
            except (SQLAlchemyError, OSError) as error:
                if not _worth_another_try(error):
                    log.error("database.failed", error=type(error).__name__, detail=_detail(error))
                    raise unavailable() from error
            time.sleep(0.002 * 2**attempt)
        log.error("database.conflicts", tries=_TRIES)
        raise unavailable()

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work`, which changes nothing, on one consistent connection. Raises `Refusal` with 503."""
        try:
            with self.engine.connect() as connection:
                return work(connection)
        except (SQLAlchemyError, OSError) as error:
            log.error("database.failed", error=type(error).__name__, detail=_detail(error))
            raise unavailable() from error

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def hold_off_revocations(connection: Connection) -> None:
    """Let no revocation commit until this transaction has ended (many holders at once).

    INVARIANT: no action row is committed after the commit of a revocation that covers it
    (test_a_revocation_and_exchanges_race). SQLite has one writer at a time and needs nothing more.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_SHARED_LOCK)


def wait_for_exchanges(connection: Connection) -> None:
    """Before a revocation is written: wait until every transaction that held it off has ended."""
    if connection.dialect.name == "postgresql":
        connection.execute(_EXCLUSIVE_LOCK)


_SHARED_LOCK = text(f"SELECT pg_advisory_xact_lock_shared({_REVOCATION_LOCK})")
_EXCLUSIVE_LOCK = text(f"SELECT pg_advisory_xact_lock({_REVOCATION_LOCK})")


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
        if self._path is None or self._file is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._turn.release()


def _sqlite_engine(database: Database, timeout: int) -> Engine:
    engine = create_engine(
        database.url,
        connect_args={"timeout": timeout / 1000, "check_same_thread": False},
        pool_size=32,
        max_overflow=0,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]  # transactions begin where we say
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the write lock at its start: a read that grows into a write could not be retried.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if database._queue._turn.locked() else "BEGIN")

    return engine


def _postgresql_engine(database: Database, pool_size: int, timeout: int) -> Engine:
    engine = create_engine(
        database.url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=False,
        connect_args={
            "connect_timeout": 5,
            # PgBouncer in transaction mode knows no prepared statements of a session.
            "prepare_threshold": None,
        },
    )
    return engine


def _worth_another_try(error: Exception) -> bool:
    if isinstance(error, PoolTimeout) or not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True  # the server went away before the commit was asked for, or a new one took over
    state = getattr(error.orig, "sqlstate", None)
    return state in _RETRIED_STATES or (isinstance(error, OperationalError) and "locked" in str(error.orig))


def _detail(error: Exception) -> str:
    # The driver's own words; SQLAlchemy's would show the statement's parameters.
    return str(getattr(error, "orig", error)).splitlines()[0] if str(error) else ""
