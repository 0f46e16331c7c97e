"""Authorization details (RFC 9396, contract §4): what is read, and what is refused."""

import json
from datetime import UTC, datetime

import pytest

from authserver.errors import Refusal
from authserver.policy.delegation_details import DelegationDetails, parse_delegation
from authserver.policy.details import ActionDetails, Merchant, action_from_scope, parse_authorization_details
from authserver.policy.reading import ANY
from authserver.values import EVERY_CATEGORY, Country, MerchantCategory, Money, NotAValue
from tests.shipped import ACTION, DELEGATION, LEFT_OUT, VOCABULARY, changed


def read_action(text: str) -> ActionDetails:
    return parse_authorization_details(text, VOCABULARY)


def action(changes: dict[str, object]) -> str:
    return json.dumps([changed(ACTION, changes)], ensure_ascii=False)


def delegation(**changes: object) -> DelegationDetails:
    paths = {path.replace("__", "."): value for path, value in changes.items()}
    return parse_delegation(changed(DELEGATION, paths), VOCABULARY)


def refused_action(text: str, error: str = "invalid_authorization_details") -> Refusal:
    with pytest.raises(Refusal) as refused:
        read_action(text)
    return fit_to_send(refused.value, error)


def refused_delegation(changes: dict[str, object]) -> Refusal:
    with pytest.raises(Refusal) as refused:
        parse_delegation(changed(DELEGATION, changes), VOCABULARY)
    return fit_to_send(refused.value, "invalid_authorization_details")


def fit_to_send(refusal: Refusal, error: str) -> Refusal:
    assert refusal.error == error
    assert refusal.description.isascii()  # RFC 6749 §5.2
    assert not set(refusal.description) & {'"', "\\"}
    assert refusal.rule
    return refusal


# --- what an agent asks for ---------------------------------------------------------------------------------------


def test_the_action_of_the_contract_is_read_and_written_back_word_for_word() -> None:
    details = read_action(f"[{ACTION}]")
    assert details == ActionDetails(
        action="payment.finalize",
        location="https://shop.example/api",
        amount=Money("EUR", 4250),
        merchant=Merchant("m_123", MerchantCategory("5411"), Country("NL"), "Example Foods"),
        datatypes=("shipping_address",),
        reference="cart-889",
    )
    assert json.dumps(details.to_json()) == json.dumps(json.loads(ACTION))


def test_members_that_were_not_said_are_not_written() -> None:
    text = '[{"type": "agent_action", "actions": ["catalog.search"]}]'
    assert read_action(text) == ActionDetails("catalog.search")
    assert [read_action(text).to_json()] == json.loads(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ACTION, "authorization_details must be an array of exactly one object"),
        (f"[{ACTION}, {ACTION}]", "exactly one object"),
        ("[]", "exactly one object"),
        ("[null]", "must be a JSON object"),
        ("[[]]", "must be a JSON object"),
        ('"[]"', "exactly one object"),
        ("", "authorization_details is not JSON"),
        ("[{}", "is not JSON"),
        ("[{}]", "type is required"),
        ("[" * 100 + "]" * 100, "nested too deeply"),
        ("[" + " " * 17 * 1024 + "]", "too long"),
        (
            ACTION.replace('"reference"', '"type": "agent_action", "reference"').join("[]"),
            "has a member twice",
        ),
        (ACTION.replace('"EUR"', '"EUR", "currency": "USD"').join("[]"), "has a member twice"),
        (ACTION.replace("cart-889", "cart\\u0000").join("[]"), "not text"),
    ],
)
def test_A57_details_of_another_shape_are_refused(text: str, says: str) -> None:
    assert says in refused_action(text).description


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "agent_delegation"}, "type must be agent_action"),
        ({"type": "payment_initiation"}, "type must be agent_action"),
        ({"type": None}, "type must be agent_action"),
        ({"type": LEFT_OUT}, "type is required"),
        ({"actions": LEFT_OUT}, "actions is required"),
        ({"actions": []}, "actions must be an array with one entry"),
        ({"actions": ["catalog.search", "payment.finalize"]}, "actions must be an array with one entry"),
        ({"actions": "payment.finalize"}, "actions must be an array with one entry"),
        ({"actions": {"payment.finalize": 1}}, "actions must be an array with one entry"),
        ({"actions": ["payment.all"]}, "actions must be actions that this server knows"),
        ({"actions": [["payment.finalize"]]}, "actions must be actions that this server knows"),
        ({"actions": ["any"]}, "actions must be actions that this server knows"),
        ({"privileges": ["admin"]}, "unknown member"),
        ({"__proto__": {"actions": ["payment.finalize"]}}, "unknown member"),
        ({"amount.exponent": 2}, "amount has an unknown member"),
        ({"merchant.constructor": 1}, "merchant has an unknown member"),
        ({"amount": None}, "amount must be a JSON object"),
        ({"amount": "42.50"}, "amount must be a JSON object"),
        ({"amount": {"currency": "EUR"}}, "amount.value is required"),
        ({"merchant": None}, "merchant must be a JSON object"),
        ({"merchant": {}}, "merchant must have one of"),
        ({"merchant.name": None}, "merchant.name must be a name"),
        ({"datatypes": None}, "datatypes must be an array"),
        ({"datatypes": []}, "datatypes must be an array with an entry in it"),
        ({"datatypes": "email"}, "datatypes must be an array"),
        ({"datatypes": ["email", "email"]}, "datatypes has an entry twice"),
        ({"datatypes": ["password"]}, "datatypes must be data types that this server knows"),
        ({"datatypes": ["any"]}, "datatypes must be data types that this server knows"),
        ({"reference": None}, "reference must be"),
        ({"reference": 889}, "reference must be"),
    ],
)
def test_A57_a_member_that_is_wrong_is_refused_by_name(changes: dict[str, object], says: str) -> None:
    assert says in refused_action(action(changes)).description


