"""Whether the audit of a running server is as it was written, held to itself and to its witness."""

from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Connection

from authserver import jose
from authserver.audit import deliveries
from authserver.audit.heads import Head, read_file
from authserver.audit.verification import Verified, verify
from authserver.db import see_one_instant
from authserver.services import Services
from authserver.tokens.signing_keys import all_public


def verify_here(services: Services, kept: Iterable[str] | None = None) -> Verified:
    """Look at all of it. What the witness's file says that cannot be, or that it cannot be read, is a problem too.

    `kept` are the lines of a file of heads that is to be held to instead of the witness's. Raises `Refusal` (503).
    """
    known = services.database.read(all_public)
    heads, problems = read_file(kept, known) if kept is not None else _witnessed(services, known)

    def look(connection: Connection) -> Verified:
        see_one_instant(connection)
        return verify(connection, known, services.issuer, heads)

    found = services.database.read(look)
    found.problems += problems
    return found


def _witnessed(services: Services, known: tuple[jose.VerificationKey, ...]) -> tuple[list[Head], list[str]]:
    path: Path | None = services.settings.audit.witness_file
    if path is None:
        return [], []
    # Before the file is read: it gets more meanwhile.
    had = services.database.read(lambda connection: deliveries.position(connection, deliveries.WITNESS_FILE))
    try:
        with path.open(encoding="utf-8") as lines:
            heads, problems = read_file(lines, known)
    except FileNotFoundError:
        return [], ["the witness's file, which had heads, is not there"] if had else []
    except (OSError, UnicodeDecodeError):
        return [], ["the witness's file cannot be read"]
    if max((head.tree_size for head in heads), default=0) < had:
        problems.append(f"the witness's file was cut off: it had the head after {had} events")
    return heads, problems
