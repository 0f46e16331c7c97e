"""`ledger`: what is reserved and spent."""

import dataclasses

import click

from authserver.commands.context import Failed, json_option, opened, print_records
from authserver.ledger import check as ledger_check

_COLUMNS = ("delegation_id", "total", "recorded", "computed")


@click.group("ledger")
def verb() -> None:
    """The ledger of what delegations have reserved and spent."""


@verb.command("check")
@json_option
def check(as_json: bool) -> None:
    """Compute every total again from the transfers, and show where a running total differs; then it exits with 1."""
    with opened() as services:
        found = services.database.read(
            lambda connection: list(ledger_check.check(connection, services.stored))
        )
    if found or as_json:
        print_records(map(dataclasses.asdict, found), _COLUMNS, as_json)
    if found:
        raise Failed(f"the ledger is wrong in {len(found)} totals")
    if not as_json:
        click.echo("the ledger is right: every total is the sum of its transfers")
