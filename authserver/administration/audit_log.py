"""The audit's newest events for somebody who looks, by the filters of the API's list, and how it is sealed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from authserver import stream
from authserver.administration.decisions import Some, newest
from authserver.administration.lists import EVENTS, Looked
from authserver.audit import batches


@dataclass(frozen=True, slots=True)
class Sealing:
    """How much of the audit is in its tree, and who else is told of it: each name with whether that fails."""

    sealed: int
    sealed_at: datetime | None
    root: str | None
    waiting: int
    destinations: Mapping[str, bool]


def events(looked: Looked, filters: Mapping[str, str], before: int | None, most: int) -> Some:
    """Up to `most` events, the last first; with `before`, those earlier than the event of that number."""
    wanted = [EVENTS.filters[name](looked, value) for name, value in filters.items()]
    return newest(looked.connection, wanted, before, most)


def sealing(looked: Looked, failing: Mapping[str, int]) -> Sealing:
    """How it stands; `failing` are the destinations that took nothing lately."""
    newest = batches.latest(looked.connection)
    waiting, _seconds = batches.lag(looked.connection, looked.now)
    told = {name: name in failing for name in stream.destinations_of(looked.services)}
    if newest is None:
        return Sealing(0, None, None, waiting, told)
    return Sealing(newest.tree.size, newest.sealed_at, newest.tree.root().hex(), waiting, told)
