"""A list in pages, one after the other: where the next one begins is a place in the order, never a number of rows.

So a page shows nothing twice and leaves nothing out, whatever is added meanwhile.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, ColumnElement, Select, String, and_, not_, true

from authserver import strict_json
from authserver.errors import Refusal
from authserver.schema import EPOCH, Instant
from authserver.strict_json import JsonRefused

Item = TypeVar("Item")
_MICROSECOND = timedelta(microseconds=1)
_LONGEST = 4_096
_LATEST = 60_000_000_000_000_000  # microseconds: before the year 3900, behind all that is recorded


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items of a list, and the cursor with which it goes on; None at its end."""

    items: Sequence[Item]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """By which columns a list is in order, the last of them unique with those before it."""

    columns: tuple[Column[Any], ...]
    descending: bool = False

    def applied(self, query: Select[Any], unverified_cursor: str | None, limit: int) -> Select[Any]:
        """The page after the cursor, and one row more, which says whether there is another.

        Raises `Refusal` (`invalid_request`) for what is no cursor of this list.
        """
        ordered = query.order_by(*(c.desc() if self.descending else c.asc() for c in self.columns))
        return ordered.where(self._beyond(unverified_cursor)).limit(limit + 1)

    def up_to(self, row: Any) -> ColumnElement[bool]:
        """What comes before a row, and the row itself."""
        cursor, value = self.cursor_of(row), getattr(row, self.columns[0].name)
        return and_(self._begins(value, before=True), not_(self._beyond(cursor)))

    def known(self, unverified_cursor: str | None) -> str | None:
        """The cursor, if it is one of this list; None for anything else, which begins anew."""
        try:
            self._beyond(unverified_cursor)
        except Refusal:
            return None
        return unverified_cursor

    def cursor_of(self, row: Any) -> str:
        """The place of a row, as text."""
        return _written([_plain(getattr(row, column.name)) for column in self.columns])

    def _beyond(self, unverified: str | None) -> ColumnElement[bool]:
        if unverified is None:
            return true()
        read = _read(unverified, len(self.columns))
        place = [_value(column, value) for column, value in zip(self.columns, read, strict=True)]
        # Not as a row value: SQLite would convert nothing in it.
        steps = [
            and_(*(c == v for c, v in zip(self.columns[:n], place, strict=False)), self._after(n, place[n]))
            for n in range(len(self.columns))
        ]
        return and_(self._begins(place[0], before=False), reduce(or_, steps))

    def _begins(self, value: object, *, before: bool) -> ColumnElement[bool]:
        # Adds nothing to what is beside it but a bound that the index can use.
        column = self.columns[0]
        return column >= value if self.descending is before else column <= value

    def _after(self, number: int, value: object) -> ColumnElement[bool]:
        column = self.columns[number]
        return column < value if self.descending else column > value


def page_of_named(items: Mapping[str, Item], limit: int, unverified_cursor: str | None) -> Page[Item]:
    """The same of what is all in memory: up to `limit` items, by their names, after the one that the cursor names.

    Raises `Refusal` (`invalid_request`) for what is no cursor of this list.
    """
    names, start = list(items), 0
    if unverified_cursor is not None:
        (name,) = _read(unverified_cursor, 1)
        if name not in names:
            raise _no_cursor()
        start = names.index(str(name)) + 1
    shown, more = names[start : start + limit], len(names) > start + limit
    return Page([items[name] for name in shown], _written([shown[-1]]) if more else None)


def _written(place: list[object]) -> str:
    return base64.urlsafe_b64encode(strict_json.write(place).encode()).rstrip(b"=").decode()


def _read(unverified: str, length: int) -> list[object]:
    try:
        padded = unverified.encode("ascii") + b"=" * (-len(unverified) % 4)
        place = strict_json.parse(base64.b64decode(padded, altchars=b"-_", validate=True), max_bytes=_LONGEST)
    except (ValueError, JsonRefused) as error:
        raise _no_cursor() from error
    if not isinstance(place, list) or len(place) != length:
        raise _no_cursor()
    return place


def _plain(value: object) -> object:
    return (value - EPOCH) // _MICROSECOND if isinstance(value, datetime) else value


def _value(column: Column[Any], unverified: object) -> object:
    if isinstance(column.type, Instant):
        return EPOCH + _whole(unverified, _LATEST) * _MICROSECOND
    if isinstance(column.type, String):
        if not isinstance(unverified, str):
            raise _no_cursor()
        return unverified
    return _whole(unverified, 2**63)


def _whole(unverified: object, bound: int) -> int:
    if type(unverified) is not int or abs(unverified) >= bound:
        raise _no_cursor()
    return unverified


def _no_cursor() -> Refusal:
    return Refusal("invalid_request", "cursor takes the next_cursor of this list", rule="list.cursor")
