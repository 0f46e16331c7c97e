"""`audit`: every decision and every change, as it was written, and whether it still is."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
from sqlalchemy import Connection

from authserver import jose, restore, seal
from authserver.audit import export as exporting
from authserver.audit import proofs
from authserver.audit.export import Format, Period
from authserver.audit.offline import verify_export
from authserver.audit.tree import ProofRefused
from authserver.commands.context import Failed, json_always, opened, operator, print_json, read_json
from authserver.db import see_one_instant
from authserver.jose import KeysRefused, usable_keys
from authserver.tokens.signing_keys import list_keys
from authserver.verify_audit import verify_here
from authserver.witnessed import Missing, look

_FILE = click.Path(path_type=Path, dir_okay=False)
_TIMES = click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"])
_SIGNATURES = frozenset({"sig", None})


@click.group("audit")
def verb() -> None:
    """The audit of every decision, permitted or refused, and of every change by an operator."""


@verb.command("export")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "ocsf"]),
    default="json",
    show_default=True,
    help="Lines as they are here, or as the Open Cybersecurity Schema Framework has them.",
)
@click.option("--since", type=_TIMES, help="Only what happened from then on, in UTC.")
@click.option("--until", type=_TIMES, help="Only what happened before then, in UTC.")
@click.option(
    "--after", type=click.IntRange(min=0), default=0, help="Only what follows the event of that id."
)
@json_always
def export(format_: Format, since: datetime | None, until: datetime | None, after: int) -> None:
    """Print all events as JSON Lines, oldest first, each with the leaf of the audit's tree that it is."""
    period = Period(_in_utc(since), _in_utc(until), after)

    def write_out(connection: Connection) -> None:
        see_one_instant(connection)
        for event in exporting.exported(connection, period):
            click.echo(exporting.line(event, format_))

    with opened() as services:
        services.database.read(write_out)


@verb.command("heads")
@json_always
def heads() -> None:
    """Print every signed head of the audit's tree, one a line, as a witness keeps them."""

    def write_out(connection: Connection) -> None:
        for head in exporting.heads(connection):
            click.echo(head)

    with opened() as services:
        services.database.read(write_out)


@verb.command("keys")
@json_always
def keys() -> None:
    """Print the public keys of all times as a JSON Web Key Set: what heads are verified with, elsewhere."""
    with opened() as services:
        print_json({"keys": [key.public_jwk for key in services.database.read(list_keys)]})


@verb.command("prove")
@click.option("--event", type=click.IntRange(min=1), help="Prove that the event of that id is in the tree.")
@click.option(
    "--since", type=click.IntRange(min=1), help="Prove that the tree after so many events only grew."
)
@json_always
def prove(event: int | None, since: int | None) -> None:
    """Print a proof that `audit verify --proof` checks elsewhere, with nothing but the server's keys."""
    if (event is None) == (since is None):
        raise click.UsageError("takes one of --event and --since")

    def find(connection: Connection) -> dict[str, object]:
        see_one_instant(connection)
        return proofs.of_event(connection, event) if event else proofs.of_growth(connection, since or 0)

    with opened() as services:
        try:
            print_json(services.database.read(find))
        except LookupError as error:
            raise Failed(str(error)) from error


@verb.command("verify")
@click.option(
    "--heads", "heads_file", type=_FILE, help="Heads that were kept elsewhere; else the witness_file."
)
@click.option(
    "--export", "export_file", type=_FILE, help="Hold this export to the heads, without the database."
)
@click.option("--proof", "proof_file", type=_FILE, help="Check a proof that `audit prove` printed, likewise.")
@click.option("--jwks", "jwks_file", type=_FILE, help="The keys for that: what `audit keys` printed.")
@click.option("--issuer", help="The server whose audit it is.")
@json_always
def check(
    heads_file: Path | None,
    export_file: Path | None,
    proof_file: Path | None,
    jwks_file: Path | None,
    issuer: str | None,
) -> None:
    """Say whether any event, batch or head was changed, removed, inserted or moved, or the newest were cut off.

    With --export, --heads, --jwks and --issuer, or --proof, --jwks and --issuer, it needs neither configuration nor
    database. Exit code 1 where something is not as it was.
    """
    if proof_file is not None:
        if jwks_file is None or issuer is None:
            raise click.UsageError("--proof takes --jwks and --issuer with it")
        _check_proof(proof_file, _keys(jwks_file), issuer)
        return
    if export_file is not None:
        if heads_file is None or jwks_file is None or issuer is None:
            raise click.UsageError("--export takes --heads, --jwks and --issuer with it")
        found = verify_export(_events(export_file), _lines(heads_file), _keys(jwks_file), issuer)
    else:
        with opened() as services:
            found = verify_here(services, _lines(heads_file) if heads_file is not None else None)
    print_json(found.to_json())
    if found.problems:
        raise click.exceptions.Exit(1)


@verb.command("seal")
@json_always
def seal_now() -> None:
    """Seal now what running servers seal within seconds. Prints how many events it was."""
    with opened() as services:
        missing = look(services)
        if missing is not None:
            raise Failed(
                f"the database lacks events that the witness has seen ({_lacks(missing)}): audit restore"
            )
        print_json({"sealed": seal.seal(services, services.clock.now())})


@verb.command("restore")
@click.option("--from", "copy", type=_FILE, help="A copy of the events: an export, or the file of a stream.")
@click.option("--accept-loss", is_flag=True, help="Go on without one: what was revoked since stays allowed.")
@json_always
def go_on(copy: Path | None, accept_loss: bool) -> None:
    """After a back-up was restored: end again what was ended since, and let the server mint again.

    Prints what was done again, and what else happened that the database will not know of: look at its redemptions.
    """
    if (copy is None) != accept_loss:
        raise click.UsageError("takes one of --from FILE and --accept-loss")
    with opened() as services:
        events = None if copy is None else _events(copy)
        try:
            done = restore.restore(services, events, by=operator(), now=services.clock.now())
        except (restore.CopyRefused, LookupError) as error:
            raise Failed(str(error)) from error
        except OSError as error:
            raise Failed(f"the witness's file: {error.strerror}") from error
    print_json(
        {
            "sealed": done.sealed,
            "witnessed": done.witnessed,
            "done_again": dict(done.done_again),
            "lost": dict(done.lost),
        }
    )


def _check_proof(path: Path, keys: tuple[jose.VerificationKey, ...], issuer: str) -> None:
    unverified = read_json(path)
    try:
        shows = proofs.check(unverified if isinstance(unverified, dict) else {}, keys, issuer)
    except ProofRefused as error:
        print_json({"ok": False, "problems": [f"the proof shows nothing: {error}"]})
        raise click.exceptions.Exit(1) from error
    print_json({"ok": True, "shows": shows})


def _lacks(missing: Missing) -> str:
    return f"{missing.sealed} of {missing.head.tree_size}"


def _events(path: Path) -> Iterator[dict[str, object]]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            event = json.loads(line)
        except ValueError as error:
            raise Failed(f"{path}: line {number} is no event") from error
        if not isinstance(event, dict):
            raise Failed(f"{path}: line {number} is no event")
        yield event


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise Failed(f"{path}: {reason}") from error


def _keys(path: Path) -> tuple[jose.VerificationKey, ...]:
    try:
        return usable_keys(read_json(path), uses=_SIGNATURES)
    except KeysRefused as error:
        raise Failed(f"{path}: {error}") from error


def _in_utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.replace(tzinfo=UTC)
