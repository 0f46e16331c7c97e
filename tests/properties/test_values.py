"""What holds for every value, window and decision, not only for the examples."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

import pycountry
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authserver import strict_json
from authserver.policy.decide import Allowance, NeedsApproval, Permit, Refuse, Situation, Spent, decide
from authserver.policy.delegation_details import DelegationDetails, parse_delegation
from authserver.policy.details import ActionDetails, Merchant, parse_authorization_details
from authserver.policy.periods import Period, window_bounds, window_index
from authserver.values import (
    CategoryRange,
    Country,
    MerchantCategory,
    Money,
    NotAValue,
    ResourceIdentifier,
    parse_merchant_id,
    parse_name,
    parse_reference,
)
from tests.shipped import VOCABULARY

EXPONENTS = {"JPY": 0, "EUR": 2, "KWD": 3, "CLF": 4}
CATEGORIES = ["5411", "5812", "5813", "7995", "3000"]
COUNTRIES = ["NL", "FR", "NO", "US"]
DATATYPES = ["contact", "email", "phone", "shipping_address"]


# --- values -------------------------------------------------------------------------------------------------------

currencies = st.sampled_from(sorted(EXPONENTS))
near_amounts = st.from_regex(r"[ +-]?[0-9٣]{0,14}[.,_e]?[0-9]{0,5}\n?", fullmatch=True) | st.text(max_size=8)


@given(currencies, st.integers(1, 10**16))
def test_every_amount_reads_back_as_itself(currency: str, minor: int) -> None:
    money = Money(currency, minor)
    if minor < 10 ** (12 + EXPONENTS[currency]):
        assert Money.parse(currency, money.text) == money
        assert Decimal(money.text) == Decimal(minor).scaleb(-EXPONENTS[currency])
    else:
        with pytest.raises(NotAValue):
            Money.parse(currency, money.text)


@given(currencies, near_amounts)
@example("EUR", "01.00")
@example("EUR", "0.00")
@example("KWD", "1.0005")
def test_A50_A51_A52_nothing_else_is_an_amount(currency: str, text: str) -> None:
    if _is_amount(text, EXPONENTS[currency]):
        assert Decimal(Money.parse(currency, text).text) == Decimal(text)
    else:
        with pytest.raises(NotAValue):
            Money.parse(currency, text)


def _is_amount(text: str, exponent: int) -> bool:
    whole, point, fraction = text.partition(".")
    if not text.isascii() or not whole.isdigit() or (point and not fraction.isdigit()):
        return False
    try:
        value = Decimal(text)
    except InvalidOperation:
        return False
    return whole == str(int(whole)) and len(fraction) <= exponent and 0 < value < 10**12


parsers: list[tuple[Callable[[object], object], Callable[[object], str]]] = [
    (MerchantCategory.parse, lambda value: value.code),  # type: ignore[attr-defined]
    (CategoryRange.parse, lambda value: value.text),  # type: ignore[attr-defined]
    (Country.parse, lambda value: value.code),  # type: ignore[attr-defined]
    (Period.parse, lambda value: value.text),  # type: ignore[attr-defined]
    (ResourceIdentifier.parse, lambda value: value.text),  # type: ignore[attr-defined]
    (parse_name, str),
    (parse_reference, str),
    (parse_merchant_id, str),
]
near_values = (
    st.from_regex(r"[0-9]{3,5}(-[0-9]{3,5})?\s?", fullmatch=True)
    | st.from_regex(r"P(T?[0-9]{1,5}[DHMYW])\s?", fullmatch=True)
    | st.from_regex(r"https?://[a-zA-Z0-9.@:\[\]-]{1,12}(:[0-9]{1,5})?(/[a-z.%?#]{0,3}){0,3}", fullmatch=True)
    | st.from_regex(r"[A-Za-z]{1,3}", fullmatch=True)
    | st.text(max_size=20)
)


@pytest.mark.parametrize(("parse", "text"), parsers)
@given(unverified=near_values)
def test_what_is_read_prints_as_the_same_text(
    parse: Callable[[object], object], text: Callable[[object], str], unverified: str
) -> None:
    try:
        value = parse(unverified)
    except NotAValue:
        return
    assert text(value) == unverified
    assert parse(text(value)) == value


@pytest.mark.parametrize("parse", [parse for parse, _ in parsers])
@given(unverified=st.none() | st.booleans() | st.integers() | st.floats() | st.lists(st.text()) | st.binary())
def test_only_text_is_a_value(parse: Callable[[object], object], unverified: object) -> None:
    with pytest.raises(NotAValue):
        parse(unverified)


@given(st.text(max_size=4) | st.from_regex(r"[A-Z]{2}", fullmatch=True))
def test_A55_the_countries_are_those_of_the_standard(text: str) -> None:
    if text in {country.alpha_2 for country in pycountry.countries}:
        assert Country.parse(text).code == text
    else:
        with pytest.raises(NotAValue):
            Country.parse(text)


@given(st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 9999))
def test_ranges_are_sets_of_codes(a: int, b: int, c: int, d: int) -> None:
    one, other = CategoryRange(min(a, b), max(a, b)), CategoryRange(min(c, d), max(c, d))
    first, second = set(range(one.low, one.high + 1)), set(range(other.low, other.high + 1))
    assert one.covers(other) == (first >= second)
    assert one.overlaps(other) == bool(first & second)
    assert one.contains(MerchantCategory(f"{c:04}")) == (c in first)


# --- JSON ---------------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=5)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@given(documents, st.booleans())
def test_json_reads_back_as_itself(document: object, escaped: bool) -> None:
    text = json.dumps(document, ensure_ascii=escaped)
    assert strict_json.parse(text) == strict_json.parse(text.encode()) == document


@given(st.text() | st.binary())
def test_A08_any_text_is_read_or_refused_and_never_fails_otherwise(text: str | bytes) -> None:
    with suppress(strict_json.JsonRefused):
        strict_json.parse(text)


# --- windows ------------------------------------------------------------------------------------------------------

periods = st.sampled_from(["PT1H", "PT5H", "P1D", "P7D", "P30D", "P1M", "P1Y"]).map(Period.parse)
anchors = st.datetimes(datetime(2024, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
elapsed = st.timedeltas(timedelta(0), timedelta(days=4000))


@given(anchors, periods, elapsed)
@example(datetime(2028, 2, 29, tzinfo=UTC), Period.parse("P1Y"), timedelta(days=1461))
@example(datetime(2027, 1, 31, tzinfo=UTC), Period.parse("P1M"), timedelta(days=28))
def test_A60_every_instant_from_the_anchor_on_lies_in_exactly_one_window(
    anchor: datetime, period: Period, later: timedelta
) -> None:
    now = anchor + later
    index = window_index(anchor, period, now)
    assert index >= 0
    held = [
        near
        for near in range(index - 2, index + 3)
        for start, end in [window_bounds(anchor, period, near)]
        if start <= now < end
    ]
    assert held == [index]


@given(anchors, periods, st.integers(0, 120))
def test_A60_windows_follow_one_another_without_gap_or_overlap(
    anchor: datetime, period: Period, index: int
) -> None:
    assert window_bounds(anchor, period, 0)[0] == anchor
    start, end = window_bounds(anchor, period, index)
    assert start < end == window_bounds(anchor, period, index + 1)[0]
    assert (
        window_index(anchor, period, start)
        == window_index(anchor, period, end - timedelta.resolution)
        == index
    )


# --- decisions ----------------------------------------------------------------------------------------------------


# Delegations are wide and requests modest, so that many requests cross no limit, or just one.


def some(values: list[str], least: int = 1) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=least, unique=True)


def often(value: object, strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.just(value) | st.just(value) | st.just(value) | strategy


cents = st.integers(1, 9_000)
amounts = st.integers(5_000, 30_000).map(lambda minor: Money("EUR", minor).text)
ACTIONS = ["catalog.search", "order.checkout", "payment.finalize", "refund.initiate"]
PLACES = ["https://a.example", "https://b.example"]

rules = st.fixed_dictionaries(
    {"amount": amounts, "period": st.sampled_from(["P1D", "P7D", "P1M"])},
    optional={"categories": some(CATEGORIES)},
)
delegations = st.fixed_dictionaries(
    {
        "type": st.just("agent_delegation"),
        "actions": some(ACTIONS, least=3),
        "locations": often(["any"], some(PLACES)),
        "limits": st.fixed_dictionaries(
            {"currency": often("EUR", st.just("USD")), "per_action": amounts, "total": amounts},
            optional={
                "per_period": st.lists(
                    rules, min_size=1, max_size=3, unique_by=lambda rule: json.dumps(rule, sort_keys=True)
                ),
                "count": st.integers(1, 5),
            },
        ),
        "merchants": st.fixed_dictionaries(
            {
                "categories": often(["any"], some([*CATEGORIES[:1], "5811-5814", "7995"])),
                "countries": often(["any"], some([*COUNTRIES, "EU", "EEA"])),
            },
            optional={
                "ids": some(["m_1", "m_2"]),
                "except": st.fixed_dictionaries(
                    {"categories": some(CATEGORIES), "countries": some(COUNTRIES)}
                ),
            },
        ),
        "expires": st.just("2026-12-24T00:00:00Z"),
    },
    optional={
        "datatypes": often(["any"], some(DATATYPES)),
        "approval": st.fixed_dictionaries({"above": cents.map(lambda minor: Money("EUR", minor).text)}),
    },
).map(lambda details: parse_delegation(details, VOCABULARY))
merchants = st.builds(
    Merchant,
    id=often("m_1", st.sampled_from([None, "m_2", "m_3"])),
    category=often("5411", st.sampled_from([None, *CATEGORIES])).map(
        lambda code: code and MerchantCategory.parse(code)
    ),
    country=often("NL", st.sampled_from([None, *COUNTRIES])).map(lambda code: code and Country.parse(code)),
)
requests = st.builds(
    ActionDetails,
    action=st.sampled_from(ACTIONS),
    amount=st.builds(Money, st.just("EUR"), cents) | st.builds(Money, st.just("EUR"), cents) | st.none(),
    merchant=merchants | merchants | st.none(),
    datatypes=often((), some(DATATYPES).map(tuple)),
    reference=often("r-1", st.none()),
)


@st.composite
def allowances(draw: st.DrawFn) -> Allowance:
    details = draw(delegations)
    rules = details.limits.per_period if details.limits else ()
    used = st.integers(0, 8_000)
    return Allowance(details, Spent(draw(used), draw(st.integers(0, 3)), tuple(draw(used) for _ in rules)))


situations = st.builds(
    Situation,
    resource_server=st.sampled_from(PLACES),
    registered_merchant=often(None, merchants),
    agent_actions=often(None, some(ACTIONS).map(frozenset)),
)


def allows(allowance: Allowance, action: ActionDetails) -> bool:
    """The contract once more, in the plainest words: does this one delegation allow this one action?"""
    details, spent = allowance.details, allowance.spent
    limits, merchants = details.limits, details.merchants
    assert limits is not None
    assert merchants is not None
    checks = [
        action.action in details.actions,
        details.locations == ("any",) or action.location in details.locations,
    ]
    checks += [_covered(name, details) for name in action.datatypes]
    if action.amount is not None:
        minor = action.amount.minor
        checks += [action.amount.currency == limits.currency, minor <= limits.per_action.minor]
        if action.action in ("payment.finalize", "order.checkout"):
            checks += [spent.total + minor <= limits.total.minor]
            checks += [limits.count is None or spent.count + 1 <= limits.count]
            for rule, used in zip(limits.per_period, spent.periods, strict=True):
                checks += [used + minor <= rule.amount.minor or not _counts(rule.to_json(), action.merchant)]
    if action.merchant is not None:
        checks += _merchant_checks(json.loads(json.dumps(merchants.to_json())), action.merchant.to_json())
    return all(checks)


def _covered(name: str, details: DelegationDetails) -> bool:
    granted = details.datatypes or ()
    return name in granted or granted == ("any",) or (name in ("email", "phone") and "contact" in granted)


def _counts(rule: dict[str, object], merchant: Merchant | None) -> bool:
    said = merchant.to_json().get("category") if merchant else None
    return "categories" not in rule or said is None or said in rule["categories"]  # type: ignore[operator]


def _merchant_checks(bounds: dict[str, list[str]], merchant: dict[str, object]) -> list[bool]:
    eu, eea = {"NL", "FR"}, {"NL", "FR", "NO"}
    categories = {
        code for entry in bounds["categories"] for code in {"5811-5814": CATEGORIES[1:3]}.get(entry, [entry])
    }
    groups = {"EU": eu, "EEA": eea}
    countries = {code for entry in bounds["countries"] for code in groups.get(entry, {entry})}
    excluded: dict[str, list[str]] = bounds.get("except", {"categories": [], "countries": []})  # type: ignore[assignment]
    checks = ["any" in categories or merchant.get("category") in categories]
    checks += ["any" in countries or merchant.get("country") in countries]
    checks += ["ids" not in bounds or merchant.get("id") in bounds["ids"]]
    for fact, list_name in (("category", "categories"), ("country", "countries")):
        refused = excluded[list_name]
        checks += [not refused or (fact in merchant and merchant[fact] not in refused)]
    return checks


NEEDED = {
    "catalog.search": (),
    "order.checkout": ("amount", "merchant"),
    "payment.finalize": ("amount", "merchant"),
    "refund.initiate": ("amount", "merchant", "reference"),
}


def expected(chain: list[Allowance], request: ActionDetails, situation: Situation) -> bool:
    said, registered = request.merchant, situation.registered_merchant
    merchant = said
    if registered is not None and (said is not None or request.action != "catalog.search"):
        facts = {**(said.to_json() if said else {}), **registered.to_json()}
        merchant = Merchant.parse(facts) if facts else Merchant()
        if said is not None and any(facts[fact] != word for fact, word in said.to_json().items()):
            return False
    action = replace(request, merchant=merchant, location=situation.resource_server)
    return (
        all(getattr(action, need) for need in NEEDED[request.action])
        and (situation.agent_actions is None or request.action in situation.agent_actions)
        and all(allows(allowance, action) for allowance in chain)
    )


@settings(max_examples=500, deadline=None)
@given(st.lists(allowances(), min_size=1, max_size=3), requests, situations)
def test_nothing_is_allowed_that_any_single_limit_of_the_chain_forbids(
    chain: list[Allowance], request: ActionDetails, situation: Situation
) -> None:
    answer = decide(chain, request, situation, VOCABULARY)
    assert isinstance(answer, Refuse) != expected(chain, request, situation)
    if isinstance(answer, Refuse):
        constraints = [violation.constraint for violation in answer.violations]
        assert constraints
        assert len(set(constraints)) == len(constraints)
    if isinstance(answer, Permit):
        thresholds = [rule.above.minor for link in chain if (rule := link.details.approval) and rule.above]
        assert request.amount is None or all(request.amount.minor <= threshold for threshold in thresholds)


@settings(deadline=None)
@given(st.lists(allowances(), min_size=2, max_size=3), requests, situations)
def test_a_longer_chain_never_allows_more(
    chain: list[Allowance], request: ActionDetails, situation: Situation
) -> None:
    if not isinstance(decide(chain, request, situation, VOCABULARY), Refuse):
        assert all(
            isinstance(decide([link], request, situation, VOCABULARY), Permit | NeedsApproval)
            for link in chain
        )


@given(delegations)
def test_a_delegation_reads_back_as_itself(details: DelegationDetails) -> None:
    text = json.dumps(details.to_json())
    assert parse_delegation(strict_json.parse(text), VOCABULARY) == details


@given(requests)
def test_an_action_reads_back_as_itself(action: ActionDetails) -> None:
    if action.merchant != Merchant():
        assert parse_authorization_details(json.dumps([action.to_json()]), VOCABULARY) == action
