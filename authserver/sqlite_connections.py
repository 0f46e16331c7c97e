"""A process's connections to SQLite, which has one writer: in the order of arrival, several in one commit.

SQLite's own waiting is by naps of growing length, which starves single writers for seconds. Here the threads of a
process stand in line, and the first of each process waits in the kernel, by a lock (`flock`) that ends with the process
that holds it, however that ends. Who finds others waiting leaves the commit to them: to put a transaction on the disk
costs more than the transaction. Nobody has an answer before the commit that has their part in it.
"""

import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

Result = TypeVar("Result")

_MOST = 32  # parts of one commit: the other processes wait for it


class Lost(Exception):  # a turn of events, not an error
    """Another part of the same commit failed so badly that SQLite took back all of them; begin anew."""


class Line:
    """The threads of one process, one at a time, in the order in which they came."""

    def __init__(self, patience: float) -> None:
        """Nobody waits longer than `patience`, in seconds."""
        self._patience = patience
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._since: float | None = None  # when the turn of the present one began

    def enter(self) -> None:
        """Return when it is the caller's turn. Raises `TimeoutError`."""
        with self._guard:
            if self._since is None:
                self._since = time.monotonic()
                return
            if time.monotonic() - self._since > self._patience:
                raise TimeoutError("the writer before has not ended")  # nor will it for those who come now
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if not mine.acquire(timeout=self._patience):
            self._give_up(mine)

    def _give_up(self, mine: threading.Lock) -> None:
        with self._guard:
            if mine in self._waiting:  # else the turn came just now
                self._waiting.remove(mine)
                raise TimeoutError("the writers before have not ended")

    def hand_over(self) -> bool:
        """Give the turn to the next one; False where nobody waits, and the caller keeps it."""
        with self._guard:
            return self._is_handed_over()

    def leave(self) -> None:
        """Give the turn to the next one, or to whoever comes."""
        with self._guard:
            if not self._is_handed_over():
                self._since = None

    def _is_handed_over(self) -> bool:
        if not self._waiting:
            return False
        self._since = time.monotonic()
        self._waiting.popleft().release()
        return True


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.driver_connection)


def put_on_disk(connection: Connection) -> None:
    """Commit. Raises `sqlite3.Error`."""
    _driver(connection).execute("COMMIT")


@dataclass(slots=True, eq=False)
class _Commit:
    """One transaction, what is in it, and what became of it."""

    connection: Connection
    waiting: list[threading.Lock] = field(default_factory=list)  # of those whose part is done
    whole: bool = True  # no part is in it by half
    error: BaseException | None = None

    def run(self, work: Callable[[Connection], Result], *, alone: bool) -> Result:
        """Do one more part. If it fails, what it wrote is taken back and the parts before stay."""
        if alone:
            return work(self.connection)
        driver = _driver(self.connection)
        self.whole = False
        driver.execute("SAVEPOINT part")
        try:
            result = work(self.connection)
        except BaseException:
            if driver.in_transaction:
                driver.execute("ROLLBACK TO part")
                self._release(driver)
            raise
        self._release(driver)
        return result

    def _release(self, driver: sqlite3.Connection) -> None:
        driver.execute("RELEASE part")
        self.whole = True

    def can_be_committed(self) -> bool:
        """Whether the parts before are all there: SQLite takes back everything when a disk is full or fails."""
        return self.whole and _driver(self.connection).in_transaction

    def wait(self, mine: threading.Lock, patience: float) -> None:
        """Return when the part is on the disk. Raises what went wrong."""
        if not mine.acquire(timeout=patience):
            raise TimeoutError("the commit has not ended")
        if self.error is not None:
            raise self.error

    def end(self, error: BaseException | None) -> None:
        """Tell everybody."""
        self.error = error
        for lock in self.waiting:
            lock.release()


