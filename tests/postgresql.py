"""A private PostgreSQL for one run of the tests, in a folder that goes away with it."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg

# Nothing here outlives the run, so nothing waits for the disk.
OPTIONS = ("fsync=off", "full_page_writes=off", "max_connections=200", "listen_addresses=")


class NotInstalledError(Exception):
    """There is no PostgreSQL server on this machine that the tests could start."""


class Cluster:
    """A running server that listens on a socket in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count(1)

    def url(self, name: str) -> str:
        """The address of a database, as SQLAlchemy writes it."""
        return f"postgresql+psycopg://postgres@/{name}?host={quote(str(self.folder), safe='')}"

    def create(self, template: str = "template0") -> str:
        """Make a database that is a copy of `template`, and say its name."""
        name = f"test_{next(self._numbers)}"
        with self._administration() as connection:
            # Copying the files of a small template takes a fifth of the time of writing them to the log.
            quickly = "STRATEGY file_copy" if connection.info.server_version >= 150000 else ""
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {quickly}'.encode())
        return name

    def drop(self, name: str) -> None:
        """Take a database away, whoever is still connected."""
        with self._administration() as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())

    def _administration(self) -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), user="postgres", autocommit=True)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start a server, and stop it at the end, however that comes. Raises `NotInstalledError`."""
    programs, owner = server_programs(), owner_of_servers()
    folder = Path(tempfile.mkdtemp(prefix="authserver-postgresql-"))
    try:
        if owner:
            shutil.chown(folder, owner)
        initdb = [
            str(programs / "initdb"),
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
        ]
        subprocess.run([*initdb, "data"], user=owner, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with _running(programs, folder, owner):
            yield Cluster(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(programs: Path, folder: Path, owner: str | None) -> Iterator[None]:
    options = [f"-c{option}" for option in OPTIONS]
    command = [str(programs / "postgres"), "-D", "data", "-k", str(folder), *options]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            command, user=owner, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
        ) as process,
    ):
        try:
            wait_until_ready(folder, process)
            yield
        finally:
            process.send_signal(signal.SIGQUIT)  # "immediate shutdown": there is nothing to be saved


def wait_until_ready(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Return once the server answers on its socket in `folder`. Raises `RuntimeError` with its log where it ended."""
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(host=str(folder), user="postgres").close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text()) from None
            time.sleep(0.02)
        else:
            return


def server_programs() -> Path:
    """The folder of `initdb`, `postgres` and the others. Raises `NotInstalledError`."""
    # Debian keeps them out of PATH, by version.
    by_version = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4])
    )
    found = by_version[-1] if by_version else shutil.which("initdb")
    if not found:
        raise NotInstalledError("PostgreSQL is not installed: no initdb in /usr/lib/postgresql/*/bin or PATH")
    return Path(found).resolve().parent


def owner_of_servers() -> str | None:
    """The user who runs them; None is whoever runs the tests. Raises `NotInstalledError`."""
    # PostgreSQL refuses to run as root.
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise NotInstalledError("PostgreSQL cannot run as root, and there is no user postgres") from None
