"""Numbers for administrators, each over a bounded stretch: what happens now, what was refused, where money went."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    case,
    cast,
    func,
    literal,
    select,
    type_coerce,
)

from authserver.administration.decisions import EVENTS, outcome_of
from authserver.administration.windows import Window, window_since
from authserver.delegations.standing import newest_of, not_revoked_by_name
from authserver.schema import EPOCH, Action, Approval, AuditEvent, Delegation, table_of
from authserver.values import Money

_EVENTS, _ACTIONS, _APPROVALS = table_of(AuditEvent), table_of(Action), table_of(Approval)
_DELEGATIONS = table_of(Delegation)
MOST_EVENTS = 200_000  # that one figure looks through
_MOST_COUNTED = 10_000  # rows, where more is only "more"
_MOST_APPROVALS = 5_000
_ANSWERED = ("approved", "refused", "used")
# Takings: events of a redemption that captures at once, and of a capture after an authorization.
_TAKINGS = ("redemption.permitted", "capture.permitted")
_ENTRIES = 12  # of a chart; the rest is added up
OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Slot:
    """How many decisions of each outcome there were from `since` on, for one column of a chart."""

    since: datetime
    permitted: int
    refused: int
    awaiting: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.permitted + self.refused + self.awaiting


@dataclass(frozen=True, slots=True)
class Flow:
    """Decisions over time: `slots` follow each other, each `width` long; `whole` as of the window."""

    slots: tuple[Slot, ...]
    width: timedelta
    window: Window

    @property
    def tallest(self) -> int:
        """The most decisions of any slot."""
        return max((slot.total for slot in self.slots), default=0)

    def total(self, outcome: str) -> int:
        """How many of one outcome there were."""
        return sum(getattr(slot, outcome) for slot in self.slots)


@dataclass(frozen=True, slots=True)
class Counted:
    """A number of rows; `or_more` where counting stopped there."""

    number: int
    or_more: bool


@dataclass(frozen=True, slots=True)
class Spending:
    """What was captured and not refunded, in one currency, by whatever the entries' names are; the most first."""

    currency: str
    entries: tuple[tuple[str, Money], ...]

    @property
    def most(self) -> int:
        """The highest amount, in minor units."""
        return max((money.minor for _, money in self.entries), default=0)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long people took to answer approvals: numbers of answers by how long, and the middle one's time."""

    counts: tuple[tuple[timedelta, int], ...]  # up to so long; the last one is without an end
    median: timedelta | None
    answers: int


