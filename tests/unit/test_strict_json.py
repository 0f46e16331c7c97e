"""One JSON text, read so that no two readers can disagree about it."""

import json

import pytest

from authserver.strict_json import JsonRefused, parse

CLAIMS = {
    "iss": "https://issuer.example",
    "exp": 1_800_000_000,
    "nested": {"list": [1, 2.5, True, None, "é😀"]},
}


@pytest.mark.parametrize(
    "text", [json.dumps(CLAIMS), json.dumps(CLAIMS).encode(), json.dumps(CLAIMS, indent=1)]
)
def test_ordinary_json_is_read_as_it_stands(text: str | bytes) -> None:
    assert parse(text) == CLAIMS


@pytest.mark.parametrize(
    "text", ["null", "0", "-1", '"x"', "[]", " {} \n", '"\\ud83d\\ude00"', '"\\\\u0000"']
)
def test_any_json_value_is_read(text: str) -> None:
    assert parse(text) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1, "b": 2}}',
        '[{"a": [{"b": 1, "b": 2}]}]',
        '{"a": 1, "\\u0061": 2}',
    ],
)
def test_A09_a_duplicate_member_is_refused_at_any_level(text: str) -> None:
    with pytest.raises(JsonRefused, match="twice"):
        parse(text)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", '{"exp": NaN}', "[1e999]", "[-1e999]"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(JsonRefused):
        parse(text)


@pytest.mark.parametrize(
    "text", ["9" * 25, "-" + "9" * 24, "0." + "1" * 23, "1" * 10_000, "1" + "0" * 5_000 + ".5"]
)
def test_a_number_of_absurd_length_is_refused(text: str) -> None:
    with pytest.raises(JsonRefused, match="number"):
        parse(f'{{"exp": {text}}}')


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "{} {}",
        "[1,]",
        "{'a': 1}",
        "01",
        "+1",
        ".5",
        "1.",
        "0x10",
        "1_000",
        "٣",
        "tru",
        '"\n"',
        '"\x00"',
        '"\\x41"',
        "// no\n1",
        "\u00a01",
    ],
)
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(JsonRefused, match="not JSON"):
        parse(text)


@pytest.mark.parametrize(
    "text", ['"\\u0000"', '{"a\\u0000": 1}', '[["\\ud800"]]', '{"\\udfff": 1}', '"\\ude00\\ud83d"']
)
def test_characters_that_are_no_text_are_refused_in_strings_and_names(text: str) -> None:
    with pytest.raises(JsonRefused, match="character"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    ['"\ud800"', b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', '"a"'.encode("utf-16")],
    ids=["lone surrogate", "no UTF-8", "overlong", "encoded surrogate", "UTF-16"],
)
def test_what_is_not_utf_8_is_refused(text: str | bytes) -> None:
    with pytest.raises(JsonRefused, match="not UTF-8"):
        parse(text)


@pytest.mark.parametrize("text", ["\ufeff{}", b"\xef\xbb\xbf{}"])
def test_a_byte_order_mark_is_refused(text: str | bytes) -> None:
    with pytest.raises(JsonRefused, match="not JSON"):
        parse(text)


def test_A08_size_is_counted_in_bytes_and_before_anything_is_parsed() -> None:
    assert parse('"' + "é" * 49 + '"', max_bytes=100) == "é" * 49
    for text in ('"' + "é" * 50 + '"', b"[" * 101, '"' + "a" * 99 + '"'):
        with pytest.raises(JsonRefused, match="too long"):
            parse(text, max_bytes=100)


def test_A08_sixteen_kibibytes_are_the_most_unless_told_otherwise() -> None:
    assert parse('"' + "a" * 16_382 + '"') == "a" * 16_382
    with pytest.raises(JsonRefused, match="too long"):
        parse('"' + "a" * 16_383 + '"')


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_A08_nesting_is_bounded(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    assert parse(opening * 32 + "1" + closing * 32) is not None
    for depth in (33, 100, 3_000):
        with pytest.raises(JsonRefused, match="deep"):
            parse(opening * depth + "1" + closing * depth, max_bytes=100_000)


def test_A08_ten_thousand_levels_are_refused_whatever_size_is_allowed() -> None:
    with pytest.raises(JsonRefused, match="deep"):
        parse("[" * 10_000 + "]" * 10_000, max_bytes=1_000_000)


def test_many_brackets_side_by_side_or_in_text_are_not_deep() -> None:
    assert parse("[" + ",".join(["{}"] * 200) + "]") == [{}] * 200
    deep = "[" * 31 + "]" * 31
    assert parse(f"[{deep},{deep}]") is not None
    assert parse(json.dumps("[" * 200)) == "[" * 200


def test_a_reason_is_short_ascii_without_quotation_marks() -> None:
    for text in ('{"é": 1, "é": 2}', "{", '"\\ud800"', "1" * 99, "NaN"):
        with pytest.raises(JsonRefused) as refused:
            parse(text)
        assert str(refused.value).isascii()
        assert not set(str(refused.value)) & {'"', "\\"}
