"""`resource-servers`: who validates and redeems action tokens."""

from datetime import timedelta
from pathlib import Path

import click
from sqlalchemy import Connection

from authserver import register, strict_json
from authserver.actors import AlreadyRegistered, resource_servers
from authserver.actors.resource_servers import ResourceServer
from authserver.commands.context import (
    Failed,
    instant,
    json_always,
    json_option,
    opened,
    operator,
    print_json,
    print_records,
    read_json,
)
from authserver.members import without_none
from authserver.policy.periods import parse_span
from authserver.register import IssuedServer
from authserver.strict_json import JsonRefused

_LONGEST_OVERLAP = timedelta(days=90)
_COLUMNS = ("id", "identifier", "name", "auth", "subject", "merchant", "disabled_at")


@click.group("resource-servers")
def verb() -> None:
    """Resource servers: who validates and redeems action tokens."""


@verb.command("create")
@click.option(
    "--identifier", required=True, metavar="URL", help="Its RFC 8707 URI, which tokens name as audience."
)
@click.option("--name", help="What people call it; its host by default.")
@click.option(
    "--merchant", metavar="JSON", help='The one merchant that it is: {"id", "category", "country", "name"}.'
)
@click.option(
    "--auth",
    type=click.Choice(register.AUTH_METHODS),
    default="client_secret_basic",
    show_default=True,
    help="How it authenticates here.",
)
@click.option(
    "--jwks", type=click.Path(path_type=Path), help="A file with its public keys, for private_key_jwt."
)
@click.option("--subject", help="Its SPIFFE ID, for jwt-spiffe.")
@json_always
def create(
    identifier: str,
    name: str | None,
    merchant: str | None,
    auth: str,
    jwks: Path | None,
    subject: str | None,
) -> None:
    """Register a resource server; prints its id, and its secret this once.

    Without --merchant it is a platform, which names the merchant at redemption.
    """
    unverified = without_none(
        identifier=identifier,
        name=name,
        merchant=None if merchant is None else _read_merchant(merchant),
        auth=auth,
        jwks=None if jwks is None else read_json(jwks),
        subject=subject,
    )
    with opened() as services:
        server = register.parse_resource_server(unverified, services, services.clock.now())
        try:
            issued = services.database.write(
                lambda connection: register.create_resource_server(connection, server, operator())
            )
        except AlreadyRegistered as error:
            raise Failed(f"{identifier}: that identifier or that subject is registered already") from error
    print_json(issued.to_json())


@verb.command("renew-secret")
@click.argument("server")
@click.option(
    "--overlap",
    default="P1D",
    show_default=True,
    help="How long the present secret is still taken; PT0S ends it at once, as after a leak.",
)
@json_always
def renew_secret(server: str, overlap: str) -> None:
    """Give a resource server, named by its id or identifier, a new secret; prints it this once."""
    # A span is more than nothing wherever else one is read.
    span = timedelta(0) if overlap == "PT0S" else parse_span(overlap)
    if span > _LONGEST_OVERLAP:
        raise Failed(f"--overlap takes at most {_LONGEST_OVERLAP.days} days")

    def write(connection: Connection) -> IssuedServer:
        found = resource_servers.find(connection, server) or resource_servers.find_by_identifier(
            connection, server
        )
        if found is None:
            raise Failed(f"there is no resource server {server}")
        try:
            return register.renew_secret(connection, found, span, operator(), services.clock.now())
        except register.NoSecret as error:
            raise Failed(f"{server} does not authenticate by a secret, but by {found.auth_method}") from error

    with opened() as services:
        issued = services.database.write(write)
    print_json(issued.to_json())


@verb.command("list")
@json_option
def list_resource_servers(as_json: bool) -> None:
    """Show all resource servers; never a secret."""
    with opened() as services:
        found = services.database.read(resource_servers.list_all)
    print_records(map(_shown, found), _COLUMNS, as_json)


def _read_merchant(unverified_text: str) -> object:
    try:
        return strict_json.parse(unverified_text)
    except JsonRefused as error:
        raise Failed(f"merchant {error}") from error


def _shown(server: ResourceServer) -> dict[str, object]:
    return {
        "id": server.id,
        **register.members_of_resource_server(server),
        **without_none(created_at=instant(server.created_at), disabled_at=instant(server.disabled_at)),
    }
