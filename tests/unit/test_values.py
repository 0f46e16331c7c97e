"""The values that details are made of: what they take, and what they refuse."""

from collections.abc import Callable

import pytest

from authserver.values import (
    EVERY_CATEGORY,
    CategoryRange,
    Country,
    CountryGroups,
    Datatypes,
    MerchantCategory,
    Money,
    NotAValue,
    ResourceIdentifier,
    is_loopback,
    parse_currency,
    parse_merchant_id,
    parse_name,
    parse_reference,
)
from tests.shipped import VOCABULARY

# --- money --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("currency", "value", "minor", "text"),
    [
        ("EUR", "42.50", 4250, "42.50"),
        ("EUR", "42.5", 4250, "42.50"),
        ("EUR", "42", 4200, "42.00"),
        ("EUR", "0.01", 1, "0.01"),
        ("JPY", "500", 500, "500"),
        ("KWD", "1.005", 1005, "1.005"),
        ("CLF", "0.0001", 1, "0.0001"),
        ("UYW", "2", 20_000, "2.0000"),
        ("EUR", "999999999999.99", 99_999_999_999_999, "999999999999.99"),
    ],
)
def test_an_amount_is_kept_in_minor_units_and_shown_with_all_decimals(
    currency: str, value: str, minor: int, text: str
) -> None:
    money = Money.parse(currency, value)
    assert money == Money(currency, minor)
    assert money.text == text
    assert money.to_json() == {"currency": currency, "value": text}


def test_A79_the_exponents_are_those_of_iso_4217() -> None:
    known = {
        0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
        2: "AUD BRL CAD CHF CNY CZK DKK EUR GBP HKD HUF INR MXN NOK NZD PLN SEK SGD TRY TWD USD ZAR",
        3: "BHD IQD JOD KWD LYD OMR TND",
        4: "CLF UYW",
    }
    for exponent, codes in known.items():
        for code in codes.split():
            assert Money.parse(code, "1").minor == 10**exponent, code


NO_AMOUNTS: list[object] = [
    *(42.5, 42, True, None, ["1"], {"value": "1"}, b"1"),
    *(
        "",
        " ",
        "1e2",
        "1E2",
        "+1",
        ".5",
        "1.",
        "01.00",
        "00",
        " 1",
        "1 ",
        "1\n",
        "1,00",
        "1_000",
        "1'000",
        "0x10",
    ),
    *(
        "٣.٠٠",
        "１.００",
        "1.٠٠",
        "NaN",
        "Infinity",
        "-1",
        "-0.01",
        "0",
        "0.00",
        "1.0.0",
        "1/2",
        "€1",
        "1 EUR",
    ),
]


@pytest.mark.parametrize("value", NO_AMOUNTS, ids=repr)
def test_A50_only_a_plain_positive_decimal_string_is_an_amount(value: object) -> None:
    with pytest.raises(NotAValue):
        Money.parse("EUR", value)


@pytest.mark.parametrize(
    ("currency", "value"),
    [
        ("JPY", "1.00"),
        ("JPY", "1.0"),
        ("EUR", "1.005"),
        ("EUR", "1.000"),
        ("BHD", "1.0005"),
        ("CLF", "1.00000"),
    ],
)
def test_A51_more_decimals_than_the_currency_has_are_refused(currency: str, value: str) -> None:
    with pytest.raises(NotAValue, match="decimals"):
        Money.parse(currency, value)


@pytest.mark.parametrize("value", ["1000000000000", "1000000000000.00", "9" * 13, "9" * 400])
def test_A52_ten_to_the_twelfth_and_over_is_refused(value: str) -> None:
    with pytest.raises(NotAValue):
        Money.parse("EUR", value)


def test_A52_the_largest_amount_of_the_finest_currency_fits_64_bits_a_hundred_times() -> None:
    assert Money.parse("CLF", "999999999999.9999").minor * 100 < 2**63


@pytest.mark.parametrize(
    "currency",
    [
        *("eur", "Eur", "EURO", "EU", "", " EUR", "EUR\n", "€", None, 978, "978", ["EUR"]),
        *("XXX", "XTS", "XAU", "XAG", "XPT", "XDR", "XSU", "XUA", "XBA"),
        *("DEM", "FRF", "NLG", "BGN", "HRK", "LTL", "ZWL", "SLL", "VEF", "ANG"),
    ],
    ids=repr,
)
def test_A53_only_a_current_currency_is_one(currency: object) -> None:
    with pytest.raises(NotAValue, match="ISO 4217"):
        Money.parse(currency, "1")
    with pytest.raises(NotAValue, match="ISO 4217"):
        parse_currency(currency)


