"""Writers on SQLite that share a commit: what one of them does is its own, and nobody is answered too early."""

import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import Connection, text

from authserver.db import Conflict, Database
from authserver.errors import Refusal


class _Notes:
    """A database with one table of notes, and writers of which the first waits until the others stand behind it."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.path = self.database.url.database or ""
        self.database.write(
            lambda c: c.execute(text("CREATE TABLE notes (note TEXT NOT NULL, UNIQUE (note))"))
        )
        self.pool = ThreadPoolExecutor(8)
        self.go, self.begun = threading.Event(), threading.Event()

    def first(self, note: str) -> "Future[None]":
        """A writer that has its turn and keeps it until `go`."""

        def work(connection: Connection) -> None:
            write(connection, note)
            self.begun.set()
            assert self.go.wait(5)

        found = self.pool.submit(self.database.write, work)
        assert self.begun.wait(5)
        return found

    def behind(self, *works: Callable[[Connection], object]) -> "list[Future[object]]":
        """Writers in line behind it, in this order."""
        found = []
        for work in works:
            found.append(self.pool.submit(self.database.write, work))
            time.sleep(0.05)
        return found

    def committed(self) -> set[str]:
        """What another program sees."""
        with closing(sqlite3.connect(self.path)) as other:
            return {note for (note,) in other.execute("SELECT note FROM notes")}


def write(connection: Connection, note: str) -> None:
    connection.execute(text("INSERT INTO notes VALUES (:note)"), {"note": note})


def writes(note: str) -> Callable[[Connection], None]:
    return lambda connection: write(connection, note)


@pytest.fixture
def notes(sqlite_url: str) -> _Notes:
    return _Notes(sqlite_url)


def test_nobody_is_answered_before_the_commit_that_they_share(notes: _Notes) -> None:
    held = threading.Event()

    def last(connection: Connection) -> None:
        write(connection, "last")
        assert held.wait(5)

    first = notes.first("first")
    second, third = notes.behind(writes("second"), last)
    notes.go.set()
    time.sleep(0.2)  # the second one has had its turn, too
    assert not first.done()
    assert not second.done()
    assert notes.committed() == set()
    held.set()
    for answer in (first, second, third):
        answer.result(5)
    assert notes.committed() == {"first", "second", "last"}


def test_a_part_that_fails_takes_back_only_itself(notes: _Notes) -> None:
    def refused(connection: Connection) -> None:
        write(connection, "refused")
        raise Refusal("invalid_request", "no", rule="test")

    tries = []

    def conflicting(connection: Connection) -> None:
        write(connection, f"try {len(tries)}")
        tries.append(1)
        if len(tries) == 1:
            raise Conflict

    first = notes.first("first")
    bad, again, same, good = notes.behind(refused, conflicting, writes("first"), writes("good"))
    notes.go.set()
    first.result(5)
    again.result(5)
    good.result(5)
    with pytest.raises(Refusal, match="no"):
        bad.result(5)
    with pytest.raises(Refusal) as error:  # the row was there already
        same.result(5)
    assert error.value.status == 503
    assert notes.committed() == {"first", "try 1", "good"}


def test_what_sqlite_takes_back_whole_is_begun_anew_by_all(notes: _Notes) -> None:
    tries = []

    def breaks_it(connection: Connection) -> None:
        tries.append(1)
        write(connection, f"broken {len(tries)}")
        if len(tries) == 1:
            connection.execute(text("ROLLBACK"))  # as SQLite itself does when the disk is full
            raise Conflict

    first = notes.first("first")
    second, broken, behind = notes.behind(writes("second"), breaks_it, writes("behind"))
    notes.go.set()
    for answer in (first, second, broken, behind):
        answer.result(5)
    assert notes.committed() == {"first", "second", "broken 2", "behind"}


def test_two_processes_worth_of_writers_lose_nothing(notes: _Notes) -> None:
    other = Database(str(notes.database.url))
    with ThreadPoolExecutor(16) as pool:
        done = [
            pool.submit((notes.database, other)[number % 2].write, writes(str(number)))
            for number in range(400)
        ]
        for answer in done:
            answer.result(20)
    assert notes.committed() == {str(number) for number in range(400)}
