"""`workload`: a trust domain in files, for development and tests."""

from datetime import timedelta
from pathlib import Path

import click

from authserver.actors.workload_files import DomainExists, create_domain, make_assertion
from authserver.clock import SystemClock
from authserver.commands.context import Failed, json_option, print_json
from authserver.config import load_settings

_KINDS = ("spiffe", "kubernetes", "oidc")


@click.group("workload")
def verb() -> None:
    """A trust domain in files, for development and tests: its keys, and assertions signed with them."""


@verb.command("create-domain")
@click.argument("name")
@click.option("--kind", type=click.Choice(_KINDS), required=True, help="Whose assertions it makes.")
@click.option(
    "--directory", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where to."
)
@json_option
def create(name: str, kind: str, directory: Path, as_json: bool) -> None:
    """Make the trust domain NAME in a directory; prints its [[trust_domains]] block, ready for the configuration."""
    try:
        domain = create_domain(name, kind, directory)
    except DomainExists as error:
        raise Failed(str(error)) from error
    except ValueError as error:
        raise Failed(str(error)) from error
    except OSError as error:
        raise Failed(f"{directory}: {error.strerror}") from error
    if as_json:
        print_json({"name": name, "kind": kind, "configuration_file": str(domain)})
    else:
        click.echo(domain.read_text(encoding="utf-8"), nl=False)


@verb.command("assertion")
@click.option(
    "--directory", type=click.Path(path_type=Path), required=True, help="Where create-domain made it."
)
@click.option("--subject", required=True, help="The workload: a SPIFFE ID, or what `sub` says.")
@click.option("--audience", help="Who it is for; the configured issuer by default.")
@click.option(
    "--lifetime", type=click.IntRange(1, 31_536_000), default=300, show_default=True, help="In seconds."
)
def assertion(directory: Path, subject: str, audience: str | None, lifetime: int) -> None:
    """Print a workload assertion, signed now with the domain's key."""
    audience = audience or load_settings().server.issuer
    try:
        text = make_assertion(directory, subject, audience, timedelta(seconds=lifetime), SystemClock().now())
    except FileNotFoundError as error:
        raise Failed(
            f"{directory}: there is no trust domain here; workload create-domain makes one"
        ) from error
    click.echo(text)
