"""The file of a witness, which is elsewhere: one signed head a line, the newest last."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import Connection

from authserver import jose
from authserver.audit import batches
from authserver.audit.heads import Head, HeadRefused, read_of_any_key
from authserver.audit.tree import Tree

_BLOCK = 16_384


def newest_first(path: Path, keys: Sequence[jose.VerificationKey], issuer: str) -> Iterator[Head]:
    """This server's heads in the file; lines that are none are passed over. Raises `OSError`.

    One that is signed by a key which is not known here counts: it was made since, if the database is old.
    """
    for line in _last_first(path):
        try:
            head = read_of_any_key(line, keys)
        except HeadRefused:
            continue
        if head.issuer == issuer:
            yield head


def agrees(connection: Connection, head: Head) -> Tree | None:
    """The tree as it was at that head; None where the database has not so much, or something else."""
    then = batches.at_size(connection, head.tree_size)
    return then if then is not None and then.root() == head.root else None


def _last_first(path: Path) -> Iterator[str]:
    """The lines of a file from its end, of which little is read where little is asked for."""
    with path.open("rb") as file:
        place, rest = file.seek(0, os.SEEK_END), b""
        while place:
            start = max(0, place - _BLOCK)
            file.seek(start)
            first, *lines = (file.read(place - start) + rest).split(b"\n")
            yield from (line.decode("ascii", "replace") for line in reversed(lines))
            place, rest = start, first
        yield rest.decode("ascii", "replace")
