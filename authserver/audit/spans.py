"""Many numbers, nearly in order, in little memory: the spans without a hole, of which there are few."""

from bisect import bisect_right


class Numbers:
    """A set of whole numbers. What it costs is in its holes, not in how many there are."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # the first number after each span

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._starts, number)
        return place > 0 and number < self._ends[place - 1]

    def add(self, number: int) -> None:
        """Put a number in."""
        place = bisect_right(self._starts, number)
        if place and number < self._ends[place - 1]:
            return
        after_one = place > 0 and self._ends[place - 1] == number
        before_one = place < len(self._starts) and self._starts[place] == number + 1
        if after_one and before_one:
            self._ends[place - 1] = self._ends.pop(place)
            self._starts.pop(place)
        elif after_one:
            self._ends[place - 1] = number + 1
        elif before_one:
            self._starts[place] = number
        else:
            self._starts.insert(place, number)
            self._ends.insert(place, number + 1)

    def highest(self) -> int:
        """The highest of them; 0 where there is none."""
        return self._ends[-1] - 1 if self._ends else 0