@pytest.mark.parametrize(
    "value", [42.5, 42, "1e2", "+1", ".5", "1.", "01.00", " 1", "1,00", "٣.٠٠", "NaN", "-1", "0.00"]
)
def test_A50_an_amount_in_another_spelling_is_refused(value: object) -> None:
    assert "amount" in refused_action(action({"amount.value": value})).description


@pytest.mark.parametrize(
    "amount", [("JPY", "1.00"), ("EUR", "1.005"), ("BHD", "1.0005"), ("EUR", "1000000000000")]
)
def test_A51_A52_an_amount_that_its_currency_cannot_hold_is_refused(amount: tuple[str, str]) -> None:
    currency, value = amount
    assert "amount" in refused_action(action({"amount": {"currency": currency, "value": value}})).description


@pytest.mark.parametrize("currency", ["eur", "XXX", "XTS", "DEM", "XAU", 978, None])
def test_A53_a_currency_that_is_none_is_refused(currency: object) -> None:
    assert "ISO 4217" in refused_action(action({"amount.currency": currency})).description


@pytest.mark.parametrize("category", ["5411 ", "541", "05411", "5411-5412", 5411, "5410", None])
def test_A54_a_category_that_is_none_is_refused(category: object) -> None:
    assert "merchant.category must be" in refused_action(action({"merchant.category": category})).description


@pytest.mark.parametrize("country", ["nl", "NLD", "UK", "EU", "XX", "N\u200bL", None])
def test_A55_a_country_that_is_none_is_refused(country: object) -> None:
    assert "merchant.country must be" in refused_action(action({"merchant.country": country})).description


@pytest.mark.parametrize("text", ["<b>Shop</b>", "Shop\u202egnp", "Sh\u200bop", "Sh\nop", "x" * 10_240])
def test_A61_text_that_could_deceive_is_refused(text: str) -> None:
    assert "merchant.name" in refused_action(action({"merchant.name": text})).description
    assert "reference" in refused_action(action({"reference": text})).description


@pytest.mark.parametrize(
    "locations",
    [
        ["https://shop.example/api", "https://pay.example/api"],
        ["https://shop.example/api#x"],
        ["https://shop.example:443/api"],
        ["https://SHOP.example/api"],
        ["any"],
        [5],
        [None],
        [["https://shop.example/api"]],
    ],
)
def test_A25_A26_two_places_or_a_look_alike_are_an_invalid_target(locations: list[object]) -> None:
    refused_action(action({"locations": locations}), "invalid_target")


@pytest.mark.parametrize("locations", [[], None, "https://shop.example/api", {}])
def test_A57_locations_of_another_shape_are_refused(locations: object) -> None:
    refused_action(action({"locations": locations}))


@pytest.mark.parametrize(
    "changes", [{"attack": 1}, {"reference": "<attack>"}, {"actions": ["attack"]}, {"merchant.attack": 1}]
)
def test_what_was_sent_is_never_repeated_in_an_error(changes: dict[str, object]) -> None:
    assert "attack" not in refused_action(action(changes)).description


