"""`prune`: what time undoes, done now."""

import dataclasses

import click

from authserver import upkeep
from authserver.commands.context import json_always, opened, print_json


@click.command("prune")
@json_always
def verb() -> None:
    """Release expired reservations and forget what has ended: idempotency keys, seen tokens, sign-ins. Prints how many.

    Running servers do the same every few seconds, in the same small transactions.
    """
    with opened() as services:
        tidied = upkeep.tidy(services, services.clock.now())
    print_json(dataclasses.asdict(tidied))
