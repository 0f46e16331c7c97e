"""Events for others: JSON Lines as they are here, or the Open Cybersecurity Schema Framework (OCSF)."""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from authserver import strict_json
from authserver.audit import batches
from authserver.audit.events import all_events
from authserver.audit.ocsf import to_ocsf

Format = Literal["json", "ocsf"]


@dataclass(frozen=True, slots=True)
class Period:
    """Which events: from `since` and before `until`, None where there is no such bound; only those `after` a number."""

    since: datetime | None = None
    until: datetime | None = None
    after: int = 0


def exported(connection: Connection, period: Period = Period()) -> Iterator[dict[str, object]]:
    """Events, oldest first, each with the `leaf` of the tree that it is; those not sealed yet have none."""
    leaves = _Leaves(connection, period.after)
    for event in all_events(connection, after=period.after, since=period.since, until=period.until):
        leaf = leaves.of(event.id)
        yield event.to_json() | ({"leaf": leaf} if leaf is not None else {})


def heads(connection: Connection) -> Iterator[str]:
    """Every signed head, the smallest tree first."""
    for batch in batches.all_batches(connection):
        yield batch.head


def line(event: Mapping[str, object], format: Format) -> str:  # as the setting is called
    """One event, given as it is exported, as one line without its end."""
    return strict_json.write(event if format == "json" else to_ocsf(event))


class _Leaves:
    """Which leaf each sealed event after a number is, in sixteen bytes an event."""

    def __init__(self, connection: Connection, after: int) -> None:
        self._numbers, self._places = array("q"), array("q")
        self._late = dict[int, int]()  # those that were sealed after higher numbers
        for first, numbers in batches.all_numbers(connection):
            for place, number in enumerate(numbers, start=first):
                if number > after:
                    self._add(number, place)

    def _add(self, number: int, place: int) -> None:
        if self._numbers and number < self._numbers[-1]:
            self._late[number] = place
        else:
            self._numbers.append(number)
            self._places.append(place)

    def of(self, number: int) -> int | None:
        """The position of the event's leaf; None where it is not sealed."""
        found = bisect_left(self._numbers, number)
        if found < len(self._numbers) and self._numbers[found] == number:
            return self._places[found]
        return self._late.get(number)