# --- categories ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["5411", "0742", "5262", "3000", "9402"])
def test_an_assigned_category_is_taken_and_has_a_title(code: str) -> None:
    category = MerchantCategory.parse(code)
    assert category.code == code
    assert category.title.strip()


def test_a_category_has_the_title_of_the_standard() -> None:
    assert MerchantCategory.parse("5411").title == "Groceries and supermarkets"


NO_CATEGORIES: list[object] = [
    "5411 ",
    " 5411",
    "541",
    "05411",
    "5411\n",
    "٥٤١١",
    "５４１１",
    5411,
    None,
    ["5411"],
]


@pytest.mark.parametrize("code", [*NO_CATEGORIES, "5411-5412", "0000", "9999", "5410", "any"], ids=repr)
def test_A54_only_an_assigned_code_is_a_category(code: object) -> None:
    with pytest.raises(NotAValue):
        MerchantCategory.parse(code)


@pytest.mark.parametrize(
    ("text", "low", "high"), [("5411", 5411, 5411), ("5811-5814", 5811, 5814), ("0700-0799", 700, 799)]
)
def test_a_range_is_one_category_or_several(text: str, low: int, high: int) -> None:
    assert CategoryRange.parse(text) == CategoryRange(low, high)
    assert CategoryRange.parse(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        *NO_CATEGORIES,
        *("5814-5811", "5811-5811", "5811-", "-5814", "5811-581", "5811–5814", "5811 - 5814", "٥٨١١-٥٨١٤"),
        *("5811-5812-5814", "0000-9999", "0001-0699", "5410", "any"),
    ],
    ids=repr,
)
def test_A54_a_range_that_is_reversed_empty_or_misspelt_is_refused(text: object) -> None:
    with pytest.raises(NotAValue):
        CategoryRange.parse(text)


def test_ranges_contain_cover_and_overlap() -> None:
    eating, bars, shops = (CategoryRange.parse(text) for text in ("5811-5814", "5813", "5411"))
    assert eating.contains(MerchantCategory("5811"))
    assert eating.contains(MerchantCategory("5814"))
    assert not eating.contains(MerchantCategory("5815"))
    assert eating.covers(bars)
    assert eating.covers(eating)
    assert not bars.covers(eating)
    assert bars.overlaps(eating)
    assert eating.overlaps(CategoryRange(5814, 5900))
    assert not eating.overlaps(shops)
    assert EVERY_CATEGORY.covers(eating)
    assert EVERY_CATEGORY.text == "any"


# --- countries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    ["nl", "Nl", "NLD", "528", "UK", "EU", "XX", "XK", "AN", "", "N", "NL ", "N\u200bL", "ＮＬ", None, 31],
    ids=repr,
)
def test_A55_only_an_assigned_code_in_upper_case_is_a_country(code: object) -> None:
    with pytest.raises(NotAValue, match="ISO 3166-1"):
        Country.parse(code)


def test_the_shipped_groups_are_the_union_and_the_economic_area() -> None:
    groups = VOCABULARY.country_groups.groups
    assert len(groups["EU"]) == 27
    assert {country.code for country in groups["EEA"] - groups["EU"]} == {"IS", "LI", "NO"}
    assert groups["EU"] < groups["EEA"]
    assert Country("GB") not in groups["EEA"]


def test_groups_are_known_by_exact_name() -> None:
    assert VOCABULARY.country_groups.contains("EU")
    assert not VOCABULARY.country_groups.contains("eu")
    assert not VOCABULARY.country_groups.contains("NL")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, r"groups.toml takes one table, \[groups\]"),
        ({"groups": {}, "more": {}}, "takes one table"),
        ({"groups": {"NL": ["NL"]}}, "groups.toml: NL takes names"),
        ({"groups": {"eu": ["NL"]}}, "groups.toml: eu takes names"),
        ({"groups": {"EU": "NL"}}, "groups.toml: EU takes a list"),
        ({"groups": {"EU": [1]}}, "groups.toml: EU takes a list"),
        ({"groups": {"EU": ["NL", "NL"]}}, "groups.toml: EU takes each name once"),
        ({"groups": {"EU": ["UK"]}}, "groups.toml: EU takes ISO 3166-1 codes"),
        ({"groups": {"EU": []}}, "groups.toml: EU takes"),
        ({"groups": {"AAA": ["BBB"], "BBB": ["AAA", "NL"]}}, "must not contain itself"),
    ],
)
def test_a_broken_file_of_groups_says_what_is_wrong(document: dict[str, object], says: str) -> None:
    with pytest.raises(NotAValue, match=says):
        CountryGroups.parse(document, "groups.toml")