# --- by scope -----------------------------------------------------------------------------------------------------


def test_a_scope_names_an_action_that_needs_no_details() -> None:
    assert action_from_scope("catalog.search", VOCABULARY) == ActionDetails("catalog.search")


@pytest.mark.parametrize(
    "scope",
    [
        *("payment.finalize", "order.checkout", "profile.read", "order.change_address", "refund.initiate"),
        *("catalog.search cart.update", "catalog.search catalog.search", " catalog.search", "", "openid"),
        *("Catalog.search", "any"),
    ],
)
def test_A29_any_other_scope_is_refused(scope: str) -> None:
    with pytest.raises(Refusal) as refused:
        action_from_scope(scope, VOCABULARY)
    fit_to_send(refused.value, "invalid_scope")


# --- merchants ----------------------------------------------------------------------------------------------------


def test_registered_facts_are_read_as_an_agents_are() -> None:
    facts = {"id": "m_123", "category": "5411", "country": "NL", "name": "Example Foods"}
    assert Merchant.parse(facts).to_json() == facts
    assert Merchant.parse({"category": "5411"}).to_json() == {"category": "5411"}
    with pytest.raises(NotAValue, match="country must be an ISO 3166-1 country"):
        Merchant.parse({"country": "EU"})


# --- what a user consents to --------------------------------------------------------------------------------------


def test_the_delegation_of_the_contract_is_read_and_written_back_word_for_word() -> None:
    details = delegation()
    assert json.dumps(details.to_json()) == json.dumps(json.loads(DELEGATION))
    assert details.limits is not None
    assert details.limits.total == Money("EUR", 30_000)
    assert details.limits.per_period[1].period.hours == 24
    assert details.merchants is not None
    assert details.merchants.excluded is not None
    assert details.merchants.excluded.countries == ()
    assert details.redelegation_depth == 1
    assert details.expires == datetime(2026, 12, 24, tzinfo=UTC)


def test_the_least_that_can_be_delegated() -> None:
    text = {
        "type": "agent_delegation",
        "actions": ["catalog.search"],
        "locations": ["any"],
        "expires": "2026-12-24T00:00:00Z",
    }
    details = parse_delegation(text, VOCABULARY)
    assert details.to_json() == text
    assert details.locations == ANY
    unsaid = (details.limits, details.merchants, details.datatypes, details.approval, details.not_before)
    assert set(unsaid) == {None}
    assert details.redelegation_depth == 0


def test_any_is_said_by_the_word_alone() -> None:
    details = delegation(
        merchants={"categories": ["any"], "countries": ["any"]}, datatypes=["any"], locations=["any"]
    )
    assert details.merchants is not None
    assert details.merchants.categories == (EVERY_CATEGORY,)
    assert details.merchants.countries == details.datatypes == details.locations == ANY
    assert parse_delegation(details.to_json(), VOCABULARY) == details
    for member in ("merchants.categories", "merchants.countries", "datatypes", "locations"):
        allowed = changed(DELEGATION, {})
        for part in member.split("."):
            allowed = allowed[part]  # type: ignore[assignment]
        assert f"{member} must be" in refused_delegation({member: [*allowed, "any"]}).description


def test_amounts_and_times_are_written_in_one_way() -> None:
    details = delegation(
        limits={"currency": "EUR", "per_action": "80", "total": "300.5"}, expires="2026-12-24T00:00:00.5Z"
    )
    written = details.to_json()
    assert written["limits"] == {"currency": "EUR", "per_action": "80.00", "total": "300.50"}
    assert written["expires"] == "2026-12-24T00:00:00.500000Z"
    assert parse_delegation(written, VOCABULARY) == details


@pytest.mark.parametrize(
    ("approval", "written"),
    [
        ({"above": "50.00"}, {"above": "50.00"}),
        ({"actions": []}, {"actions": []}),
        ({"above": "50", "actions": []}, {"above": "50.00"}),
    ],
)
def test_an_approval_rule_is_read_back_the_same(approval: object, written: object) -> None:
    details = delegation(approval=approval)
    assert details.to_json()["approval"] == written
    assert parse_delegation(details.to_json(), VOCABULARY) == details


