"""Threats A50-A62: what an action and a delegation may say, and the bounds of what is spent."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from authserver import upkeep
from authserver.consent import Granted
from authserver.errors import Refusal
from authserver.ledger.check import check
from authserver.schema import Budget, BudgetWindow, Delegation, table_of
from tests.attacks.making import change, handed_on, named, sizes
from tests.policies import asks, policed
from tests.world import BASKET_HELPER, MARKET, MERCHANT, PRICE_SCOUT, SHOP, World

REFUSED = "invalid_authorization_details"
LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "300.00"}
MERCHANTS = {"categories": ["5411", "5811-5814"], "countries": ["NL", "BE"]}


def _refused(
    world: World, grant: str, action: object, rule: str | None = None, **form: Any
) -> dict[str, Any]:
    """An exchange for that action is refused as bad details, and nothing is left behind."""
    form.setdefault("authorization_details", json.dumps([action]))
    with world.nothing_happens(rule):
        return world.refuses(world.exchange(grant, **form), REFUSED)


def _not_grantable(world: World, **changes: Any) -> None:
    """A delegation with those members is refused, and no row is written."""
    before = sizes(world)
    with pytest.raises(Refusal) as refusal:
        world.granted(**changes)
    assert refusal.value.error == REFUSED
    assert sizes(world) == before


def _euros(value: object) -> dict[str, object]:
    return {"currency": "EUR", "value": value}


# --- A50-A53: money --------------------------------------------------------------------------------------------------

NO_AMOUNTS = {
    "number": 42.5,
    "whole_number": 42,
    "exponent": "1e2",
    "exponent_upper_case": "1E2",
    "plus": "+1",
    "no_digit_before_the_point": ".5",
    "no_digit_after_the_point": "1.",
    "leading_zero": "01.00",
    "two_zeros": "00.50",
    "space_before": " 1",
    "space_after": "1 ",
    "no_break_space": "1\u00a0",
    "line_end": "1\n",
    "comma": "1,00",
    "thousands": "1,000.00",
    "underscore": "1_000",
    "apostrophe": "1'000",
    "arabic_digits": "٣.٠٠",
    "full_width_digits": "１.００",
    "superscript": "²",
    "roman_numeral": "Ⅳ",
    "full_width_point": "1．00",
    "nan": "NaN",
    "infinity": "Infinity",
    "infinity_sign": "∞",
    "minus": "-1",
    "unicode_minus": "−1",
    "minus_zero": "-0",
    "zero": "0",
    "zero_with_decimals": "0.00",
    "hexadecimal": "0x10",
    "two_points": "1.0.0",
    "with_currency": "1.00 EUR",
    "fraction": "1/2",
    "empty": "",
    "null": None,
    "true": True,
    "array": ["1.00"],
    "object": {"value": "1.00"},
}


@pytest.mark.parametrize("value", named(NO_AMOUNTS))
def test_A50_an_amount_in_another_notation_is_refused(
    shared_world: World, shared_grant: str, value: object
) -> None:
    action = shared_world.action(amount=_euros(value))
    _refused(shared_world, shared_grant, action, "details.amount")


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "42.50", "1" * 5_000])
def test_A50_an_amount_that_is_no_json_string_is_refused(
    shared_world: World, shared_grant: str, literal: str
) -> None:
    text = json.dumps([shared_world.action(amount=_euros("HERE"))]).replace('"HERE"', literal)
    _refused(shared_world, shared_grant, None, authorization_details=text)


@pytest.mark.parametrize("value", named(NO_AMOUNTS))
@pytest.mark.parametrize("member", ["per_action", "total"])
def test_A50_a_limit_in_another_notation_is_refused(shared_world: World, value: object, member: str) -> None:
    _not_grantable(shared_world, limits=LIMITS | {member: value})


@pytest.mark.parametrize("value", ["0.00", "-1", 42.5, "1e2", "٣.٠٠"])
def test_A50_amounts_have_one_notation(either_world: World, value: object) -> None:
    _refused(
        either_world,
        either_world.granted().grant,
        either_world.action(amount=_euros(value)),
        "details.amount",
    )


TOO_FINE = {"JPY": "1.00", "EUR": "1.005", "BHD": "1.0005", "KWD": "1.0000", "KRW": "1.0", "CLF": "1.00001"}
FINE_ENOUGH = {"JPY": "100", "EUR": "1.05", "BHD": "1.005", "KWD": "1.5", "CLF": "1.0001"}


@pytest.mark.parametrize("currency", TOO_FINE)
def test_A51_more_decimals_than_the_currency_has_are_refused(
    shared_world: World, shared_grant: str, currency: str
) -> None:
    value = TOO_FINE[currency]
    action = shared_world.action(amount={"currency": currency, "value": value})
    _refused(shared_world, shared_grant, action, "details.amount")
    for limits in ({"per_action": value, "total": "9"}, {"per_action": "9", "total": value}):
        _not_grantable(shared_world, limits={"currency": currency, **limits})


@pytest.mark.parametrize("currency", FINE_ENOUGH)
def test_A51_as_many_decimals_as_the_currency_has_are_taken(shared_world: World, currency: str) -> None:
    limits = {"currency": currency, "per_action": "100", "total": "100"}
    amount = {"currency": currency, "value": FINE_ENOUGH[currency]}
    answer = shared_world.exchange(
        shared_world.granted(limits=limits).grant, action=shared_world.action(amount=amount)
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("value", ["1000000000000", "1000000000000.00", "9" * 13, "1" + "0" * 18, "9" * 400])
def test_A52_an_amount_from_ten_to_the_twelfth_on_is_refused(
    shared_world: World, shared_grant: str, value: str
) -> None:
    _refused(shared_world, shared_grant, shared_world.action(amount=_euros(value)), "details.amount")
    _not_grantable(shared_world, limits=LIMITS | {"total": value})


def test_A52_the_largest_amounts_add_up_without_overflow(world: World) -> None:
    largest = "999999999999.9999"  # the currency with the most decimals: 10^16 minor units
    granted = world.granted(limits={"currency": "CLF", "per_action": largest, "total": largest})
    whole = world.action(amount={"currency": "CLF", "value": largest})
    assert world.exchange(granted.grant, action=whole).status_code == 200
    for value in ("0.0001", largest):
        body = _refused(world, granted.grant, world.action(amount={"currency": "CLF", "value": value}))
        left = [(v["constraint"], v["allowed"]) for v in body["violations"]]
        assert left == [("limits.total", "0.0000")]


@pytest.mark.parametrize("count", [10**18, 10**9 + 1, 2**63, 0, -1, 1.5, "20", True])
def test_A52_a_count_beyond_reason_is_refused(shared_world: World, count: object) -> None:
    _not_grantable(shared_world, limits=LIMITS | {"count": count})


def test_A52_the_last_of_very_many_actions_is_the_last(world: World) -> None:
    granted = world.granted(limits=LIMITS | {"count": 10**9})
    change(world, Budget, {"delegation_id": granted.grant_id}, action_count=10**9 - 1)
    assert world.exchange(granted.grant).status_code == 200
    body = _refused(world, granted.grant, world.action(), "limits.count")
    assert body["violations"] == [{"constraint": "limits.count", "requested": 1, "allowed": 0}]


@pytest.mark.parametrize("currency", ["USD", "JPY", "GBP"])
def test_A53_another_currency_is_refused(either_world: World, currency: str) -> None:
    action = either_world.action(amount={"currency": currency, "value": "10"})
    body = _refused(either_world, either_world.granted().grant, action, "limits.currency")
    assert body["violations"] == [{"constraint": "limits.currency", "requested": currency, "allowed": "EUR"}]


NO_CURRENCIES = {
    "lower_case": "eur",
    "mixed_case": "Eur",
    "no_currency": "XXX",
    "test_code": "XTS",
    "gold": "XAU",
    "drawing_rights": "XDR",
    "historic_mark": "DEM",
    "historic_guilder": "NLG",
    "historic_kuna": "HRK",
    "crypto": "BTC",
    "number": 978,
    "numeric_code": "978",
    "sign": "€",
    "space_before": " EUR",
    "space_after": "EUR ",
    "full_width": "ＥＵＲ",
    "cyrillic": "ЕUR",
    "zero_width": "E\u200bUR",
    "empty": "",
    "null": None,
    "array": ["EUR"],
}


@pytest.mark.parametrize("currency", named(NO_CURRENCIES))
def test_A53_what_is_no_currency_is_refused(shared_world: World, shared_grant: str, currency: object) -> None:
    action = shared_world.action(amount={"currency": currency, "value": "10.00"})
    _refused(shared_world, shared_grant, action, "details.amount")
    _not_grantable(shared_world, limits=LIMITS | {"currency": currency})


# --- A54-A56: merchants ---------------------------------------------------------------------------------------------

NO_CATEGORIES = {
    "space_after": "5411 ",
    "space_before": " 5411",
    "three_digits": "541",
    "five_digits": "05411",
    "range": "5411-5412",
    "one_code_range": "5411-5411",
    "number": 5411,
    "unassigned": "0001",
    "zeros": "0000",
    "arabic_digits": "٥٤١١",
    "full_width": "５４１１",
    "any": "any",
    "letters": "54l1",
    "line_end": "5411\n",
    "zero_width": "54\u200b11",
    "minus": "-411",
    "empty": "",
    "null": None,
    "array": ["5411"],
}


@pytest.mark.parametrize("category", named(NO_CATEGORIES))
def test_A54_what_is_no_category_is_refused(shared_world: World, shared_grant: str, category: object) -> None:
    action = shared_world.action(merchant=MERCHANT | {"category": category})
    _refused(shared_world, shared_grant, action, "details.merchant.category")


@pytest.mark.parametrize(
    "categories",
    named(
        {
            "reversed": ["5814-5811"],
            "one_code": ["5411-5411"],
            "overlapping": ["5400-5500", "5411"],
            "overlapping_at_an_end": ["5411-5499", "5499-5599"],
            "twice": ["5411", "5411"],
            "unassigned": ["0001"],
            "range_of_unassigned": ["0002-0003"],
            "everything": ["0000-9999"],
            "three_parts": ["5411-5412-5413"],
            "open": ["5411-"],
            "short": ["541-5499"],
            "number": [5411],
            "spaces": ["5411 - 5499"],
            "any_with_others": ["any", "5411"],
            "empty": [],
            "text": "5411",
            "null": None,
        }
    ),
)
@pytest.mark.parametrize("place", ["allowed", "excluded", "rule"])
def test_A54_a_broken_range_of_categories_is_not_granted(
    shared_world: World, categories: object, place: str
) -> None:
    if place == "rule":
        rule = {"amount": "10.00", "period": "P1D", "categories": categories}
        _not_grantable(shared_world, limits=LIMITS | {"per_period": [rule]})
    elif place == "allowed":
        _not_grantable(shared_world, merchants=MERCHANTS | {"categories": categories})
    elif categories != []:  # to exclude nothing is to exclude nothing
        _not_grantable(shared_world, merchants=MERCHANTS | {"except": {"categories": categories}})


@pytest.mark.parametrize(
    ("category", "allowed"),
    [("5411", True), ("5811", True), ("5814", True), ("5813", True), ("5810", False), ("5815", False)],
)
def test_A54_both_ends_of_a_range_are_in_it(sqlite_world: World, category: str, allowed: bool) -> None:
    granted = sqlite_world.granted()
    answer = sqlite_world.exchange(
        granted.grant, action=sqlite_world.action(merchant=MERCHANT | {"category": category})
    )
    assert (answer.status_code == 200) is allowed, answer.text


NO_COUNTRIES = {
    "lower_case": "nl",
    "mixed_case": "Nl",
    "three_letters": "NLD",
    "reserved_uk": "UK",
    "group_eu": "EU",
    "group_eea": "EEA",
    "user_assigned_xx": "XX",
    "user_assigned_zz": "ZZ",
    "historic_su": "SU",
    "zero_width_inside": "N\u200bL",
    "zero_width_after": "NL\u200d",
    "bidi": "\u202eNL",
    "space_after": "NL ",
    "full_width": "ＮＬ",
    "cyrillic": "ΝL",
    "number": 528,
    "numeric": "528",
    "any": "any",
    "empty": "",
    "null": None,
    "array": ["NL"],
}


@pytest.mark.parametrize("country", named(NO_COUNTRIES))
def test_A55_what_is_no_country_is_refused(shared_world: World, country: object) -> None:
    grant = shared_world.granted(merchants=MERCHANTS | {"countries": ["any"]}).grant
    action = shared_world.action(merchant=MERCHANT | {"country": country})
    _refused(shared_world, grant, action, "details.merchant.country")


@pytest.mark.parametrize(
    "country", named({k: v for k, v in NO_COUNTRIES.items() if not k.startswith("group")})
)
@pytest.mark.parametrize("place", ["allowed", "excluded"])
def test_A55_what_is_no_country_or_group_is_not_granted(
    shared_world: World, country: object, place: str
) -> None:
    countries = ["BE", country]  # `any` among others is no country either
    merchants = {"countries": countries} if place == "allowed" else {"except": {"countries": countries}}
    _not_grantable(shared_world, merchants=MERCHANTS | merchants)


def test_A55_a_country_is_in_the_groups_that_name_it(sqlite_world: World) -> None:
    granted = sqlite_world.granted(merchants=MERCHANTS | {"countries": ["EU"]})
    for country, allowed in (("DE", True), ("CH", False), ("NO", False), ("GB", False)):
        action = sqlite_world.action(merchant=MERCHANT | {"country": country})
        answer = sqlite_world.exchange(granted.grant, action=action)
        assert (answer.status_code == 200) is allowed, answer.text


CONTRADICTIONS = {
    "id": ("m_999", "merchants.ids"),
    "category": ("5812", "merchants.categories"),
    "country": ("BE", "merchants.countries"),
}


@pytest.mark.parametrize("fact", CONTRADICTIONS)
def test_A56_a_fact_that_contradicts_the_registered_one_is_refused(either_world: World, fact: str) -> None:
    said, constraint = CONTRADICTIONS[fact]
    action = either_world.action(locations=[SHOP], merchant=MERCHANT | {fact: said})
    body = _refused(either_world, either_world.granted().grant, action, constraint)
    assert body["violations"] == [{"constraint": constraint, "requested": said, "allowed": MERCHANT[fact]}]


def test_A56_all_contradictions_are_told_at_once(shared_world: World, shared_grant: str) -> None:
    said = {fact: value for fact, (value, _) in CONTRADICTIONS.items()}
    body = _refused(shared_world, shared_grant, shared_world.action(locations=[SHOP], merchant=said))
    assert body["violations"] == [
        {"constraint": constraint, "requested": value, "allowed": MERCHANT[fact]}
        for fact, (value, constraint) in CONTRADICTIONS.items()
    ]


@pytest.mark.parametrize(
    "said",
    named({"nothing": None, "a_part": {"id": "m_123"}, "another_name": MERCHANT | {"name": "Good Foods"}}),
)
def test_A56_the_registered_facts_are_what_the_token_says(
    sqlite_world: World, said: dict[str, str] | None
) -> None:
    action = sqlite_world.action(locations=[SHOP], merchant=said)
    answer = sqlite_world.exchange(sqlite_world.granted().grant, action=action)
    assert answer.status_code == 200, answer.text
    token = sqlite_world.introspect(answer.json()["access_token"], server="shop")
    assert token["authorization_details"][0]["merchant"] == MERCHANT


def test_A56_registered_facts_are_held_against_the_delegation(sqlite_world: World) -> None:
    granted = sqlite_world.granted(merchants={"categories": ["5812"], "countries": ["BE"]})
    action = sqlite_world.action(locations=[SHOP], merchant=None)
    body = _refused(sqlite_world, granted.grant, action)
    assert [v["constraint"] for v in body["violations"]] == ["merchants.categories", "merchants.countries"]


# --- A57: the document -----------------------------------------------------------------------------------------------


def _deep(levels: int) -> str:
    return '[{"type": "agent_action", "actions": ' + "[" * levels + "]" * levels + "}]"


DOCUMENTS: dict[str, Callable[[str], str]] = {
    "object_instead_of_array": lambda action: action,
    "empty_array": lambda action: "[]",
    "two_entries": lambda action: f"[{action}, {action}]",
    "nested_array": lambda action: f"[[{action}]]",
    "null": lambda action: "[null]",
    "text": lambda action: f"[{json.dumps(action)}]",
    "bare_null": lambda action: "null",
    "bare_text": lambda action: '"agent_action"',
    "no_json": lambda action: "agent_action",
    "cut_off": lambda action: f"[{action}",
    "more_after_it": lambda action: f"[{action}]]",
    "two_texts": lambda action: f"[{action}] [{action}]",
    "comma_at_the_end": lambda action: f"[{action},]",
    "comment": lambda action: f"[{action}] // x",
    "single_quotes": lambda action: f"[{action}]".replace('"', "'"),
    "byte_order_mark": lambda action: f"\ufeff[{action}]",
    "empty_object": lambda action: "[{}]",
    "duplicate_type": lambda action: f'[{action[:-1]}, "type": "agent_action"}}]',
    "duplicate_amount": lambda action: f'[{action[:-1]}, "amount": {{"currency": "EUR", "value": "1.00"}}}}]',
    "duplicate_inside": lambda action: f"[{action}]".replace('"value":', '"value": "1.00", "value":'),
    "duplicate_by_escape": lambda action: f'[{action[:-1]}, "typ\\u0065": "agent_action"}}]',
    "nul_escape": lambda action: f"[{action}]".replace("m_123", "m\\u0000_123"),
    "lone_surrogate": lambda action: f"[{action}]".replace("Example Foods", "\\ud800"),
    "raw_control": lambda action: f"[{action}]".replace("Example", "Exam\x01ple"),
    "17_kib": lambda action: f"[{action}]" + " " * 17_408,
    "17_kib_in_bytes": lambda action: f"[{action[:-1]}, " + '"reference": "' + "é" * 8_400 + '"}]',
    "17_kib_of_members": lambda action: "[{" + ",".join(f'"m{n}": 1' for n in range(2_000)) + "}]",
    "100_levels": lambda action: _deep(100),
    "8000_levels": lambda action: _deep(8_000),
    "8000_open_brackets": lambda action: "[" * 8_000,
    "prototype": lambda action: f'[{action[:-1]}, "__proto__": {{"amount": 1}}}}]',
    "constructor": lambda action: f'[{action[:-1]}, "constructor": {{}}}}]',
}


@pytest.mark.parametrize("document", named(DOCUMENTS))
def test_A57_a_document_that_is_not_one_action_is_refused(
    shared_world: World, shared_grant: str, document: Callable[[str], str]
) -> None:
    text = document(json.dumps(shared_world.action()))
    _refused(shared_world, shared_grant, None, authorization_details=text)


MEMBERS = {
    "unknown_member": {"limits": {}},
    "unknown_in_another_case": {"Amount": _euros("1.00")},
    "look_alike_member": {"аmount": _euros("1.00")},
    "member_with_a_space": {"amount ": _euros("1.00")},
    "empty_name": {"": 1},
    "unknown_type": {"type": "agent_delegation"},
    "foreign_type": {"type": "payment_initiation"},
    "type_in_another_case": {"type": "Agent_Action"},
    "type_as_array": {"type": ["agent_action"]},
    "null_type": {"type": None},
    "no_actions": {"actions": []},
    "two_actions": {"actions": ["payment.finalize", "catalog.search"]},
    "one_action_twice": {"actions": ["payment.finalize", "payment.finalize"]},
    "action_as_text": {"actions": "payment.finalize"},
    "null_actions": {"actions": None},
    "unknown_action": {"actions": ["payment.steal"]},
    "any_action": {"actions": ["any"]},
    "wildcard_action": {"actions": ["*"]},
    "action_in_another_case": {"actions": ["Payment.Finalize"]},
    "action_as_object": {"actions": [{}]},
    "nested_actions": {"actions": [["payment.finalize"]]},
    "no_locations": {"locations": []},
    "location_as_text": {"locations": MARKET},
    "null_locations": {"locations": None},
    "null_amount": {"amount": None},
    "amount_as_text": {"amount": "42.50"},
    "amount_as_array": {"amount": [_euros("42.50")]},
    "empty_amount": {"amount": {}},
    "amount_without_currency": {"amount": {"value": "1.00"}},
    "amount_without_value": {"amount": {"currency": "EUR"}},
    "unknown_in_amount": {"amount": _euros("1.00") | {"minor": 1}},
    "null_merchant": {"merchant": None},
    "empty_merchant": {"merchant": {}},
    "merchant_as_text": {"merchant": "m_123"},
    "merchant_as_array": {"merchant": [MERCHANT]},
    "unknown_in_merchant": {"merchant": MERCHANT | {"iban": "x"}},
    "null_in_merchant": {"merchant": MERCHANT | {"id": None}},
    "merchant_id_any": {"merchant": MERCHANT | {"id": "any"}},
    "merchant_id_with_a_space": {"merchant": MERCHANT | {"id": "m 1"}},
    "merchant_id_as_number": {"merchant": MERCHANT | {"id": 123}},
    "long_merchant_id": {"merchant": MERCHANT | {"id": "m" * 65}},
    "no_datatypes": {"datatypes": []},
    "null_datatypes": {"datatypes": None},
    "datatypes_as_text": {"datatypes": "shipping_address"},
    "datatype_twice": {"datatypes": ["shipping_address", "shipping_address"]},
    "unknown_datatype": {"datatypes": ["dna"]},
    "any_datatype": {"datatypes": ["any"]},
    "datatype_as_number": {"datatypes": [1]},
    "null_reference": {"reference": None},
    "reference_as_number": {"reference": 889},
    "privileges": {"privileges": ["admin"]},
    "delegation_member": {"expires": "2099-01-01T00:00:00Z"},
}


@pytest.mark.parametrize("members", named(MEMBERS))
def test_A57_a_member_that_is_unknown_or_of_another_shape_is_refused(
    shared_world: World, shared_grant: str, members: dict[str, object]
) -> None:
    _refused(shared_world, shared_grant, shared_world.action() | members)


@pytest.mark.parametrize("left_out", ["type", "actions", "amount", "merchant"])
def test_A57_a_member_that_the_action_needs_is_needed(
    shared_world: World, shared_grant: str, left_out: str
) -> None:
    action = shared_world.action(**{left_out: None})
    _refused(shared_world, shared_grant, action)


@pytest.mark.parametrize("name", ["duplicate_amount", "two_entries", "17_kib", "100_levels", "prototype"])
def test_A57_details_have_one_reading(either_world: World, name: str) -> None:
    text = DOCUMENTS[name](json.dumps(either_world.action()))
    _refused(either_world, either_world.granted().grant, None, authorization_details=text)


@pytest.mark.parametrize(
    "members", named({n: m for n, m in MEMBERS.items() if "null" in n or n.startswith("unknown_member")})
)
def test_A57_an_unknown_member_is_not_granted(shared_world: World, members: dict[str, object]) -> None:
    before = sizes(shared_world)
    with pytest.raises(Refusal) as refusal:
        shared_world.granted(details=shared_world.delegation() | members)
    assert refusal.value.error == REFUSED
    assert sizes(shared_world) == before


# --- A58: data -------------------------------------------------------------------------------------------------------


def _reading(world: World, *datatypes: str) -> dict[str, Any]:
    asked = {"amount": None, "merchant": None, "actions": ["profile.read"]}
    return world.action(**asked, datatypes=list(datatypes))


def _reader(world: World, *datatypes: str) -> str:
    return world.granted(
        actions=["profile.read"], limits=None, merchants=None, datatypes=list(datatypes)
    ).grant


@pytest.mark.parametrize(
    ("granted", "asked", "told"),
    [
        (["email"], ["phone"], ["phone"]),
        (["email"], ["contact"], ["contact"]),
        (["email", "phone"], ["contact"], ["contact"]),
        (["contact"], ["profile"], ["profile"]),
        (["shipping_address"], ["addresses"], ["addresses"]),
        (["email"], ["email", "birth_date"], ["birth_date"]),
        (["profile"], ["order_history"], ["order_history"]),
        (["contact"], ["shipping_address", "email", "name"], ["shipping_address", "name"]),
    ],
    ids=lambda names: "+".join(names),
)
def test_A58_data_outside_the_delegation_is_refused(
    either_world: World, granted: list[str], asked: list[str], told: list[str]
) -> None:
    body = _refused(
        either_world, _reader(either_world, *granted), _reading(either_world, *asked), "datatypes"
    )
    assert body["violations"] == [{"constraint": "datatypes", "requested": told, "allowed": granted}]


def test_A58_a_parent_type_gives_what_is_in_it(sqlite_world: World) -> None:
    grant = _reader(sqlite_world, "contact")
    for asked in (["contact"], ["email"], ["email", "phone"]):
        answer = sqlite_world.exchange(grant, action=_reading(sqlite_world, *asked))
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("datatypes", [[], None], ids=["empty", "absent"])
def test_A58_an_action_that_exposes_data_names_which(
    shared_world: World, datatypes: list[str] | None
) -> None:
    action = _reading(shared_world, "email") | {"datatypes": datatypes}
    if datatypes is None:
        del action["datatypes"]
    body = _refused(shared_world, _reader(shared_world, "email"), action)
    if datatypes is None:
        assert body["violations"][0]["constraint"] == "catalogue.needs"


def test_A58_data_beside_a_payment_is_bounded_too(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    _refused(sqlite_world, granted.grant, sqlite_world.action(datatypes=["email"]), "datatypes")
    none = sqlite_world.granted(datatypes=None)
    _refused(sqlite_world, none.grant, sqlite_world.action(datatypes=["shipping_address"]), "datatypes")


def test_A58_a_delegation_without_data_is_not_granted_for_an_action_that_exposes_some(
    shared_world: World,
) -> None:
    for datatypes in (None, []):
        _not_grantable(shared_world, actions=["profile.read"], datatypes=datatypes)


# --- A59: splitting --------------------------------------------------------------------------------------------------


def _pay(world: World, grant: str, value: str, **changes: Any) -> bool:
    """Whether a payment of so many euros was allowed."""
    return world.exchange(grant, action=world.action(amount=_euros(value), **changes)).status_code == 200


def test_A59_payments_just_under_per_action_stay_within_the_total(world: World) -> None:
    granted = world.granted()
    paid = [_pay(world, granted.grant, "79.99") for _ in range(5)]
    assert paid == [True, True, True, False, False]
    body = _refused(world, granted.grant, world.action(amount=_euros("79.99")), "limits.total")
    assert body["violations"] == [{"constraint": "limits.total", "requested": "79.99", "allowed": "60.03"}]
    assert _pay(world, granted.grant, "60.03")
    assert not _pay(world, granted.grant, "0.01")
    assert world.rows().reserved == 30_000


def test_A59_cents_stay_within_the_count(world: World) -> None:
    granted = world.granted(limits=LIMITS | {"count": 5})
    assert [_pay(world, granted.grant, "0.01") for _ in range(7)] == [True] * 5 + [False] * 2
    body = _refused(world, granted.grant, world.action(amount=_euros("0.01")), "limits.count")
    assert body["violations"] == [{"constraint": "limits.count", "requested": 1, "allowed": 0}]


RULES = [
    {"amount": "100.00", "period": "P1D"},
    {"amount": "30.00", "period": "PT6H", "categories": ["5811-5814"]},
    {"amount": "40.00", "period": "P1D", "ids": ["m_123"]},
]


def test_A59_small_payments_stay_within_each_period(world: World) -> None:
    granted = world.granted(limits=LIMITS | {"per_period": RULES})
    restaurant = {"merchant": MERCHANT | {"category": "5812", "id": "m_7"}}
    assert [_pay(world, granted.grant, "9.99", **restaurant) for _ in range(4)] == [True] * 3 + [False]
    assert [_pay(world, granted.grant, "9.99") for _ in range(5)] == [True] * 4 + [False]
    elsewhere = {"merchant": MERCHANT | {"id": "m_8"}}
    assert _pay(world, granted.grant, "30.00", **elsewhere)  # 29.97 and 39.96 count: 0.07 are left
    body = _refused(
        world, granted.grant, world.action(amount=_euros("0.08"), **elsewhere), "limits.per_period"
    )
    assert body["violations"] == [{"constraint": "limits.per_period", "requested": "0.08", "allowed": "0.07"}]
    assert _pay(world, granted.grant, "0.07", **elsewhere)
    assert not list(world.services.database.read(lambda c: list(check(c, world.services.stored))))


def test_A59_a_merchant_that_hides_its_facts_counts_for_every_rule(sqlite_world: World) -> None:
    world = sqlite_world
    granted = world.granted(
        limits=LIMITS | {"per_period": RULES}, merchants={"categories": ["any"], "countries": ["any"]}
    )
    hidden = {"merchant": {"name": "Somebody"}}
    assert [_pay(world, granted.grant, "10.00", **hidden) for _ in range(4)] == [True] * 3 + [False]


def test_A59_payments_just_under_the_approval_threshold_stay_within_every_limit(world: World) -> None:
    granted = world.granted(
        limits=LIMITS | {"count": 4, "per_period": [{"amount": "150.00", "period": "P1D"}]},
        approval={"above": "49.99"},
    )
    asked = world.action(amount=_euros("50.00"))
    with world.nothing_happens("approval"):
        world.refuses(world.exchange(granted.grant, action=asked), "access_denied", constraint="approval")
    assert [_pay(world, granted.grant, "49.99") for _ in range(4)] == [True] * 3 + [False]
    world.clock.advance(days=1)
    assert [_pay(world, granted.grant, "49.99") for _ in range(4)] == [True] * 3 + [False]


def test_A59_a_payment_split_over_places_and_tasks_draws_on_one_budget(world: World) -> None:
    granted = world.granted(limits=LIMITS | {"total": "100.00"})
    for number, place in enumerate((MARKET, SHOP)):
        action = world.action(amount=_euros("50.00"), locations=[place])
        assert world.exchange(granted.grant, action=action, task_id=f"t{number}").status_code == 200
    for number, place in enumerate((MARKET, SHOP)):
        action = world.action(amount=_euros("0.01"), locations=[place])
        _refused(world, granted.grant, action, "limits.total", task_id=f"new{number}")


def test_A59_the_velocity_policy_sees_many_small_payments_wherever_they_are_made(
    database_url: str, tmp_path: Path
) -> None:
    with policed(database_url, tmp_path, library=("velocity",)) as world:
        granted = world.granted()
        child = handed_on(world, granted)
        cents = world.action(amount={"currency": "EUR", "value": "0.01"})
        for number in range(5):
            of_child = {"actor_token": world.assertion(PRICE_SCOUT)} if number % 2 else {}
            grant = child.grant if number % 2 else granted.grant
            assert world.exchange(grant, action=cents, task_id=f"t{number}", **of_child).status_code == 200
        for grant, subject in ((granted.grant, BASKET_HELPER), (child.grant, PRICE_SCOUT)):
            with world.nothing_happens("approval"):
                answer = world.exchange(grant, action=cents, actor_token=world.assertion(subject))
                assert asks(world, answer) == "policy:velocity"
        world.clock.advance(seconds=3601)
        assert world.exchange(granted.grant, action=cents).status_code == 200


def test_A59_an_order_that_holds_nothing_is_checked_against_what_is_left(sqlite_world: World) -> None:
    granted = sqlite_world.granted(limits=LIMITS | {"total": "60.00"})
    order = sqlite_world.action(actions=["order.checkout"], amount=_euros("60.00"))
    assert sqlite_world.exchange(granted.grant, action=order).status_code == 200
    assert sqlite_world.rows().reserved == 0
    assert _pay(sqlite_world, granted.grant, "0.01")
    _refused(sqlite_world, granted.grant, order, "limits.total")


# --- A60: the edges of a window --------------------------------------------------------------------------------------

MICROSECOND = timedelta(microseconds=1)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _windows(world: World, granted: Granted) -> list[tuple[int, int]]:
    """(window, spent in cents) of each window in which something was ever spent."""
    table = table_of(BudgetWindow)
    query = select(table.c.window, table.c.spent).where(table.c.delegation_id == granted.grant_id)
    rows = world.services.database.read(lambda c: c.execute(query.order_by(table.c.window)).all())
    return [(row.window, row.spent) for row in rows]


EDGES = {
    # anchor, period, and an instant at which one window ends and the next begins
    "an_hour": ("2027-05-01T00:00:00", "PT1H", "2027-05-01T07:00:00"),
    "a_day": ("2027-05-01T12:30:00", "P1D", "2027-05-04T12:30:00"),
    "a_week": ("2027-05-01T00:00:00", "P7D", "2027-05-22T00:00:00"),
    "clocks_go_forward_in_europe": ("2027-03-20T00:00:00", "P1D", "2027-03-28T00:00:00"),
    "the_hour_that_europe_skips": ("2027-03-20T00:00:00", "PT1H", "2027-03-28T01:00:00"),
    "the_day_after_it": ("2027-03-20T00:00:00", "P1D", "2027-03-29T00:00:00"),
    "clocks_go_back_in_europe": ("2027-10-20T00:00:00", "P1D", "2027-11-01T00:00:00"),
    "the_hour_that_europe_has_twice": ("2027-10-20T00:00:00", "PT1H", "2027-10-31T01:00:00"),
    "clocks_go_forward_in_america": ("2027-03-01T00:00:00", "P1D", "2027-03-14T00:00:00"),
    "leap_day_begins": ("2028-02-01T00:00:00", "P1D", "2028-02-29T00:00:00"),
    "leap_day_ends": ("2028-02-01T00:00:00", "P1D", "2028-03-01T00:00:00"),
    "no_leap_day": ("2027-02-01T00:00:00", "P1D", "2027-03-01T00:00:00"),
    "a_month_from_the_31st_in_a_leap_year": ("2028-01-31T00:00:00", "P1M", "2028-02-29T00:00:00"),
    "a_month_from_the_31st": ("2027-01-31T00:00:00", "P1M", "2027-02-28T00:00:00"),
    "the_month_after_a_short_one": ("2027-01-31T00:00:00", "P1M", "2027-03-31T00:00:00"),
    "a_month_from_the_30th": ("2027-01-30T10:00:00", "P1M", "2027-02-28T10:00:00"),
    "a_year_from_a_leap_day": ("2024-02-29T00:00:00", "P1Y", "2027-02-28T00:00:00"),
    "a_year_to_a_leap_day": ("2024-02-29T00:00:00", "P1Y", "2028-02-29T00:00:00"),
    "new_year": ("2027-12-31T00:00:00", "P1D", "2028-01-01T00:00:00"),
    "where_a_leap_second_would_be": ("2027-06-30T00:00:00", "P1D", "2027-07-01T00:00:00"),
}


@pytest.mark.parametrize("edge", named(EDGES))
def test_A60_no_instant_belongs_to_two_windows(sqlite_world: World, edge: tuple[str, str, str]) -> None:
    _hold_at_the_edge(sqlite_world, edge)


@pytest.mark.parametrize("name", ["a_day", "leap_day_begins", "a_month_from_the_31st_in_a_leap_year"])
def test_A60_the_edges_are_the_same_on_every_database(world: World, name: str) -> None:
    _hold_at_the_edge(world, EDGES[name])


def _hold_at_the_edge(world: World, edge: tuple[str, str, str]) -> None:
    anchor, period, turn = _at(edge[0]), edge[1], _at(edge[2])
    world.clock.set(turn - timedelta(hours=1))
    granted = world.granted(
        limits=LIMITS | {"per_period": [{"amount": "10.00", "period": period}]},
        not_before=_instant(anchor),
        expires=_instant(turn + timedelta(days=3)),
    )
    for instant in (turn - MICROSECOND, turn):
        world.clock.set(instant)
        assert _pay(world, granted.grant, "10.00")
        assert not _pay(world, granted.grant, "0.01")
    (before, spent_before), (after, spent_after) = _windows(world, granted)
    assert (after - before, spent_before, spent_after) == (1, 1000, 1000)
    world.clock.advance(seconds=119)  # as long as the tokens live, what they hold is held
    assert not _pay(world, granted.grant, "0.01")


def test_A60_what_a_window_gets_back_is_its_own(world: World) -> None:
    turn = world.clock.now() + timedelta(hours=1)
    granted = world.granted(
        limits=LIMITS | {"per_period": [{"amount": "10.00", "period": "PT1H"}]},
        not_before=_instant(turn - timedelta(hours=1)),
    )
    world.clock.set(turn - MICROSECOND)
    assert _pay(world, granted.grant, "10.00")
    world.clock.advance(seconds=60)
    assert _pay(world, granted.grant, "10.00")
    world.clock.advance(seconds=70)  # the first has expired, in the second window
    assert upkeep.tidy(world.services, world.clock.now()).reservations == 1
    assert _windows(world, granted) == [(0, 0), (1, 1000)]
    assert not _pay(world, granted.grant, "0.01")


@pytest.mark.parametrize(
    "instant",
    [
        "2016-12-31T23:59:60Z",
        "2027-02-29T00:00:00Z",
        "2027-03-28T02:30:00+01:00",
        "2027-03-28T00:00:00",
        "2027-03-28 00:00:00Z",
        "2027-03-28T24:00:00Z",
        "2027-03-28T00:00:00.0000001Z",
        "2027-W12-7T00:00:00Z",
        "20270328T000000Z",
        "٢٠٢٧-03-28T00:00:00Z",
        "2027-03-28T00:00:00z",
        1_806_192_000,
        None,
    ],
    ids=str,
)
@pytest.mark.parametrize("member", ["not_before", "expires"])
def test_A60_an_instant_is_in_utc_and_exists(shared_world: World, instant: object, member: str) -> None:
    before = sizes(shared_world)
    with pytest.raises(Refusal) as refusal:
        shared_world.granted(details=shared_world.delegation() | {member: instant})
    assert refusal.value.error == REFUSED
    assert sizes(shared_world) == before


@pytest.mark.parametrize(
    "period",
    ["PT0H", "P0D", "PT1M", "P1W", "P2M", "P2Y", "P1DT1H", "P", "PT", "P-1D", "P1.5D", "p1d", "P١D", 1],
)
def test_A60_a_period_that_is_none_is_not_granted(shared_world: World, period: object) -> None:
    _not_grantable(shared_world, limits=LIMITS | {"per_period": [{"amount": "10.00", "period": period}]})


# --- A61: text that deceives -----------------------------------------------------------------------------------------

DECEPTIONS = {
    "markup": "<b>Foods</b>",
    "script": "<script>alert(1)</script>",
    "right_to_left_override": "Foods\u202egnp.exe",
    "isolate": "\u2066Foods\u2069",
    "arabic_letter_mark": "Foods\u061c",
    "zero_width_space": "Fo\u200bods",
    "zero_width_joiner": "Fo\u200dods",
    "byte_order_mark": "\ufeffFoods",
    "soft_hyphen": "Fo\u00adods",
    "word_joiner": "Fo\u2060ods",
    "tag_characters": "Foods\U000e0041",
    "variation_selector": "Foods\ufe0f",
    "hangul_filler": "Foods\u3164",
    "braille_blank": "Foods\u2800",
    "line_end": "Foods\nPaid",
    "carriage_return": "Foods\rPaid",
    "line_separator": "Foods\u2028Paid",
    "tab": "Foods\tPaid",
    "escape": "Foods\x1b[31m",
    "bell": "Foods\x07",
    "c1_control": "Foods\x9b31m",
    "delete": "Foods\x7f",
    "private_use": "Foods\ue000",
    "unassigned": "Foods\u0378",
    "not_normalized": "Cafe\u0301",
    "ideographic_space": "Foods\u3000B.V.",
    "no_break_space": "Foods\u00a0B.V.",
    "space_before": " Foods",
    "space_after": "Foods ",
    "only_space": " ",
    "empty": "",
    "10_kilobytes": "F" * 10_240,
    "101_characters": "F" * 101,
}


@pytest.mark.parametrize("text", named(DECEPTIONS))
@pytest.mark.parametrize("member", ["name", "reference", "id"])
def test_A61_text_that_deceives_is_refused(
    shared_world: World, shared_grant: str, text: str, member: str
) -> None:
    if member == "reference":
        long = text if text != "F" * 101 else "F" * 129
        action, rule = shared_world.action(reference=long), "details.reference"
    else:
        action = shared_world.action(merchant=MERCHANT | {member: text})
        rule = f"details.merchant.{member}"
    _refused(shared_world, shared_grant, action, rule)


@pytest.mark.parametrize("name", ["right_to_left_override", "markup", "zero_width_space", "line_end"])
def test_A61_names_are_plain_on_every_database(either_world: World, name: str) -> None:
    action = either_world.action(merchant=MERCHANT | {"name": DECEPTIONS[name]})
    _refused(either_world, either_world.granted().grant, action, "details.merchant.name")


@pytest.mark.parametrize(
    "reference",
    ["-rf", "../../etc", "a b", "a'b", 'a"b', "a\\b", "a;b", "a,b", "a%b", "é", "=1+1", "@SUM(A1)"],
)
def test_A61_a_reference_is_plain_ascii(shared_world: World, shared_grant: str, reference: str) -> None:
    _refused(shared_world, shared_grant, shared_world.action(reference=reference), "details.reference")


@pytest.mark.parametrize("name", ["Café Ω", "Ромашка", "東京食品", "O'Brien & Sons", "=1+1", "50% off; --"])
def test_A61_honest_names_come_back_as_they_were(sqlite_world: World, name: str) -> None:
    action = sqlite_world.action(merchant=MERCHANT | {"name": name}, reference="cart-889")
    answer = sqlite_world.exchange(sqlite_world.granted().grant, action=action)
    assert answer.status_code == 200, answer.text
    token = sqlite_world.introspect(answer.json()["access_token"])
    assert token["authorization_details"] == [action]


# --- A62: absence is never `any` -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    ["payment.finalize", "subscription.renew", "payment_instrument.use", "refund.initiate"],
)
@pytest.mark.parametrize(
    "lacking",
    named(
        {
            "limits": {"limits": None},
            "currency": {"limits": {"per_action": "80.00", "total": "300.00"}},
            "per_action": {"limits": {"currency": "EUR", "total": "300.00"}},
            "total": {"limits": {"currency": "EUR", "per_action": "80.00"}},
            "merchants": {"merchants": None},
            "categories": {"merchants": {"countries": ["any"]}},
            "countries": {"merchants": {"categories": ["any"]}},
            "both": {"merchants": {"ids": ["m_123"]}},
            "locations": {"locations": None},
            "empty_categories": {"merchants": {"categories": [], "countries": ["any"]}},
            "empty_countries": {"merchants": {"categories": ["any"], "countries": []}},
            "empty_locations": {"locations": []},
        }
    ),
)
def test_A62_a_delegation_that_moves_money_says_every_bound(
    shared_world: World, action: str, lacking: dict[str, Any]
) -> None:
    _not_grantable(shared_world, actions=["catalog.search", action], **lacking)


@pytest.mark.parametrize("member", ["limits", "merchants"])
def test_A62_a_row_that_lacks_a_bound_moves_no_money(either_world: World, member: str) -> None:
    granted = either_world.granted()
    details = {name: value for name, value in granted.details.to_json().items() if name != member}
    change(either_world, Delegation, {"id": granted.grant_id}, details=json.dumps(details))
    _refused(either_world, granted.grant, either_world.action())


@pytest.mark.parametrize("member", ["amount", "merchant", "both"])
def test_A62_a_delegation_that_moves_no_money_says_nothing_about_it(either_world: World, member: str) -> None:
    granted = either_world.granted(actions=["catalog.search"], limits=None, merchants=None)
    said = {name: either_world.action()[name] for name in ("amount", "merchant") if member in (name, "both")}
    action = either_world.action(actions=["catalog.search"], amount=None, merchant=None) | said
    body = _refused(either_world, granted.grant, action)
    told = {violation["constraint"] for violation in body["violations"]}
    expected = {"amount": {"limits.per_action"}, "merchant": {"merchants.categories", "merchants.countries"}}
    assert told == (expected["amount"] | expected["merchant"] if member == "both" else expected[member])


@pytest.mark.parametrize("fact", ["category", "country"])
def test_A62_a_bounded_fact_that_nobody_states_is_refused(either_world: World, fact: str) -> None:
    merchant = {name: value for name, value in MERCHANT.items() if name != fact}
    body = _refused(either_world, either_world.granted().grant, either_world.action(merchant=merchant))
    member = {"category": "categories", "country": "countries"}[fact]
    assert [v["constraint"] for v in body["violations"]] == [f"merchants.{member}"]


def test_A62_bounds_by_id_need_the_id(sqlite_world: World) -> None:
    for bound in ({"ids": ["m_123"]}, {"except": {"ids": ["m_666"]}}):
        granted = sqlite_world.granted(merchants=MERCHANTS | bound)
        _refused(sqlite_world, granted.grant, sqlite_world.action(merchant=MERCHANT | {"id": "m_666"}))
        nameless = {name: value for name, value in MERCHANT.items() if name != "id"}
        _refused(sqlite_world, granted.grant, sqlite_world.action(merchant=nameless))
        assert sqlite_world.exchange(granted.grant).status_code == 200


def test_A62_any_is_taken_where_it_was_said(sqlite_world: World) -> None:
    granted = sqlite_world.granted(merchants={"categories": ["any"], "countries": ["any"]}, locations=["any"])
    action = sqlite_world.action(merchant={"category": "7995", "country": "US"})
    assert sqlite_world.exchange(granted.grant, action=action).status_code == 200
