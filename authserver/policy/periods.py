"""Periods of a budget and the windows that they make: one after another from an anchor, half-open, in UTC."""

import calendar
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from authserver.values import NotAValue

_PERIOD = re.compile(r"P(?:T([1-9][0-9]{0,3})H|([1-9][0-9]{0,3})D|(1M)|(1Y))")
_SPAN = re.compile(
    r"P(?:(?P<days>[0-9]{1,4})D)?(?:T(?:(?P<hours>[0-9]{1,5})H)?(?:(?P<minutes>[0-9]{1,6})M)?)?"
)


@dataclass(frozen=True, slots=True)
class Period:
    """How long one window of a budget lasts: so many `hours`, or so many calendar `months` (the other is 0).

    Days are 24 hours: windows are in UTC, which has no summer time. `text` is the ISO 8601 duration as it was given.
    """

    text: str
    hours: int
    months: int

    @classmethod
    def parse(cls, unverified: object) -> Self:
        """Read `PTnH`, `PnD` (n from 1 to 9999), `P1M` or `P1Y`."""
        match = _PERIOD.fullmatch(unverified) if isinstance(unverified, str) else None
        if match is None:
            raise NotAValue("must be a period PTnH, PnD, P1M or P1Y")
        hours, days, month, _year = match.groups()
        if hours or days:
            return cls(match[0], int(hours) if hours else 24 * int(days), 0)
        return cls(match[0], 0, 1 if month else 12)


def window_index(anchor: datetime, period: Period, now: datetime) -> int:
    """Which window `now` lies in: 0 for the one that begins at `anchor`, below 0 before it. Both are aware, in UTC."""
    if period.hours:
        return (now - anchor) // timedelta(hours=period.hours)
    months = (now.year - anchor.year) * 12 + now.month - anchor.month
    index = months // period.months
    return index if now >= _start(anchor, period, index) else index - 1


def window_bounds(anchor: datetime, period: Period, index: int) -> tuple[datetime, datetime]:
    """The first instant of a window, and the first one after it."""
    return _start(anchor, period, index), _start(anchor, period, index + 1)


def every_start_is_one(coarse: tuple[datetime, Period], fine: tuple[datetime, Period]) -> bool:
    """Whether each window of `coarse` begins where one of `fine` does: it consists of whole windows of `fine`.

    Each is an anchor, aware and in UTC, with its period.
    """
    (anchor, period), (fine_anchor, fine_period) = coarse, fine
    if _start(fine_anchor, fine_period, window_index(fine_anchor, fine_period, anchor)) != anchor:
        return False
    if fine_period.hours:
        # Months begin whole days after their anchor.
        return (period.hours or 24) % fine_period.hours == 0
    # Months that begin on 28 February go on to 28 March; those that came there from 31 January to 31 March.
    return bool(period.months) and period.months % fine_period.months == 0 and anchor.day == fine_anchor.day


def _start(anchor: datetime, period: Period, index: int) -> datetime:
    if period.hours:
        return anchor + timedelta(hours=period.hours) * index
    # From the anchor each time, so that a month of 28 days does not shorten those after it: 31 January, 28 February,
    # 31 March.
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + period.months * index, 12)
    day = min(anchor.day, calendar.monthrange(year, month + 1)[1])
    return anchor.replace(year=year, month=month + 1, day=day)


def parse_span(unverified: object) -> timedelta:
    """Read how long something takes, in days, hours and minutes: `P7D`, `PT10M`, `P1DT12H`; more than nothing."""
    match = _SPAN.fullmatch(unverified) if isinstance(unverified, str) else None
    parts = match.groupdict(default="0") if match else {}
    span = timedelta(**{unit: int(count) for unit, count in parts.items()})
    if not span or str(unverified).endswith("T"):
        raise NotAValue("must be a duration such as PT10M, PT2H or P7D")
    return span
