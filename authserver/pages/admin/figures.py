"""`/admin/figures`: charts of the last hour, day, week or month; drawn here, with the numbers beside them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver import metrics
from authserver.administration import figures
from authserver.administration.windows import window_since
from authserver.pages import words
from authserver.pages.admin.entrance import enter, page
from authserver.services import Services
from authserver.texts import _


@dataclass(frozen=True, slots=True)
class Period:
    """How far the charts look back, in how many columns."""

    name: str
    length: timedelta
    columns: int


PERIODS = (
    Period("hour", timedelta(hours=1), 30),
    Period("day", timedelta(days=1), 24),
    Period("week", timedelta(days=7), 28),
    Period("month", timedelta(days=30), 30),
)


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [("GET", "/admin/figures", lambda: show(services, request))]


def show(services: Services, request: Request) -> Response:
    """All charts of one period."""
    administrator, now = enter(services, request), services.clock.now()
    period = next((one for one in PERIODS if one.name == request.args.get("period")), PERIODS[1])

    def read(connection: Connection) -> dict[str, Any]:
        window = window_since(connection, now - period.length, figures.MOST_EVENTS)
        return {
            "flow": figures.flow(connection, now, period.length, period.columns),
            "refusals": figures.refusals(connection, window),
            "spending": figures.spending(connection, window),
            "waiting": figures.waiting(connection, now - period.length),
            "window": window,
        }

    return page(
        "figures",
        administrator,
        **services.database.read(read),
        periods=PERIODS,
        period=period,
        period_names={"hour": _("Hour"), "day": _("Day"), "week": _("Week"), "month": _("Month")},
        took=_with_some(metrics.durations("exchange")),
        named={"category": _category, "country": _country},
        span=span,
    )


def _with_some(durations: dict[float, int]) -> list[tuple[str, int]]:
    """The steps up to the last one that anything took, in milliseconds."""
    steps = sorted(durations.items())
    while steps and not steps[-1][1]:
        steps.pop()
    return [(f"{bound * 1000:g}" if bound != math.inf else "", number) for bound, number in steps]


def span(length: timedelta | None) -> str:
    """`45 s`, `12 min`, `3 h`: how long something took, roughly."""
    seconds = int(length.total_seconds()) if length is not None else 0
    if seconds < 120:
        return _("%(number)s s", number=seconds)
    if seconds < 7_200:
        return _("%(number)s min", number=seconds // 60)
    return _("%(number)s h", number=seconds // 3_600)


def _category(name: str) -> str:
    if name in ("", figures.OTHERS):
        return _("Not said") if not name else _("Others")
    return f"{words.category_name(name)} ({name})"


def _country(name: str) -> str:
    if name in ("", figures.OTHERS):
        return _("Not said") if not name else _("Others")
    said = words.country_name(name)
    return said[:1].upper() + said[1:]
