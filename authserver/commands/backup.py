"""`backup`: a copy of the embedded database, whole and of one instant, while servers go on."""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import click

from authserver.commands.context import Failed, json_always, print_json
from authserver.config import load_settings
from authserver.services import open_database


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@json_always
def verb(file: Path) -> None:
    """Copy the embedded database into FILE, which must not be there yet, while servers run; prints its size.

    What was answered before it began is in it. The encryption key is not: keep a copy of that apart (docs/backup.md).
    PostgreSQL is copied by its own tools.
    """
    database = open_database(load_settings())
    path = database.url.database
    if not database.is_sqlite or path is None:
        raise Failed(
            "this copies the embedded database; PostgreSQL's own pg_dump and pg_basebackup copy PostgreSQL"
        )
    try:
        size = _copy(Path(path), file)
    except FileExistsError as error:
        raise Failed(f"{file}: is there already, and is left as it is") from error
    except (OSError, sqlite3.Error) as error:
        raise Failed(f"{file}: cannot be made: {error}") from error
    print_json({"file": str(file), "bytes": size})


def _copy(path: Path, file: Path) -> int:
    """The file appears under its name whole, checked and on the disk, or not at all; for its owner alone."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f"{file.name}.") as made:
        # In one step: a reader in WAL holds up no writer, and one that went on step by step would begin anew with each.
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as source,
            closing(sqlite3.connect(made.name)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file and nothing beside it
            problems = [row[0] for row in target.execute("PRAGMA integrity_check")]
        if problems != ["ok"]:
            raise Failed(f"the database is damaged, and was not copied: {problems[0]}")
        made.flush()
        os.fsync(made.fileno())
        os.link(made.name, file)  # unlike a rename, it never replaces
        _sync_folder(file.parent)
        return file.stat().st_size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
