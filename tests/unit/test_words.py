"""What was agreed, in plain words; and names that others chose, made fit to be shown."""

from typing import Any

import pytest

from authserver import strict_json, texts
from authserver.pages import words
from authserver.policy.delegation_details import DelegationDetails, stored_delegation
from authserver.values import Money


@pytest.fixture(autouse=True)
def _english() -> None:
    texts.speak("en")


def details(**changes: Any) -> DelegationDetails:
    members = {
        "type": "agent_delegation",
        "actions": ["catalog.search", "payment.finalize"],
        "limits": {
            "currency": "EUR",
            "per_action": "80.00",
            "total": "300.00",
            "per_period": [{"amount": "40.00", "period": "P1D", "categories": ["5811-5814"]}],
        },
        "merchants": {"categories": ["5411"], "countries": ["NL", "EU"]},
        "datatypes": ["shipping_address"],
        "approval": {"above": "62.10"},
        "expires": "2026-12-24T00:00:00Z",
    }
    said = {name: value for name, value in (members | changes).items() if value is not None}
    return stored_delegation(strict_json.write(said))


def test_a_delegation_is_a_few_plain_sentences() -> None:
    assert words.in_plain_words(details(), "Basket Helper") == (
        "Basket Helper may catalog.search and payment.finalize at grocery stores and supermarkets in the Netherlands "
        "or the European Union until 24 December 2026. It may spend up to €80 at a time and €300 in all; at most €40 "
        "each day at restaurants, bars and catering. It may see your delivery address. It asks you above €62.10."
    )
    texts.speak("nl")
    assert "bij kruideniers en supermarkten in Nederland of de Europese Unie tot 24 december 2026" in (
        words.in_plain_words(details(), "Basket Helper")
    )


def test_what_bounds_nothing_is_said() -> None:
    open_to_all = {"categories": ["any"], "countries": ["any"]}
    said = words.in_plain_words(details(merchants=open_to_all, datatypes=["any"], approval=None), "It")
    assert "at any kind of shop in any country" in said
    assert "any of your data" in said


@pytest.mark.parametrize(
    ("money", "said"),
    [
        (Money("EUR", 62_10), "€62.10"),
        (Money("EUR", 80_00), "€80"),
        (Money("EUR", 1_234_567_00), "€1,234,567"),
        (Money("EUR", 1), "€0.01"),
        (Money("EUR", 0), "€0"),
        (Money("JPY", 500), "JP¥500"),
        (Money("KWD", 1_500), "KWD1.500"),
        (Money("EUR", 999_999_999_999_99), "€999,999,999,999.99"),
    ],
)
def test_amounts_have_their_sign_and_no_decimals_that_say_nothing(money: Money, said: str) -> None:
    assert words.amount_in_words(money) == said


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("5411", "Grocery stores and supermarkets"),
        ("5811-5814", "Restaurants, bars and catering"),
        ("5411-5422", "Grocery stores and supermarkets and butchers"),
        ("any", "Any kind of shop"),
        ("nonsense", "Nonsense"),
    ],
)
def test_kinds_of_shops_have_names(code: str, name: str) -> None:
    assert words.category_name(code) == name


def test_a_wide_range_does_not_list_everything() -> None:
    assert words.category_name("7000-7999").endswith("more kinds")
    assert len(words.category_name("3000-3998")) < 200


@pytest.mark.parametrize(
    ("chosen", "shown", "warning"),
    [
        ("Basket Helper", "Basket Helper", None),
        ("Café Zürich & Söhne", "Café Zürich & Söhne", None),
        ("東京ストア", "東京ストア", None),
        ("Shop\u202egnp.exe", "Shopgnp.exe", "had hidden characters in it"),
        ("Pay\u200bPal", "PayPal", "had hidden characters in it"),
        ("Line\nbreak", "Line break", "had hidden characters in it"),
        ("Рaypal", "Рaypal", "has letters that look like others (Cyrillic)"),
        ("раураl", "раураl", "has letters that look like others (Cyrillic)"),
        ("Αpple", "Αpple", "has letters that look like others (Greek)"),
        ("\ufeff", "?", "had hidden characters in it"),
        ("\u3164", "?", "had hidden characters in it"),  # a letter of Hangul that is drawn as nothing
        ("Pay\u034f\ufe0fPal\U000e0101", "PayPal", "had hidden characters in it"),
        ("Shop\u2800\u2800 one", "Shop one", "had hidden characters in it"),
        ("Shop   one", "Shop one", "had hidden characters in it"),
        ("Z" + "\u0335" * 40 + "algo", "Z" + "\u0335" * 3 + "algo", "had hidden characters in it"),
        ("חנות", "\u2068חנות\u2069", None),  # and beside it an amount stays where it is
    ],
)
def test_A83_a_name_hides_nothing_and_look_alikes_are_marked(
    chosen: str, shown: str, warning: str | None
) -> None:
    name = words.shown_name(chosen)
    assert (name.text, name.warning) == (shown, warning)
