"""`api-tokens`: what programs call the administrators' API with."""

from datetime import datetime

import click

from authserver import api_tokens, register
from authserver.accounts import api_tokens as records
from authserver.api_tokens import NoSuchToken
from authserver.commands.context import (
    TAKES_ANY_ID,
    Failed,
    json_always,
    json_option,
    opened,
    operator,
    print_json,
    print_records,
)
from authserver.policy.periods import parse_span
from authserver.values import NotAValue, parse_name

_COLUMNS = ("id", "name", "role", "created_at", "expires_at", "used_at", "revoked_at")


@click.group("api-tokens")
def verb() -> None:
    """API tokens: programs call /api/v1 with them, as far as the token's role goes."""


@verb.command("create")
@click.option("--role", required=True, type=click.Choice(register.ROLES), help="What it may do.")
@click.option("--name", required=True, help="What it is for; the audit names its id.")
@click.option(
    "--expires", metavar="SPAN", help="How long it is good, such as P30D; else until it is revoked."
)
@json_always
def create(role: str, name: str, expires: str | None) -> None:
    """Make a token; prints its id, and the token itself this once."""
    named = parse_name(name)
    with opened() as services:
        now = services.clock.now()
        expires_at = None if expires is None else _after(now, expires)
        made, text = api_tokens.create(
            services, name=named, role=role, expires_at=expires_at, by=operator(), now=now
        )
    print_json({"id": made.id, "token": text})


@verb.command("list")
@json_option
def list_tokens(as_json: bool) -> None:
    """Show all API tokens, those that have ended too; never a token itself."""
    with opened() as services:
        found = services.database.read(records.list_all)
    print_records(map(api_tokens.members_of, found), _COLUMNS, as_json)


@verb.command("revoke", context_settings=TAKES_ANY_ID)
@click.argument("id")
@json_always
def revoke(id: str) -> None:
    """End the token ID: nothing can be done with it any more."""
    with opened() as services:
        try:
            ended = api_tokens.revoke(services, id, by=operator(), now=services.clock.now())
        except NoSuchToken as error:
            raise Failed(f"{id}: there is no such API token") from error
    print_json(api_tokens.members_of(ended))


def _after(now: datetime, unverified_span: str) -> datetime:
    try:
        return now + parse_span(unverified_span)
    except (NotAValue, OverflowError) as error:
        raise Failed(f"--expires takes a span such as P30D or PT12H: {error}") from error
