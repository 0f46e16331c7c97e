"""How the demonstration speaks: chapters, who asks for what, what was said, and why, in plain words."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from authserver.errors import Violation
from authserver.values import MerchantCategory

_WIDEST = 100
_INDENT = 3


class Narrator:
    """Writes the story to standard output, with colours where the terminal has them."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._console.width = min(self._console.width, _WIDEST)
        self._chapters = 0

    def title(self, text: str, below: str) -> None:
        """The first lines."""
        self._console.print()
        self._paragraph(Text(text, "bold"))
        self._paragraph(Text(below, "dim"))

    def people(self, who: Mapping[str, str]) -> None:
        """Names, and who they are."""
        self._console.print()
        for name, description in who.items():
            self._row(Text(name, "bold"), 17, description)

    def chapter(self, text: str) -> None:
        """A new step of the story."""
        self._chapters += 1
        self._console.print()
        self._paragraph(Text(f"{self._chapters}. {text}", "bold cyan"))

    def tell(self, text: str) -> None:
        """A few plain sentences."""
        self._paragraph(Text(text), Text(" " * _INDENT))

    def asks(self, who: str, what: str) -> None:
        """Somebody asks for something."""
        self._line("asks", f"{who}: {what}", "default")

    def yes(self, text: str) -> None:
        """It was allowed."""
        self._line("yes", text, "green")

    def no(self, text: str, reasons: Iterable[str] = ()) -> None:
        """It was refused, for these reasons."""
        self._line("no", text, "red")
        for reason in reasons:
            self.because(reason)

    def because(self, reason: str) -> None:
        """One reason for the refusal above."""
        self._line("", f"- {reason}", "default")

    def shop(self, text: str, *, accepted: bool) -> None:
        """What the shop answered."""
        self._line("shop", text, "green" if accepted else "red")

    def close(self, lines: Iterable[str]) -> None:
        """The last lines."""
        self._console.print()
        for line in lines:
            self._paragraph(Text(line))

    def failed(self, what: str, shown: str) -> None:
        """The story came out otherwise than told."""
        self._console.print()
        self._console.print(Text(f"This was not expected: {what}", "bold red"))
        self._console.print(shown, markup=False)

    def _line(self, label: str, text: str, colour: str) -> None:
        self._row(Text(label, f"bold {colour}"), 7, text)

    def _row(self, label: Text, width: int, text: str) -> None:
        margin = Text(" " * _INDENT) + label
        margin.append(" " * (_INDENT + width - len(margin)))
        self._paragraph(Text(text), margin)

    def _paragraph(self, text: Text, margin: Text | None = None) -> None:
        """Lines that fit beside the margin, which stands before the first of them; none ends in blanks."""
        margin = margin or Text()
        for line in text.wrap(self._console, self._console.width - len(margin)):
            line.rstrip()
            self._console.print(margin + line)
            margin = Text(" " * len(margin))


def euros(amount: object) -> str:
    """`"42.50"` or `{"currency": "EUR", "value": "42.50"}` as people write it."""
    if amount is None:
        return "nothing"
    return f"€{amount['value']}" if isinstance(amount, dict) else f"€{amount}"


def in_words(violation: Violation) -> str:
    """One crossed limit as a person would say it, with the name that it has on the wire."""
    say = _WORDS.get(violation.constraint)
    if say is None:
        return (
            f"{violation.constraint}: {_listed(violation.requested)}, allowed: {_listed(violation.allowed)}"
        )
    return f"{say(violation)}  ({violation.constraint})"


def _class(code: object) -> str:
    return f"class {code} ({MerchantCategory.parse(code).title})"


def _only(allowed: object) -> str:
    names = (
        list(map(str, allowed))
        if isinstance(allowed, Sequence) and not isinstance(allowed, str)
        else [allowed]
    )
    if not names:
        return "and none is allowed"
    return f"and only {_listed(names)} {'is' if len(names) == 1 else 'are'} allowed"


def _listed(value: object) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def _at_a_time(violation: Violation) -> str:
    if violation.allowed is None:
        return f"{euros(violation.requested)}, and nothing may be spent"
    return f"{euros(violation.requested)} is more than {euros(violation.allowed)}, the most at a time"


_WORDS: dict[str, Callable[[Violation], str]] = {
    "actions": lambda v: f"{v.requested}, {_only(v.allowed)}",
    "amount": lambda v: f"{euros(v.requested)} is due, and the token is for {euros(v.allowed)}",
    "reference": lambda v: f"it is about {v.requested}, and the token is for {v.allowed or 'no order'}",
    "limits.per_action": _at_a_time,
    "limits.total": lambda v: f"{euros(v.requested)} is more than {euros(v.allowed)}, all that is left",
    "merchants.categories": lambda v: f"{_class(v.requested)}, {_only(v.allowed)}",
    "merchants.countries": lambda v: f"a seller in {v.requested}, {_only(v.allowed)}",
    "datatypes": lambda v: f"{_listed(v.requested)}, {_only(v.allowed)}",
    "approval": lambda _: "Ada wants to be asked first",
}
