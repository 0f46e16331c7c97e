"""`migrate`: the schema, brought up to date."""

from pathlib import Path

import click

from authserver import migration
from authserver.config import load_settings
from authserver.db import Database
from authserver.services import open_database


@click.command("migrate")
def verb() -> None:
    """Bring the database's schema up to date, all in one transaction."""
    database = open_database(load_settings())
    try:
        _make_folder(database)
        applied = migration.upgrade(database)
    finally:
        database.dispose()
    for revision in applied:
        click.echo(f"applied {revision}")
    click.echo("the schema is up to date")


def _make_folder(database: Database) -> None:
    # SQLite makes its file but not the folder that it is in.
    if database.is_sqlite and database.url.database:
        Path(database.url.database).parent.mkdir(parents=True, exist_ok=True)
