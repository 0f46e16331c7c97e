"""One JSON text, read so that no two readers can disagree about it (RFC 8259, narrowed as I-JSON, RFC 7493)."""

import json
import re
from collections.abc import Iterable
from typing import Never

# An int64 has 19 digits; no number of ours needs more, and converting long ones takes quadratic time.
_LONGEST_NUMBER = 24
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")


class JsonRefused(ValueError):
    """The text is not JSON that everybody reads in the same way; `str()` is a short ASCII reason."""


def parse(text: str | bytes, *, max_bytes: int = 16_384, max_depth: int = 32) -> object:
    """Read one JSON text in UTF-8.

    Refuses with `JsonRefused`: more than `max_bytes` (before it is parsed), nesting beyond `max_depth`, duplicate
    members at any level, NaN, infinities and numbers of absurd length, lone surrogates and U+0000, a byte order
    mark, and whatever is not JSON.
    """
    decoded = _decode(text, max_bytes)
    try:
        value: object = _DECODER.decode(decoded)
    except json.JSONDecodeError as error:
        raise JsonRefused("is not JSON") from error
    except RecursionError as error:
        raise JsonRefused("is nested too deeply") from error
    # Only a text with many brackets can be deep, and only an escape can bring in what UTF-8 cannot carry.
    if decoded.count("[") + decoded.count("{") > max_depth or "\\u" in decoded:
        _check_tree(value, max_depth)
    return value


def _decode(text: str | bytes, max_bytes: int) -> str:
    if len(text) > max_bytes:
        raise JsonRefused("is too long")
    try:
        if isinstance(text, bytes):
            return text.decode("utf-8")
        if not text.isascii() and len(text.encode("utf-8")) > max_bytes:
            raise JsonRefused("is too long")
    except UnicodeError as error:
        raise JsonRefused("is not UTF-8") from error
    return text


def _check_tree(value: object, max_depth: int) -> None:
    level, depth = [value], 0
    while level:
        if any(isinstance(node, str) and _NOT_TEXT.search(node) for node in level):
            raise JsonRefused("holds a character that is not text")
        containers = [node for node in level if isinstance(node, dict | list)]
        depth += bool(containers)
        if depth > max_depth:
            raise JsonRefused("is nested too deeply")
        level = [child for container in containers for child in _children(container)]


def _children(container: dict[str, object] | list[object]) -> Iterable[object]:
    if isinstance(container, list):
        return container
    return [*container.keys(), *container.values()]


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JsonRefused("has a member twice")
    return members


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise JsonRefused("has a number that is too long")
    return int(digits)


def _fraction(digits: str) -> float:
    if len(digits) > _LONGEST_NUMBER:
        raise JsonRefused("has a number that is too long")
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise JsonRefused("has a number that is too large")
    return number


def _constant(_name: str) -> Never:
    raise JsonRefused("is not JSON")  # NaN and the infinities, which Python's reader would take


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_fraction, parse_constant=_constant
)
# One encoder for all: to make one costs more than a small object.
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def write(value: object) -> str:
    """One line of JSON in ASCII without spaces, for rows and tokens. Raises `ValueError` for a number that is none."""
    return _ENCODER.encode(value)
