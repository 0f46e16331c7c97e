"""Whether the database has all that the witness's file has seen of it: one that was restored from a back-up has not."""

from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Connection

from authserver.audit import batches, witness
from authserver.audit.heads import Head
from authserver.audit.tree import Tree
from authserver.db import Database
from authserver.services import Services
from authserver.tokens import signing_keys

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Missing:
    """How many events the database has sealed, and the newest head that the witness has."""

    sealed: int
    head: Head


def look(services: Services) -> Missing | None:
    """Compare the database with the witness's file, and let nothing be minted while it lacks something.

    A file that cannot be read changes nothing of what was believed before. Raises `Refusal` (503).
    """
    path = services.settings.audit.witness_file
    if path is None:
        return None
    try:
        missing = compare(services.database, services.issuer, path)
    except OSError as error:
        log.warning("audit.witness_unreadable", reason=error.strerror)
        return None
    said = None if missing is None else f"{missing.sealed} of {missing.head.tree_size} events"
    if missing is not None and services.history.missing is None:
        log.error("audit.history_missing", sealed=missing.sealed, witnessed=missing.head.tree_size)
    services.history.missing = said
    return missing


def compare(database: Database, issuer: str, path: Path) -> Missing | None:
    """What the database lacks of what the file has; None where it lacks nothing, or there is no file yet.

    Raises `OSError`, and `Refusal` (503).
    """
    keys = database.read(signing_keys.all_public)
    try:
        # The file first: whatever it says was committed before.
        newest = next(witness.newest_first(path, keys, issuer), None)
    except FileNotFoundError:
        return None
    if newest is None:
        return None

    def held_to(connection: Connection) -> Missing | None:
        if witness.agrees(connection, newest) is not None:
            return None
        # Less than that; or as many or more, but others, where somebody went on from a back-up.
        here = batches.latest(connection)
        return Missing(here.tree.size if here else 0, newest)

    return database.read(held_to)


def last_agreed(database: Database, issuer: str, path: Path) -> Tree:
    """The largest tree that the database and the file have in common. Raises `OSError`, and `Refusal` (503)."""

    def find(connection: Connection) -> Tree:
        keys, here = signing_keys.all_public(connection), batches.latest(connection)
        size = here.tree.size if here else 0
        for head in witness.newest_first(path, keys, issuer):
            agreed = witness.agrees(connection, head) if head.tree_size <= size else None
            if agreed is not None:
                return agreed
        return Tree()

    return database.read(find)