# --- data types ---------------------------------------------------------------------------------------------------


def test_A58_a_type_covers_what_it_contains_and_never_what_contains_it() -> None:
    datatypes = VOCABULARY.datatypes
    assert datatypes.covers(["contact"], "email")
    assert datatypes.covers(["profile"], "email")
    assert datatypes.covers(["email"], "email")
    assert not datatypes.covers(["email"], "contact")
    assert not datatypes.covers(["email", "phone"], "contact")
    assert not datatypes.covers(["email"], "phone")
    assert not datatypes.covers([], "email")
    assert not datatypes.covers(["no_such_type"], "no_such_type")


def test_data_types_are_known_by_exact_name() -> None:
    for name in ("contact", "email", "phone", "shipping_address", "billing_address", "name", "order_history"):
        assert VOCABULARY.datatypes.known(name)
    assert not VOCABULARY.datatypes.known("Email")
    assert not VOCABULARY.datatypes.known("any")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"types": {}}, r"types.toml takes one table, \[datatypes\]"),
        ({"datatypes": {"any": []}}, "types.toml: any takes names"),
        ({"datatypes": {"E-mail": []}}, "types.toml: E-mail takes names"),
        ({"datatypes": {"contact": ["email"]}}, "types.toml: contact takes names of other data types"),
        ({"datatypes": {"contact": {"a": 1}}}, "types.toml: contact takes a list"),
        ({"datatypes": {"a": ["a"]}}, "types.toml: a must not contain itself"),
        ({"datatypes": {"a": ["b"], "b": ["c"], "c": ["a"]}}, "must not contain itself"),
    ],
)
def test_a_broken_file_of_data_types_says_what_is_wrong(document: dict[str, object], says: str) -> None:
    with pytest.raises(NotAValue, match=says):
        Datatypes.parse(document, "types.toml")


# --- places -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *(
            "https://shop.example",
            "https://shop.example/",
            "https://shop.example/api",
            "https://a.b-c.d/x;y=z",
        ),
        *(
            "https://shop.example:8443/v1",
            "https://shop.example/.well-known/x",
            "https://shop.example/a..b/~me",
        ),
        *("https://xn--bcher-kva.example", "https://192.0.2.1/api", "https://[2001:db8::1]:8443/"),
        *("http://localhost:9000", "http://127.0.0.1:9000/api", "http://127.8.8.8", "http://[::1]:8080"),
    ],
)
def test_a_resource_server_is_named_by_an_https_uri_in_plain_form(text: str) -> None:
    assert ResourceIdentifier.parse(text).text == text


LOOK_ALIKES: list[object] = [
    *(
        "https://shop.example/api#x",
        "https://shop.example/api#",
        "https://shop.example/api?a=b",
        "https://shop.example?",
    ),
    *("https://user@shop.example/", "https://user:pw@shop.example/", "https://@shop.example/"),
    *("https://Shop.example/", "HTTPS://shop.example/", "https://shop.example:443/", "http://localhost:80/"),
    *(
        "https://shop.example:/",
        "https://shop.example:0/",
        "https://shop.example:0443/",
        "https://shop.example:65536/",
    ),
    *(
        "https://shop.example/a/../b",
        "https://shop.example/./a",
        "https://shop.example/..",
        "https://shop.example/a/.",
    ),
    *(
        "https://shop.example//a",
        "https://shop.example/a//",
        "https://shop.example/%61pi",
        "https://shop.example/a%2fb",
    ),
    *("https://bücher.example/", "https://shop。example/", "https://shоp.example/", "https://shop.example/é"),
    *(
        "https://shop.example\\api",
        "https://shop.example/a b",
        "https://shop.example/api\n",
        " https://shop.example",
    ),
    *(
        "https://shop.example./",
        "https://.example/",
        "https://-shop.example/",
        "https://shop_.example/",
        "https://",
    ),
    *(
        "https://127.1/",
        "https://0x7f.0.0.1/",
        "https://2130706433/",
        "https://192.0.2.01/",
        "https://1.2.3.4.5/",
    ),
    *(
        "https://[::0:1]/",
        "https://[2001:DB8::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[::1",
        "https://::1/",
    ),
    *("http://shop.example/", "http://192.0.2.1/", "http://localhost.example/", "http://[::ffff:127.0.0.1]/"),
    *(
        "ftp://shop.example/",
        "urn:shop",
        "//shop.example/api",
        "/api",
        "",
        "any",
        None,
        1,
        ["https://shop.example"],
    ),
    "https://shop.example/" + "a" * 500,
    "https://" + ".".join(["a" * 63] * 5) + "/",
]