@pytest.mark.parametrize(
    "action", ["payment.finalize", "subscription.renew", "payment_instrument.use", "refund.initiate"]
)
@pytest.mark.parametrize("member", ["limits", "merchants", "merchants.categories", "merchants.countries"])
def test_A62_an_action_that_moves_money_needs_limits_categories_and_countries(
    action: str, member: str
) -> None:
    changes: dict[str, object] = {
        "actions": ["catalog.search", action],
        member: LEFT_OUT,
        "approval": LEFT_OUT,
    }
    assert f"{member} is required" in refused_delegation(changes).description


@pytest.mark.parametrize("action", ["profile.read", "personal_data.export"])
def test_A58_an_action_that_exposes_data_needs_data_types(action: str) -> None:
    assert (
        "datatypes is required"
        in refused_delegation({"actions": [action], "datatypes": LEFT_OUT}).description
    )
    assert (
        "datatypes must be an array" in refused_delegation({"actions": [action], "datatypes": []}).description
    )


@pytest.mark.parametrize(
    "member",
    ["type", "actions", "locations", "expires", "limits.currency", "limits.per_action", "limits.total"],
)
def test_a_member_that_is_always_needed_is_named_when_it_is_missing(member: str) -> None:
    assert f"{member} is required" in refused_delegation({member: LEFT_OUT}).description


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "agent_action"}, "type must be agent_delegation"),
        ({"actions": []}, "actions must be an array with an entry"),
        ({"actions": ["any"]}, "actions must be actions that this server knows"),
        ({"actions": ["catalog.search", "catalog.search"]}, "actions has an entry twice"),
        ({"actions": ["payment.all"]}, "actions must be actions that this server knows"),
        ({"locations": []}, "locations must be an array"),
        (
            {"locations": ["https://shop.example/api", "https://shop.example/api"]},
            "locations has an entry twice",
        ),
        ({"locations": ["https://shop.example/api?x"]}, "locations must be an https URI"),
        ({"locations": [1]}, "locations must be identifiers"),
        ({"limits": None}, "limits must be a JSON object"),
        ({"limits": []}, "limits must be a JSON object"),
        ({"limits.currency": "eur"}, "limits.currency must be a current ISO 4217"),
        ({"limits.per_action": 80}, "limits.per_action must be a string"),
        ({"limits.per_action": "any"}, "limits.per_action must be a string"),
        ({"limits.total": "0.00"}, "limits.total must be more than zero"),
        ({"limits.total": None}, "limits.total must be a string"),
        ({"limits.daily": "5.00"}, "limits has an unknown member"),
        ({"limits.count": 0}, "limits.count must be a whole number"),
        ({"limits.count": 10**18}, "limits.count must be a whole number"),
        ({"limits.count": True}, "limits.count must be a whole number"),
        ({"limits.count": 2.0}, "limits.count must be a whole number"),
        ({"limits.count": "20"}, "limits.count must be a whole number"),
        ({"limits.per_period": []}, "limits.per_period must be an array"),
        (
            {"limits.per_period": [{"amount": "1", "period": f"P{n}D"} for n in range(1, 10)]},
            "limits.per_period must",
        ),
        (
            {"limits.per_period": [{"amount": "1", "period": "P1D"}] * 2},
            "limits.per_period has an entry twice",
        ),
        ({"limits.per_period": [{"amount": "1"}]}, "limits.per_period.period is required"),
        (
            {"limits.per_period": [{"amount": "1", "period": "P1W"}]},
            "limits.per_period.period must be a period",
        ),
        (
            {"limits.per_period": [{"amount": "1", "period": "P1D", "categories": ["any"]}]},
            "limits.per_period.categories must be",
        ),
        (
            {"limits.per_period": [{"amount": "1", "period": "P1D", "categories": ["5411"], "ids": ["m_1"]}]},
            "categories or ids, not both",
        ),
        ({"merchants": {}}, "merchants.categories is required"),
        ({"merchants.categories": []}, "merchants.categories must be an array"),
        ({"merchants.categories": "any"}, "merchants.categories must be an array"),
        ({"merchants.categories": ["5814-5811"]}, "merchants.categories must be"),
        ({"merchants.categories": ["5410"]}, "merchants.categories must be"),
        ({"merchants.categories": ["5811-5814", "5813"]}, "merchants.categories has ranges that overlap"),
        (
            {"merchants.categories": ["5812-5900", "5411", "5811-5812"]},
            "merchants.categories has ranges that overlap",
        ),
        ({"merchants.categories": ["5411", "5411"]}, "merchants.categories has an entry twice"),
        ({"merchants.countries": []}, "merchants.countries must be an array"),
        ({"merchants.countries": ["eu"]}, "merchants.countries must be an ISO 3166-1"),
        ({"merchants.countries": ["NL", "NL"]}, "merchants.countries has an entry twice"),
        ({"merchants.ids": []}, "merchants.ids must be an array"),
        ({"merchants.ids": ["any"]}, "merchants.ids must be"),
        ({"merchants.except": {}}, "merchants.except must have one of"),
        ({"merchants.except.categories": ["any"]}, "merchants.except.categories must be"),
        ({"merchants.except.countries": ["any"]}, "merchants.except.countries must be"),
        ({"merchants.except.names": []}, "merchants.except has an unknown member"),
        ({"datatypes": []}, "datatypes must be an array"),
        ({"datatypes": ["password"]}, "datatypes must be data types"),
        ({"approval": {}}, "approval must have above or actions"),
        ({"approval": None}, "approval must be a JSON object"),
        ({"approval.above": 50}, "approval.above must be a string"),
        ({"approval.actions": ["payment.all"]}, "approval.actions must be actions"),
        ({"redelegation": 1}, "redelegation must be a JSON object"),
        ({"redelegation": {}}, "redelegation.depth is required"),
        ({"redelegation.depth": -1}, "redelegation.depth must be a whole number"),
        ({"redelegation.depth": True}, "redelegation.depth must be a whole number"),
        ({"redelegation.depth": 11}, "redelegation.depth must be a whole number"),
        ({"task": "x"}, "unknown member"),
        ({"__proto__": {}}, "unknown member"),
    ],
)
def test_A54_A57_a_member_of_a_delegation_that_is_wrong_is_refused_by_name(
    changes: dict[str, object], says: str
) -> None:
    assert says in refused_delegation(changes).description


