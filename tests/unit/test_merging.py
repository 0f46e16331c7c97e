"""A merge of what stands and what is asked for: more of both, and no bound lost (FAPI Grant Management)."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver import strict_json
from authserver.errors import Refusal
from authserver.policy.delegation_details import DelegationDetails, parse_delegation
from authserver.policy.merging import merged
from tests.shipped import VOCABULARY

DAY, WEEK = {"amount": "40.00", "period": "P1D"}, {"amount": "150.00", "period": "P7D"}


def delegation(**changes: Any) -> DelegationDetails:
    """Details; None takes a member away."""
    details: dict[str, Any] = {
        "type": "agent_delegation",
        "actions": ["payment.finalize"],
        "locations": ["https://shop.example/api"],
        "limits": {"currency": "EUR", "per_action": "80.00", "total": "300.00"},
        "merchants": {"categories": ["5411"], "countries": ["NL"]},
        "expires": "2026-12-24T00:00:00Z",
    }
    said = {name: value for name, value in (details | changes).items() if value is not None}
    return parse_delegation(strict_json.parse(json.dumps(said)), VOCABULARY)


def limits(**changes: Any) -> dict[str, Any]:
    """Limits in euros."""
    return {"currency": "EUR", "per_action": "80.00", "total": "300.00"} | changes


@pytest.mark.parametrize(
    ("standing", "asked", "expected"),
    [
        ({"limits": limits(per_period=[DAY])}, {}, {"limits": limits(per_period=[DAY])}),
        ({}, {"limits": limits(per_period=[DAY])}, {"limits": limits()}),
        (
            {"limits": limits(per_period=[DAY, WEEK])},
            {"limits": limits(per_period=[DAY | {"amount": "60.00"}], per_action="10.00")},
            {"limits": limits(per_period=[DAY | {"amount": "60.00"}, WEEK])},
        ),
        ({"limits": limits(count=5)}, {"limits": limits(count=9)}, {"limits": limits(count=9)}),
        ({"limits": limits(count=5)}, {}, {"limits": limits(count=5)}),
        ({}, {"limits": limits(count=9)}, {"limits": limits()}),
        ({"locations": ["any"]}, {}, {"locations": ["any"]}),
        ({"datatypes": ["email"]}, {"datatypes": ["any"]}, {"datatypes": ["any"]}),
        ({"datatypes": ["email"]}, {}, {"datatypes": ["email"]}),
        ({"approval": {"above": "5.00"}}, {}, {"approval": {"above": "5.00"}}),
        ({}, {"approval": {"above": "5.00"}}, {}),
        ({}, {"redelegation": {"depth": 2}}, {"redelegation": {"depth": 2}}),
        ({}, {"expires": "2027-01-01T00:00:00Z"}, {"expires": "2027-01-01T00:00:00Z"}),
        ({"expires": "2027-01-01T00:00:00Z"}, {}, {"expires": "2027-01-01T00:00:00Z"}),
    ],
)
def test_more_of_both_and_no_bound_lost(
    standing: dict[str, Any], asked: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert merged(delegation(**standing), delegation(**asked)) == delegation(**expected)


@pytest.mark.parametrize(
    ("standing", "asked", "expected"),
    [
        (["5411"], ["5411"], ["5411"]),
        (["5811-5814"], ["5411"], ["5411", "5811-5814"]),
        (["5811-5814"], ["5812-5999"], ["5811-5999"]),
        (["5411", "5499"], ["5400-5500"], ["5400-5500"]),
        (["any"], ["5411"], ["any"]),
        (["5411"], ["any"], ["any"]),
    ],
)
def test_kinds_of_shops_are_united_without_overlap(
    standing: list[str], asked: list[str], expected: list[str]
) -> None:
    def shops(categories: list[str]) -> dict[str, Any]:
        return {"categories": categories, "countries": ["NL"]}

    both = merged(delegation(merchants=shops(standing)), delegation(merchants=shops(asked)))
    assert both == delegation(merchants=shops(expected))


def test_an_exclusion_stays_and_named_shops_become_more() -> None:
    never = {"categories": ["5813"], "countries": [], "ids": []}
    standing = {"categories": ["5411"], "countries": ["NL"], "ids": ["m_1"], "except": never}
    asked = {"categories": ["5411"], "countries": ["BE"], "ids": ["m_2"]}
    both = merged(delegation(merchants=standing), delegation(merchants=asked))
    together = {"categories": ["5411"], "countries": ["NL", "BE"], "ids": ["m_1", "m_2"], "except": never}
    assert both == delegation(merchants=together)


def test_two_currencies_do_not_merge() -> None:
    with pytest.raises(Refusal) as refused:
        merged(delegation(), delegation(limits=limits(currency="USD")))
    assert refused.value.error == "invalid_authorization_details"


AMOUNTS = st.integers(1, 99_999).map(lambda cents: f"{cents // 100}.{cents % 100:02}")
CODES = st.lists(
    st.sampled_from(["5411", "5451", "5811-5814", "5812", "5400-5500", "7011"]), min_size=1, max_size=1
)
SOME = st.builds(
    lambda each, total, codes, country: delegation(
        limits=limits(per_action=each, total=total), merchants={"categories": codes, "countries": country}
    ),
    AMOUNTS,
    AMOUNTS,
    CODES,
    st.lists(st.sampled_from(["NL", "BE", "EU"]), min_size=1, max_size=3, unique=True),
)


@settings(max_examples=100, deadline=None)
@given(SOME, SOME)
def test_what_is_merged_can_be_read_again_and_merging_once_more_adds_nothing(
    one: DelegationDetails, other: DelegationDetails
) -> None:
    both = merged(one, other)
    assert parse_delegation(both.to_json(), VOCABULARY) == both
    assert merged(both, other) == both
    assert merged(both, one) == both
