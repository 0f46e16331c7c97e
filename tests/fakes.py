"""What stands in for the world: a clock that tests set."""

from datetime import UTC, datetime, timedelta


class SettableClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime | None = None) -> None:
        self._now = now or datetime.now(UTC).replace(microsecond=0)

    def now(self) -> datetime:
        """The instant it was set to."""
        return self._now

    def advance(self, **by: float) -> None:
        """Move it, by what `timedelta` takes."""
        self._now += timedelta(**by)

    def set(self, now: datetime) -> None:
        """Set it to an instant."""
        self._now = now
