"""What the checks of the report look at, and what one finds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from authserver.policy.catalogue import CatalogueEntry
from authserver.services import Services

SHOWN = 10  # names of those that a check found


@dataclass(frozen=True, slots=True)
class Facts:
    """What checks look at."""

    services: Services
    connection: Connection
    now: datetime

    @property
    def actions(self) -> tuple[CatalogueEntry, ...]:
        """The catalogue's entries."""
        return tuple(self.services.vocabulary.catalogue.entries.values())


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `where` is the setting, file or table in which it stands.

    `met` is None where there is nothing to hold it to: it is shown, and no control is met by it.
    """

    check: str
    met: bool | None
    says: str
    where: str


Check = Callable[[Facts], tuple[bool | None, str, str]]


def some(names: Iterable[str]) -> str:
    """The first of the names, in order, and how many more there are."""
    found = sorted(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more if found else "none"
