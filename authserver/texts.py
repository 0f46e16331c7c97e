"""What people read, in their language. The English text is the key; `locales/` holds the other languages.

Each file of `locales/LANGUAGE/*.po` is a part of one catalogue; parts are read as they are, so nothing is compiled.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

LOCALES = Path(__file__).parent / "locales"
LANGUAGES = {"en": "English", "nl": "Nederlands"}  # each in its own words
_SPOKEN: ContextVar[str] = ContextVar("language", default="en")


def speak(language: str) -> None:
    """Choose the language of this request; one of `LANGUAGES`."""
    _SPOKEN.set(language if language in LANGUAGES else "en")


@contextmanager
def speaking(language: str | None) -> Iterator[None]:
    """Write to somebody in their language, outside of every request; English where nothing is known of it."""
    token = _SPOKEN.set(language if language is not None and language in LANGUAGES else "en")
    try:
        yield
    finally:
        _SPOKEN.reset(token)


def language() -> str:
    """The language of this request."""
    return _SPOKEN.get()


def locale() -> Locale:
    """How that language writes numbers, days and names of countries. English is written as in Europe."""
    return Locale("en", "GB") if language() == "en" else Locale(language())


def _(message: str, **values: object) -> str:
    """The text in the language of this request, with `%(name)s` replaced by `values`."""
    text = _translations(language()).gettext(message)
    return text % values if values else text


def ngettext(one: str, many: str, number: int, **values: object) -> str:
    """The same for a text that depends on a number, which is `%(number)s` in it."""
    return _translations(language()).ngettext(one, many, number) % {"number": number, **values}


@lru_cache
def _translations(language: str) -> NullTranslations:
    merged = None
    for path in sorted((LOCALES / language).glob("*.po")):
        with path.open("rb") as file:
            part = read_po(file, locale=language)
        if merged is None:
            merged = part
            continue
        for message in part:
            if message.id:
                merged[message.id] = message
    if merged is None:
        return NullTranslations()
    compiled = BytesIO()
    write_mo(compiled, merged)
    compiled.seek(0)
    return GNUTranslations(compiled)