@pytest.mark.parametrize("text", LOOK_ALIKES, ids=repr)
def test_A26_every_other_spelling_of_a_place_is_refused(text: object) -> None:
    with pytest.raises(NotAValue, match=r"https URI|host and port"):
        ResourceIdentifier.parse(text)


def test_only_this_machine_is_loopback() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.1.2.3", "::1"]))
    assert not any(
        map(is_loopback, ["example.org", "10.0.0.1", "0.0.0.0", "::", "localhost.example", "128.0.0.1"])
    )


# --- names and references -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Example Foods", "Café Zoë", "Маркет", "東京 ストア", "M&M's 24/7", "🍕 Pizza", "x" * 100]
)
def test_a_name_is_what_a_person_can_read(name: str) -> None:
    assert parse_name(name) == name


UNFIT_NAMES: list[object] = [
    *("", " ", " Shop", "Shop ", "x" * 101, "x" * 10_240, None, 5, ["Shop"]),
    *("<b>Shop</b>", "a > b", "Shop\n", "Sh\top", "Sh\x00op", "Sh\x1b[31mop", "Sh\x7fop", "Sh\x85op"),
    *(
        "Shop\u202egnp",
        "\u2066Shop\u2069",
        "Shop\u200b",
        "Sh\u200dop",
        "Sh\ufeffop",
        "Sh\u00adop",
        "Sh\u2028op",
    ),
    *(
        "Sh\u00a0op",
        "Sh\u3000op",
        "\ue000Shop",
        "\U000e0041Shop",
        "Sh\u0378op",
        "\ud800",
        "Sh\u115fop",
        "\u3164",
    ),
    *("Shop\ufe0f", "Sh\u034fop", "Cafe\u0301", "\u2800"),
]


@pytest.mark.parametrize("name", UNFIT_NAMES, ids=ascii)
def test_A61_a_name_that_could_hide_reorder_or_mark_up_text_is_refused(name: object) -> None:
    with pytest.raises(NotAValue, match="name"):
        parse_name(name)


@pytest.mark.parametrize("text", ["cart-889", "1", "a" * 128, "order:2026/11#4+x=y@z~", "A.b_c"])
def test_a_reference_is_plain_ascii(text: str) -> None:
    assert parse_reference(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "-a", "#a", " a", "a b", "a\n", "a" * 129, "<b>", "é", "a\u202eb", "a'b", 'a"b', "a\\b", None, 889],
    ids=ascii,
)
def test_A61_a_reference_with_anything_else_is_refused(text: object) -> None:
    with pytest.raises(NotAValue):
        parse_reference(text)


@pytest.mark.parametrize("text", ["m_123", "acct:1.2-3", "a" * 64])
def test_a_merchant_id_is_plain_ascii(text: str) -> None:
    assert parse_merchant_id(text) == text


@pytest.mark.parametrize("text", ["", "a" * 65, "m 1", "m/1", "m_1\n", "ｍ", "any", None, 123], ids=repr)
def test_a_merchant_id_with_anything_else_is_refused(text: object) -> None:
    with pytest.raises(NotAValue):
        parse_merchant_id(text)


@pytest.mark.parametrize(
    "parse",
    [
        Country.parse,
        CategoryRange.parse,
        MerchantCategory.parse,
        ResourceIdentifier.parse,
        parse_name,
        parse_reference,
        parse_merchant_id,
        parse_currency,
        lambda text: Money.parse("EUR", text),
    ],
)
def test_a_reason_is_ascii_without_quotation_marks_and_never_repeats_what_was_sent(
    parse: Callable[[object], object],
) -> None:
    with pytest.raises(NotAValue) as refused:
        parse('"\\<attack é>')
    assert refused.value.reason.isascii()
    assert not set(refused.value.reason) & {'"', "\\"}
    assert "attack" not in str(refused.value)


def test_a_reason_tells_the_path_of_the_member() -> None:
    error = NotAValue("must be it").inside("category").inside("merchant")
    assert (str(error), error.member, error.reason) == (
        "merchant.category must be it",
        "merchant.category",
        "must be it",
    )
