"""Every text that a person reads is in the catalogue, and every other language has all of them."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from authserver.texts import LANGUAGES, LOCALES

PACKAGE = Path(__file__).parent.parent.parent / "authserver"
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2.ext:babel_extract")]
OTHERS = [language for language in LANGUAGES if language != "en"]


def _texts() -> set[str | tuple[str, ...]]:
    found = extract_from_dir(PACKAGE, METHODS, keywords={"_": None, "ngettext": (1, 2)})
    return {message if isinstance(message, str) else tuple(message) for _, _, message, _, _ in found}


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_translated(language: str) -> None:
    translated = {}
    for path in (LOCALES / language).glob("*.po"):
        with path.open("rb") as file:
            translated |= {message.id: message for message in read_po(file, locale=language) if message.id}
    texts = _texts()
    assert len(texts) > 50
    missing = [text for text in texts if text not in translated or not all(_strings(translated[text].string))]
    assert missing == []
    assert [id for id in translated if id not in texts] == [], "nothing says these any more"


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_has_the_same_places_for_values(language: str) -> None:
    for path in (LOCALES / language).glob("*.po"):
        with path.open("rb") as file:
            for message in read_po(file, locale=language):
                if message.id:
                    pairs = zip(_strings(message.id), _strings(message.string), strict=True)
                    assert all(_places(id) == _places(text) for id, text in pairs), message.id


@pytest.mark.parametrize("language", OTHERS)
def test_no_text_is_translated_in_two_ways(language: str) -> None:
    said: dict[object, set[object]] = defaultdict(set)
    for path in (LOCALES / language).glob("*.po"):
        with path.open("rb") as file:
            for message in read_po(file, locale=language):
                said[message.id].add(message.string)
    assert [id for id, strings in said.items() if id and len(strings) > 1] == []


def _strings(text: object) -> list[str]:
    return [text] if isinstance(text, str) else list(text)  # type: ignore[call-overload]


def _places(text: str) -> set[str]:
    return set(re.findall(r"%\((\w+)\)s", text))
