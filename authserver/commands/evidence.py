"""`evidence`: what the running system shows an auditor, control by control."""

import json
from pathlib import Path

import click
from sqlalchemy import Connection

from authserver.commands.context import Failed, json_always, opened, print_json
from authserver.db import see_one_instant
from authserver.evidence import report
from authserver.evidence.facts import Facts
from authserver.services import load_policies


@click.command("evidence")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("evidence"),
    show_default=True,
    help="The folder for evidence.html and evidence.json.",
)
@json_always
def verb(output: Path) -> None:
    """Write one HTML and one JSON report: each control of four frameworks, and what this system shows of it.

    The frameworks: the OWASP Top 10 for agentic applications and that for non-human identities, CSA MAESTRO, NIST AI
    RMF. Prints how many controls are met.
    """
    with opened() as services:
        load_policies(services)

        def write_out(connection: Connection) -> dict[str, int]:
            see_one_instant(connection)
            facts = Facts(services, connection, services.clock.now())
            assessed = report.assess(facts)
            _write(output / "evidence.html", report.to_html(facts, assessed))
            _write(output / "evidence.json", json.dumps(report.to_json(facts, assessed), indent=2) + "\n")
            states = [one.state for one in assessed]
            return {
                state: states.count(state) for state in ("met", "partly met", "not met", "does not apply")
            }

        print_json(services.database.read(write_out))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from error
