"""A PgBouncer of the tests' own in front of their PostgreSQL, configured as docs/postgresql.md says."""

import configparser
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg

from tests.postgresql import Cluster, NotInstalledError, owner_of_servers

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "postgresql.md"
PORT = 6432


def block(language: str, holding: str) -> str:
    """The code block of that language in docs/postgresql.md that holds such a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [text for text in blocks if holding in text]
    return str(found)


@contextmanager
def running_pgbouncer(cluster: Cluster, database: str, role: str) -> Iterator[str]:
    """Start it for one database, to which it connects as `role`; gives the address behind it.

    Raises `NotInstalledError`.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise NotInstalledError("PgBouncer is not installed")
    owner = owner_of_servers()
    folder = Path(tempfile.mkdtemp(prefix="authserver-pgbouncer-"))
    try:
        _configure(folder, cluster, database, role)
        if owner:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, owner)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, str(folder / "pgbouncer.ini")],
                user=owner,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                _wait_until_ready(folder, database, process)
                yield f"postgresql+psycopg://anyone@/{database}?host={quote(str(folder), safe='')}&port={PORT}"
            finally:
                process.terminate()
                process.wait(10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path, cluster: Cluster, database: str, role: str) -> None:
    """The documented configuration, but on sockets, without passwords, and with a pool that must be shared."""
    ini = configparser.ConfigParser()
    ini.read_string(block("ini", "[pgbouncer]"))
    ini["databases"] = {database: f"host={cluster.folder} dbname={database} user={role}"}
    ini.remove_option("pgbouncer", "listen_addr")
    ini["pgbouncer"].update(
        {
            "listen_port": str(PORT),
            "unix_socket_dir": str(folder),
            "auth_type": "any",
            "auth_file": str(folder / "users"),
            "default_pool_size": "3",
        }
    )
    (folder / "users").write_text("")
    with (folder / "pgbouncer.ini").open("w") as file:
        ini.write(file)


def _wait_until_ready(folder: Path, database: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(host=str(folder), port=PORT, user="anyone", dbname=database).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text()) from None
            time.sleep(0.02)
        else:
            return