@pytest.mark.parametrize(
    "time",
    [
        *("2026-12-24", "2026-12-24T00:00:00", "2026-12-24T00:00:00+01:00", "2026-12-24T00:00:00-00:00"),
        *("2026-12-24 00:00:00Z", "2026-12-24t00:00:00z", "20261224T000000Z", "2026-12-24T00:00:00.1234567Z"),
        *("2026-02-30T00:00:00Z", "2026-12-24T25:00:00Z", "2026-12-24T23:59:60Z", "٢٠٢٦-12-24T00:00:00Z"),
        *("any", "", 1_798_000_000, None),
    ],
    ids=repr,
)
def test_a_time_is_rfc_3339_in_utc(time: object) -> None:
    assert "expires must be an RFC 3339 time" in refused_delegation({"expires": time}).description
    assert "not_before must be an RFC 3339 time" in refused_delegation({"not_before": time}).description


def test_a_delegation_ends_after_it_begins() -> None:
    assert "expires must be later" in refused_delegation({"not_before": "2026-12-24T00:00:00Z"}).description


def test_an_approval_above_an_amount_takes_its_currency_from_the_limits() -> None:
    changes: dict[str, object] = {"actions": ["catalog.search"], "limits": LEFT_OUT}
    assert "approval.above takes its currency from limits" in refused_delegation(changes).description


@pytest.mark.parametrize("unverified", [None, [], "agent_delegation", 1, [{}]])
def test_a_delegation_is_one_object(unverified: object) -> None:
    with pytest.raises(Refusal) as refused:
        parse_delegation(unverified, VOCABULARY)
    assert "must be a JSON object" in refused.value.description


def test_a_rule_counts_for_its_categories_its_merchants_or_everything() -> None:
    limits = delegation(
        limits__per_period=[
            {"amount": "10.00", "period": "P1D"},
            {"amount": "10.00", "period": "P1D", "categories": ["5811-5814"]},
            {"amount": "10.00", "period": "P1D", "ids": ["m_1"]},
        ]
    ).limits
    assert limits is not None
    everything, eating, one = limits.per_period
    bar = Merchant(id="m_1", category=MerchantCategory("5813"))
    grocer = Merchant(id="m_2", category=MerchantCategory("5411"))
    assert [rule.applies_to(bar) for rule in (everything, eating, one)] == [True, True, True]
    assert [rule.applies_to(grocer) for rule in (everything, eating, one)] == [True, False, False]


def test_a_rule_counts_where_nobody_stated_the_fact_that_it_asks_for() -> None:
    limits = delegation().limits
    assert limits is not None
    assert limits.per_period[1].applies_to(Merchant(id="m_1"))
    assert limits.per_period[1].applies_to(None)
