"""What the doctor looks at while a server runs: is anything behind, old, or not arriving?"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, text

from authserver.audit import batches, deliveries
from authserver.config import Settings
from authserver.db import Database
from authserver.streams import records
from authserver.tokens.signing_keys import list_keys
from authserver.witnessed import compare

# Sealing follows within seconds, and events within a second; what is older than this is behind.
_BEHIND = timedelta(minutes=5)
_CLOCKS_APART = timedelta(seconds=5)
_OLD_KEY = timedelta(days=180)
_READABLE, _PASSABLE = 0o004, 0o001  # by others


@dataclass(frozen=True, slots=True)
class Trouble(Exception):
    """Something that is wrong, in words that say what to do."""

    words: str


def sealing(connection: Connection, now: datetime) -> str:
    """Whether audit events are sealed. Raises `Trouble`."""
    events, seconds = batches.lag(connection, now)
    if seconds > _BEHIND.total_seconds():
        raise Trouble(
            f"{events} audit events are not sealed, the oldest for {_minutes(seconds)}: is a server running?"
            " Its log says why (audit.failed)"
        )
    return f"{events} audit events wait to be sealed"


def receivers(connection: Connection, now: datetime) -> str:
    """Whether resource servers take what they are told. Raises `Trouble`."""
    streams = [stream for stream, _ in records.all_streams(connection)]
    failing = [
        stream for stream in streams if stream.status == "enabled" and stream.failing_since is not None
    ]
    behind = [stream for stream in failing if now - (stream.failing_since or now) > _BEHIND]
    if behind:
        said = "; ".join(
            f"{stream.delivery.endpoint_url}: {stream.trouble}, for {_since(stream.failing_since, now)}"
            for stream in behind
        )
        raise Trouble(f"what ended does not arrive (it is held for 30 days, and tried again): {said}")
    waiting = records.oldest_pending(connection)
    if waiting is not None and now - waiting > _BEHIND:
        raise Trouble(
            f"a resource server has not taken its events for {_since(waiting, now)}: it may have stopped"
        )
    return f"{len(streams)} event streams"


def witnesses(connection: Connection, settings: Settings) -> str:
    """Whether tree heads and audit events arrive elsewhere. Raises `Trouble`."""
    failing = deliveries.failing(connection)
    if failing:
        said = ", ".join(f"{name} ({attempts} attempts)" for name, attempts in sorted(failing.items()))
        raise Trouble(f"audit does not arrive at {said}")
    audit = settings.audit
    if audit.witness_file is None and audit.witness_url is None:
        return (
            "none: cutting off the newest audit rows would not show (audit.witness_file, audit.witness_url)"
        )
    return "told"


def history(database: Database, settings: Settings) -> str:
    """Whether the database has all that the witness's file has seen. Raises `Trouble`."""
    path = settings.audit.witness_file
    try:
        missing = None if path is None else compare(database, settings.server.issuer, path)
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror}") from error
    if missing is not None:
        raise Trouble(
            f"the database has {missing.sealed} events, and not those that the witness saw, {missing.head.tree_size}:"
            " it was restored from a back-up, and mints nothing until  python manage.py audit restore"
        )
    return "whole, as far as a witness knows" if path else "no witness's file would know (audit.witness_file)"


def clock(connection: Connection, now: datetime) -> str:
    """Whether this machine's clock and the database's agree. Raises `Trouble`."""
    if connection.dialect.name != "postgresql":
        return "there is one"
    theirs = connection.scalar(text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)"))
    apart = now.timestamp() - float(theirs or 0)
    if abs(apart) > _CLOCKS_APART.total_seconds():
        raise Trouble(f"this machine is {apart:+.0f} s off the database's clock: is time kept (chrony, NTP)?")
    return f"{abs(apart):.1f} s from the database's"


def key_age(connection: Connection, now: datetime) -> str:
    """Whether the key that signs was replaced lately. Raises `Trouble`."""
    signing = [key.activates_at for key in list_keys(connection) if key.state(now) == "active"]
    if not signing:
        return "no key signs yet"
    age = now - max(signing)
    if age > _OLD_KEY:
        raise Trouble(f"the signing key is {age.days} days old: run  python manage.py keys rotate")
    return f"{age.days} days"


def file_modes(settings: Settings) -> str:
    """Whether anybody else can read the database or the keys. Raises `Trouble`."""
    loose = [
        f"{path} ({oct(path.stat().st_mode & 0o777)[2:]})"
        for path in _private_files(settings)
        if _readable_by_others(path)
    ]
    if loose:
        raise Trouble(f"others on this machine can read {', '.join(loose)}: chmod o-r")
    return "nobody else's to read"


def metrics_directory(settings: Settings) -> str:
    """Whether several workers could count together. Raises `Trouble`."""
    directory = settings.metrics.directory
    if directory is None:
        directory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())  # noqa: S108
    if directory.exists() and not os.access(directory, os.W_OK | os.X_OK):
        raise Trouble(f"metrics.directory: {directory} cannot be written to, and several workers count there")
    return f"in {directory}"


def _private_files(settings: Settings) -> Iterator[Path]:
    url = settings.database.url.get_secret_value()
    if url.startswith("sqlite") and ":///" in url:
        path = url.partition(":///")[2].partition("?")[0]
        yield from (Path(path + suffix) for suffix in ("", "-wal"))


def _readable_by_others(path: Path) -> bool:
    """Whether the file, and every directory on the way to it, lets others on this machine in."""
    on_the_way = all(parent.stat().st_mode & _PASSABLE for parent in path.parents)
    return path.exists() and on_the_way and bool(path.stat().st_mode & _READABLE)


def _since(then: datetime | None, now: datetime) -> str:
    return "" if then is None else _minutes((now - then).total_seconds())


def _minutes(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
