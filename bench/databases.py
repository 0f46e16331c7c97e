"""The databases under the server: a file of SQLite, or a private PostgreSQL that lives as long as its block."""

import contextlib
import os
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.processes import CLIENT_CORE, end, free_port


@dataclass(frozen=True, slots=True)
class Store:
    """Where a server keeps its records: `url` as SQLAlchemy writes it."""

    name: str
    url: str

    def size(self) -> int:
        """Bytes that the records take, indices included. On SQLite no server may be running."""
        if self.url.startswith("sqlite"):
            path = Path(self.url.removeprefix("sqlite:///"))
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return path.stat().st_size
        with psycopg.connect(self.url.replace("+psycopg", "")) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        return int(row[0]) if row else 0


def sqlite(folder: Path) -> Store:
    """A new file of SQLite in a folder."""
    return Store("SQLite", f"sqlite:///{folder / 'authserver.db'}")


def why_no_postgresql() -> str | None:
    """Why no PostgreSQL can be started here, or None."""
    if _programs() is None:
        return "no PostgreSQL server is installed (looked in /usr/lib/postgresql/*/bin and PATH)"
    if os.geteuid() == 0 and not (_account() and shutil.which("runuser")):
        return "PostgreSQL does not run as root, and there is no account postgres with runuser"
    return None


@contextlib.contextmanager
def postgresql(seconds: int = 900) -> Iterator[Store]:
    """A private cluster with its default durability, on the other core; it never lives longer than `seconds`."""
    programs = _programs()
    if programs is None:
        raise FileNotFoundError("PostgreSQL")
    folder = Path(tempfile.mkdtemp(prefix="bench-postgresql-", dir="/var/tmp"))
    port = free_port()
    log = (folder / "log").open("wb")
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        initdb = [
            str(programs / "initdb"),
            "-A",
            "trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            str(folder / "data"),
        ]
        subprocess.run(_as_owner(initdb), check=True, stdout=log, stderr=log, cwd="/")
        postgres = [
            str(programs / "postgres"),
            "-D",
            str(folder / "data"),
            "-p",
            str(port),
            "-k",
            str(folder),
        ]
        pinned = ["timeout", "-s", "INT", "-k", "5", str(seconds), "taskset", "-c", str(CLIENT_CORE)]
        process = subprocess.Popen([*pinned, *_as_owner(postgres)], stdout=log, stderr=log, cwd="/")
        try:
            url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
            _wait(url, process)
            yield Store("PostgreSQL", url)
        finally:
            end(process)
    finally:
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    if found:
        return found[-1].parent
    return Path(on_path).parent if on_path else None


def _account() -> bool:
    try:
        return bool(pwd.getpwnam("postgres"))
    except KeyError:
        return False


def _as_owner(command: list[str]) -> list[str]:
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url.replace("+psycopg", ""), connect_timeout=2).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.05)
        else:
            return