def flow(connection: Connection, now: datetime, length: timedelta, slots: int) -> Flow:
    """Decisions of the last `length`, in so many slots of the same width."""
    since, width = now - length, length / slots
    window = window_since(connection, since, MOST_EVENTS)
    begins, step = (since - EPOCH) // timedelta(microseconds=1), width // timedelta(microseconds=1)
    slot = ((type_coerce(_EVENTS.c.at, BigInteger) - begins) // step).label("slot")
    names = [name for some in EVENTS.values() for name in some]
    query = (
        select(slot, _EVENTS.c.event, func.count().label("number"))
        .where(window.holds, _EVENTS.c.event.in_(names))
        .group_by(slot, _EVENTS.c.event)
    )
    found = Counter[tuple[int, str]]()
    for row in connection.execute(query):
        place = min(max(int(row.slot), 0), slots - 1)  # a clock that was wrong may have written outside of it
        found[place, outcome_of(row.event) or ""] += row.number
    columns = (
        Slot(since + number * width, *(found[number, outcome] for outcome in EVENTS))
        for number in range(slots)
    )
    return Flow(tuple(columns), width, window)


def refusals(connection: Connection, window: Window) -> tuple[tuple[str, int], ...]:
    """Why requests were refused: the rule that was crossed first, and how often; the most frequent first."""
    number = func.count().label("number")
    query = (
        select(_EVENTS.c.rule, number)
        .where(window.holds, _EVENTS.c.event.in_(EVENTS["refused"]))
        .group_by(_EVENTS.c.rule)
        .order_by(number.desc(), _EVENTS.c.rule)
    )
    return tuple((row.rule or "", row.number) for row in connection.execute(query.limit(_ENTRIES)))


def spending(connection: Connection, window: Window) -> Mapping[str, tuple[Spending, ...]]:
    """What was captured in the window, by merchant `category` and by `country`: one `Spending` for each currency."""
    details = _Json(connection, _ACTIONS.c.details)
    currency = details.text("amount", "currency").label("currency")
    amount = func.sum(_ACTIONS.c.captured - _ACTIONS.c.refunded).label("amount")
    captured = _captured_in(window)

    def by(*path: str) -> tuple[Spending, ...]:
        name = details.text(*path).label("name")
        query = (
            select(name, currency, amount).where(captured).group_by(name, currency).order_by(amount.desc())
        )
        return _by_currency(
            (row.currency, row.name or "", int(row.amount)) for row in connection.execute(query)
        )

    return {"category": by("merchant", "category"), "country": by("merchant", "country")}


def captured(connection: Connection, window: Window) -> tuple[Money, ...]:
    """What was captured in the window and not refunded since, by currency."""
    amount = func.sum(_ACTIONS.c.captured - _ACTIONS.c.refunded).label("amount")
    return _totals(connection, amount, _captured_in(window))


def held(connection: Connection) -> tuple[Money, ...]:
    """What tokens and authorizations hold now, by currency."""
    amount = func.sum(_ACTIONS.c.authorized + _reserved()).label("amount")
    return _totals(connection, amount, _ACTIONS.c.ends_at.is_not(None))


def live_delegations(connection: Connection, now: datetime) -> Counted:
    """Delegations that have neither expired nor been revoked."""
    before = _DELEGATIONS.c.revocations_before
    stands = (
        (before >= newest_of("agent", _DELEGATIONS.c.client_id))
        & (before >= newest_of("user", _DELEGATIONS.c.user_id))
        & not_revoked_by_name(_DELEGATIONS)
    )
    return _counted(connection, select(literal(1)).where(_DELEGATIONS.c.expires_at > now, stands))


def awaiting(connection: Connection, now: datetime) -> Counted:
    """Approvals that nobody has answered yet."""
    waits = (_APPROVALS.c.state == "waiting") & (_APPROVALS.c.expires_at > now)
    return _counted(connection, select(literal(1)).select_from(_APPROVALS).where(waits))


def overdue(connection: Connection, now: datetime) -> Counted:
    """Tokens and authorizations that should have given back what they hold by then."""
    held = _ACTIONS.c.ends_at.is_not(None) & (_ACTIONS.c.ends_at < now)
    return _counted(connection, select(literal(1)).select_from(_ACTIONS).where(held))


def waiting(connection: Connection, since: datetime) -> Waiting:
    """How long the newest answers since then took, a few thousand at most."""
    limits = (60, 300, 900, 3_600)  # seconds
    query = (
        select(_APPROVALS.c.created_at, _APPROVALS.c.answered_at)
        .where(
            _APPROVALS.c.state.in_(_ANSWERED),
            _APPROVALS.c.expires_at > since,
            _APPROVALS.c.answered_at >= since,
        )
        .order_by(_APPROVALS.c.expires_at.desc())
        .limit(_MOST_APPROVALS)
    )
    took = sorted((row.answered_at - row.created_at).total_seconds() for row in connection.execute(query))
    counts, below = [], 0
    for limit in limits:
        reached = sum(one < limit for one in took)
        counts.append((timedelta(seconds=limit), reached - below))
        below = reached
    counts.append((timedelta.max, len(took) - below))
    return Waiting(tuple(counts), timedelta(seconds=took[len(took) // 2]) if took else None, len(took))


class _Json:
    """The members of a column that holds JSON as text, in the words of either database."""

    def __init__(self, connection: Connection, column: ColumnElement[str]) -> None:
        self._postgresql, self._column = connection.dialect.name == "postgresql", column

    def text(self, *path: str) -> ColumnElement[str | None]:
        if self._postgresql:
            return func.json_extract_path_text(cast(self._column, JSON), *path)
        return func.json_extract(self._column, "$." + ".".join(path))


def _reserved() -> ColumnElement[int]:
    """What an action holds that was not authorized yet: its amount, as long as it is reserved."""
    return case((_ACTIONS.c.state == "reserved", _ACTIONS.c.amount), else_=0)


def _captured_in(window: Window) -> ColumnElement[bool]:
    taken = select(_EVENTS.c.action_id).where(window.holds, _EVENTS.c.event.in_(_TAKINGS))
    return _ACTIONS.c.id.in_(taken) & (_ACTIONS.c.budget == "debit") & (_ACTIONS.c.captured > 0)


def _totals(
    connection: Connection, amount: ColumnElement[int], where: ColumnElement[bool]
) -> tuple[Money, ...]:
    currency = _Json(connection, _ACTIONS.c.details).text("amount", "currency").label("currency")
    rows = connection.execute(select(currency, amount).where(where).group_by(currency).order_by(currency))
    return tuple(Money(row.currency, int(row.amount)) for row in rows if row.currency)


def _by_currency(rows: Iterable[tuple[str | None, str, int]]) -> tuple[Spending, ...]:
    by = dict[str, list[tuple[str, Money]]]()
    for currency, name, amount in rows:
        if currency and amount > 0:
            by.setdefault(currency, []).append((name, Money(currency, amount)))
    return tuple(
        Spending(currency, _with_rest(currency, entries)) for currency, entries in sorted(by.items())
    )


def _with_rest(currency: str, entries: list[tuple[str, Money]]) -> tuple[tuple[str, Money], ...]:
    if len(entries) <= _ENTRIES:
        return tuple(entries)
    rest = sum(money.minor for _, money in entries[_ENTRIES - 1 :])
    return (*entries[: _ENTRIES - 1], (OTHERS, Money(currency, rest)))


def _counted(connection: Connection, rows: Select[int]) -> Counted:
    number = (
        connection.scalar(select(func.count()).select_from(rows.limit(_MOST_COUNTED + 1).subquery())) or 0
    )
    return Counted(min(number, _MOST_COUNTED), number > _MOST_COUNTED)