class SqliteConnections:
    """One process's connections to one SQLite database, which are kept: one that writes, and those that read."""

    def __init__(self, engine: Engine, patience: float) -> None:
        """`patience` is how long a thread waits for those before it, in seconds; then it gets `TimeoutError`."""
        self._engine, self._patience, self._line = engine, patience, Line(patience)
        database = engine.url.database
        self._path = Path(f"{database}-writer") if database and database != ":memory:" else None
        self._file: int | None = None
        self._connection: Connection | None = None
        self._commit: _Commit | None = None  # whoever has the turn has this too
        self._readers: deque[Connection] = deque()  # that nobody uses now

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work`, which sees one instant and changes nothing."""
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = self._engine.connect()
        try:
            driver = _driver(connection)
            driver.execute("BEGIN")
            try:
                return work(connection)
            finally:
                driver.execute("ROLLBACK")
        except (DBAPIError, sqlite3.Error):
            connection.close()
            raise
        finally:
            if not connection.closed:
                self._readers.append(connection)

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` and commit it, alone or together with others. Raises `Lost`, `TimeoutError`, `DBAPIError`,
        and `sqlite3.Error` where it cannot be begun or committed.
        """
        begun = time.monotonic()
        self._line.enter()
        commit = self._commit
        alone = commit is None
        try:
            if commit is None:
                commit = self._begin(begun)
            result = commit.run(work, alone=alone)
        except BaseException as error:
            self._after_failure(commit, error, alone=alone)
            raise
        mine = threading.Lock()
        mine.acquire()
        commit.waiting.append(mine)
        if len(commit.waiting) >= _MOST or not self._line.hand_over():
            self._end(commit)
        commit.wait(mine, self._patience)
        return result

    def connections(self) -> dict[str, int]:
        """How many there are, by what they do: those that read are made when all others are in use."""
        return {"in_use": int(self._commit is not None), "idle": len(self._readers)}

    def _begin(self, begun: float) -> _Commit:
        self._take_lock(begun)
        connection = self._connection or self._engine.connect()
        self._connection = None  # until it is known to be good
        commit = _Commit(connection)
        try:
            # The write lock at once: a read that grows into a write could not be retried. SQLAlchemy has a transaction
            # of its own around all of this, which ends with the connection: its way of saying BEGIN costs too much.
            _driver(connection).execute("BEGIN IMMEDIATE")
        except BaseException:
            connection.close()
            raise
        self._commit = commit
        return commit

    def _take_lock(self, begun: float) -> None:
        if self._path is None:
            return
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        if time.monotonic() - begun > self._patience:
            raise TimeoutError("another process has written for too long")

    def _after_failure(self, commit: _Commit | None, error: BaseException, *, alone: bool) -> None:
        """The part that had the turn is taken back; those before it are committed all the same, by somebody."""
        if commit is None or alone:
            self._drop(commit, broken=isinstance(error, DBAPIError | sqlite3.Error))
        elif not commit.can_be_committed():
            try:
                self._drop(commit, broken=True)
            finally:
                commit.end(Lost())
        elif not self._line.hand_over():
            self._end(commit)

    def _drop(self, commit: _Commit | None, *, broken: bool) -> None:
        try:
            if commit is not None and broken:
                commit.connection.close()
            elif commit is not None:
                _driver(commit.connection).execute("ROLLBACK")
                self._connection = commit.connection
        finally:
            self._give_lock_back()
            self._line.leave()

    def _end(self, commit: _Commit) -> None:
        """Commit, let the next one begin, and wake all that have a part in it."""
        failed: BaseException | None = None
        try:
            put_on_disk(commit.connection)
            self._connection = commit.connection
        except BaseException as error:  # noqa: BLE001 - it is raised by all whose part is lost with it
            failed = error
            commit.connection.invalidate()  # a transaction that may be open still must not go back to the pool
        finally:
            self._give_lock_back()
            self._line.leave()
            commit.end(failed)

    def _give_lock_back(self) -> None:
        self._commit = None
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close connection and lock; a process that is forked later would share them, and with them the turn."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        while self._readers:
            self._readers.pop().close()
        if self._file is not None:
            os.close(self._file)
            self._file = None
