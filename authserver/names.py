"""Names that somebody else chose, made fit to be shown (threats A83): on pages, and in what people are sent."""

import unicodedata
from dataclasses import dataclass

from authserver.texts import _

# Scripts of which many letters look like those of another. East Asian names mix theirs as a matter of course.
_LOOK_ALIKE = {
    "LATIN",
    "CYRILLIC",
    "GREEK",
    "ARMENIAN",
    "CHEROKEE",
    "COPTIC",
    "LISU",
    "FULLWIDTH",
    "MATHEMATICAL",
}
# Nobody sees them: Unicode's Default_Ignorable_Code_Point as far as Python calls it printable, and Braille's blank.
_SINGLE = (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180F, 0x2800, 0x3164, 0xFFA0)
_RANGES = (range(0x180B, 0x180E), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
_UNSEEN = frozenset(_SINGLE).union(*_RANGES)
_MOST_MARKS = 3  # on one letter: more of them are drawn over the lines above and below
_RIGHT_TO_LEFT = {"R", "AL"}
_ISOLATE, _END_OF_ISOLATE = "\u2068", "\u2069"


@dataclass(frozen=True, slots=True)
class ShownName:
    """A name that somebody else chose, fit to be shown; `warning` says what about it may deceive."""

    text: str
    warning: str | None

    def __str__(self) -> str:
        return self.text


def shown_name(text: str) -> ShownName:
    """A name without what hides or reorders letters, and with a word of warning where they may pass for others."""
    composed = unicodedata.normalize("NFC", text)
    visible = " ".join("".join(_seen(letter) for letter in composed).split())
    shown = _without_heaps(visible)
    scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in shown if letter.isalpha()}
    foreign = sorted(scripts & _LOOK_ALIKE - {"LATIN"})
    warning = None
    if foreign:
        warning = _("has letters that look like others (%(scripts)s)", scripts=", ".join(foreign).title())
    elif shown != text:
        warning = _("had hidden characters in it")
    return ShownName(_isolated(shown or "?"), warning)


def _seen(letter: str) -> str:
    if letter.isspace():
        return " "
    return letter if letter.isprintable() and ord(letter) not in _UNSEEN else ""


def _without_heaps(text: str) -> str:
    kept, marks = "", 0
    for letter in text:
        marks = marks + 1 if unicodedata.category(letter) in ("Mn", "Me") else 0
        kept += letter if marks <= _MOST_MARKS else ""
    return kept


def _isolated(text: str) -> str:
    # So that letters which are read from right to left do not pull the amounts beside them along (UAX #9 §2.4).
    if any(unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT for letter in text):
        return f"{_ISOLATE}{text}{_END_OF_ISOLATE}"
    return text
