"""`audit`: every decision and every change, as it was written."""

import json

import click
from sqlalchemy import Connection

from authserver.audit.events import all_events
from authserver.commands.context import json_always, opened


@click.group("audit")
def verb() -> None:
    """The audit of every decision, permitted or refused, and of every change by an operator."""


@verb.command("export")
@json_always
def export() -> None:
    """Print all events as JSON Lines, oldest first."""

    def write_out(connection: Connection) -> None:
        for event in all_events(connection):
            click.echo(json.dumps(event.to_json(), separators=(",", ":")))

    with opened() as services:
        services.database.read(write_out)
