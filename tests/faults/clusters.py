"""PostgreSQL servers that keep what they commit, to be killed, started again, and taken over by a standby."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg

from tests.postgresql import Cluster, owner_of_servers, server_programs, wait_until_ready

# As PostgreSQL is by itself, except that it is small.
OPTIONS = (
    "fsync=on",
    "full_page_writes=on",
    "shared_buffers=16MB",
    "max_connections=60",
    "listen_addresses=",
)


class Node(Cluster):
    """One PostgreSQL server with its data in `folder`; `options` are settings beyond the usual ones."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.owner, self.programs = owner_of_servers(), server_programs()
        self.options = (*OPTIONS, *options)
        self.process: subprocess.Popen[bytes] | None = None

    def make(self, *initdb: str) -> None:
        """Make its data anew."""
        self.run(
            "initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", *initdb, "data"
        )

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs beside the data."""
        command = [str(self.programs / program), *arguments]
        subprocess.run(
            command, user=self.owner, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, timeout=60
        )

    def start(self) -> None:
        """Start it, and return when it answers; what a crash left is recovered first."""
        command = [str(self.programs / "postgres"), "-D", "data", "-k", str(self.folder)]
        command += [f"-c{option}" for option in self.options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                user=self.owner,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        wait_until_ready(self.folder, self.process)

    def processes(self) -> list[int]:
        """The postmaster and all that it started, by their numbers."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def kill(self) -> None:
        """SIGKILL for all its processes, the postmaster first, so that it cannot start others."""
        if self.process is None or self.process.poll() is not None:
            return
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def ask(self, query: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """The rows of a query."""
        with psycopg.connect(
            host=str(self.folder), user="postgres", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []


@contextmanager
def folder_of_a_node() -> Iterator[Path]:
    """A folder that belongs to whoever runs PostgreSQL, and goes away."""
    folder = Path(tempfile.mkdtemp(prefix="authserver-node-"))
    try:
        if owner := owner_of_servers():
            shutil.chown(folder, owner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def durable_node() -> Iterator[Node]:
    """A running server that keeps what it commits. Raises `NotInstalledError`."""
    with folder_of_a_node() as folder:
        node = Node(folder)
        node.make()
        node.start()
        try:
            yield node
        finally:
            node.kill()


@contextmanager
def primary_and_standby() -> Iterator[tuple[Node, Node]]:
    """Two running servers: what the first commits is on the second before it is acknowledged."""
    with ExitStack() as closing:
        first, second = (closing.enter_context(folder_of_a_node()) for _ in range(2))
        primary = Node(first, "synchronous_standby_names=*")
        primary.make()
        closing.callback(primary.kill)
        primary.start()
        standby = Node(second)
        backup = ("--host", str(first), "--username=postgres", "--write-recovery-conf", "--checkpoint=fast")
        standby.run("pg_basebackup", *backup, "--pgdata=data")
        closing.callback(standby.kill)
        standby.start()
        _until_synchronous(primary)
        yield primary, standby


def _until_synchronous(primary: Node) -> None:
    deadline = time.monotonic() + 30
    while primary.ask("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
