"""Windows of a budget: one after another from `not_before`, half-open, in UTC."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise, product

import pytest

from authserver.policy.periods import Period, every_start_is_one, parse_span, window_bounds, window_index
from authserver.values import NotAValue

INSTANT = timedelta(microseconds=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def starts(anchor: str, period: str, count: int) -> list[str]:
    bounds = [window_bounds(at(anchor), Period.parse(period), index) for index in range(count)]
    for (_, end), (start, _) in pairwise(bounds):
        assert end == start
    return [start.isoformat().removesuffix("+00:00") for start, _ in bounds]


@pytest.mark.parametrize(
    ("text", "hours", "months"),
    [
        ("PT1H", 1, 0),
        ("PT36H", 36, 0),
        ("P1D", 24, 0),
        ("P7D", 168, 0),
        ("P1M", 0, 1),
        ("P1Y", 0, 12),
        ("P9999D", 239_976, 0),
    ],
)
def test_a_period_is_hours_days_a_month_or_a_year(text: str, hours: int, months: int) -> None:
    assert Period.parse(text) == Period(text, hours, months)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "P0D",
            "PT0H",
            "P01D",
            "P-1D",
            "+P1D",
            "P1.5D",
            "P1W",
            "P2M",
            "P2Y",
            "PT30M",
            "PT30S",
            "P1DT1H",
            "P10000D",
        ),
        *("p1d", "P1D ", "P1D\n", "PT", "P", "", "1D", "P١D", "any", None, 1, ["P1D"]),
    ],
    ids=repr,
)
def test_any_other_period_is_refused(text: object) -> None:
    with pytest.raises(NotAValue, match="PTnH"):
        Period.parse(text)


def test_windows_of_days_begin_at_the_hour_of_the_anchor() -> None:
    assert starts("2026-11-24T13:30:00", "P7D", 3) == [
        "2026-11-24T13:30:00",
        "2026-12-01T13:30:00",
        "2026-12-08T13:30:00",
    ]


def test_A60_months_keep_the_day_of_the_anchor_where_the_month_has_it() -> None:
    assert starts("2027-01-31T09:00:00", "P1M", 6) == [
        "2027-01-31T09:00:00",
        "2027-02-28T09:00:00",
        "2027-03-31T09:00:00",
        "2027-04-30T09:00:00",
        "2027-05-31T09:00:00",
        "2027-06-30T09:00:00",
    ]


def test_A60_a_leap_day_comes_back_in_leap_years() -> None:
    assert starts("2028-02-29T00:00:00", "P1Y", 5) == [
        "2028-02-29T00:00:00",
        "2029-02-28T00:00:00",
        "2030-02-28T00:00:00",
        "2031-02-28T00:00:00",
        "2032-02-29T00:00:00",
    ]
    assert starts("2028-01-30T00:00:00", "P1M", 2)[1] == "2028-02-29T00:00:00"


@pytest.mark.parametrize("text", ["PT1H", "P1D", "P7D", "P1M", "P1Y"])
@pytest.mark.parametrize(
    "anchor",
    ["2026-11-24T00:00:00", "2028-02-29T23:59:59.999999", "2026-12-31T23:59:59", "2027-01-31T12:00:00"],
)
def test_A60_the_first_instant_of_a_window_is_in_it_and_the_last_of_the_one_before_is_not(
    text: str, anchor: str
) -> None:
    period, begin = Period.parse(text), at(anchor)
    for index in range(15):
        start, end = window_bounds(begin, period, index)
        assert window_index(begin, period, start) == index
        assert window_index(begin, period, end - INSTANT) == index
        assert window_index(begin, period, end) == index + 1
        assert window_index(begin, period, start - INSTANT) == index - 1


def test_A60_a_day_of_summer_time_changes_lasts_24_hours() -> None:
    # Europe moves its clocks on 28 March 2027 and 31 October 2027 at 01:00 UTC; windows do not.
    for day in ("2027-03-28T00:00:00", "2027-10-31T00:00:00"):
        start, end = window_bounds(at(day), Period.parse("P1D"), 0)
        assert end - start == timedelta(hours=24)


def test_before_the_anchor_there_is_no_window_from_zero_on() -> None:
    for text in ("PT1H", "P1D", "P1M", "P1Y"):
        assert window_index(at("2026-11-24T00:00:00"), Period.parse(text), at("2026-11-23T23:59:59")) == -1


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("PT10M", timedelta(minutes=10)),
        ("PT2H", timedelta(hours=2)),
        ("P7D", timedelta(days=7)),
        ("P1DT12H30M", timedelta(days=1, hours=12, minutes=30)),
        ("P30D", timedelta(days=30)),
    ],
)
def test_a_span_is_read(text: str, span: timedelta) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize(
    "text",
    ["", "P", "PT", "P7DT", "PT0M", "P0D", "7D", "P1M", "P1Y", "PT10", "P-1D", "PT1.5H", "P1D ", None, 600],
)
def test_any_other_span_is_refused(text: object) -> None:
    with pytest.raises(NotAValue, match="must be a duration"):
        parse_span(text)


OFTEN = ("PT1H", "PT5H", "PT6H", "PT12H", "P1D", "PT36H", "P2D", "P7D", "P30D", "P1M", "P1Y")
ANCHORS = ("2026-01-31T06:00", "2026-01-31T07:00", "2026-02-28T06:00", "2026-03-28T06:00", "2026-03-31T06:00")


def test_a_window_consists_of_whole_ones_exactly_where_each_of_its_starts_is_one_of_theirs() -> None:
    # Looked at for four years of months, and as many windows of days.
    for coarse, fine in product(product(ANCHORS, OFTEN), repeat=2):
        (anchor, period), (fine_anchor, fine_period) = (
            (at(when), Period.parse(text)) for when, text in (coarse, fine)
        )
        begins = [window_bounds(anchor, period, index)[0] for index in range(48)]
        whole = all(
            window_bounds(fine_anchor, fine_period, window_index(fine_anchor, fine_period, begin))[0] == begin
            for begin in begins
        )
        assert every_start_is_one((anchor, period), (fine_anchor, fine_period)) == whole, (coarse, fine)
