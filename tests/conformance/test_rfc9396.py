"""Rich Authorization Requests (RFC 9396): the `authorization_details` of the exchange, one `agent_action`."""

import json
from typing import Any

import pytest

from tests.conformance.tokens import claims_of, verified
from tests.world import MARKET, MERCHANT, SHOP, World

NESTED_DEEPLY = "[" * 5_000 + "]" * 5_000


def ask(world: World, grant: str, details: object) -> Any:
    """An exchange with this very parameter: JSON, or a text that is none."""
    text = details if isinstance(details, str) else json.dumps(details)
    return world.exchange(grant, authorization_details=text)


def refuse(world: World, grant: str, details: object) -> dict[str, Any]:
    """Hold the server to refusing it, without a trace; gives the answer's body."""
    with world.nothing_happens():
        return world.refuses(ask(world, grant, details), "invalid_authorization_details")


# --- §2: the parameter --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "null",
        "true",
        "1",
        '"agent_action"',
        "[]",
        "[[]]",
        "[null]",
        '["agent_action"]',
        "x",
        NESTED_DEEPLY,
    ],
    ids=lambda text: text[:20],
)
def test_the_parameter_is_an_array_of_one_object(shared_world: World, shared_grant: str, text: str) -> None:
    """§2: a JSON array of objects; contract §4: exactly one."""
    refuse(shared_world, shared_grant, text)


def test_an_object_alone_and_two_objects_are_refused(shared_world: World, shared_grant: str) -> None:
    """§2, contract §4."""
    refuse(shared_world, shared_grant, shared_world.action())
    refuse(shared_world, shared_grant, [shared_world.action(), shared_world.action()])


def test_details_larger_than_16_kib_are_refused(shared_world: World, shared_grant: str) -> None:
    """Contract §4: a bound that RFC 9396 leaves to the server."""
    fits = json.dumps([shared_world.action()])
    assert ask(shared_world, shared_grant, fits + " " * (16_384 - len(fits))).status_code == 200
    refuse(shared_world, shared_grant, fits + " " * (16_385 - len(fits)))


def test_a_member_that_is_there_twice_is_refused(shared_world: World, shared_grant: str) -> None:
    """§2 and RFC 8259 §4: no two readers may disagree about what was asked for."""
    text = json.dumps([shared_world.action()]).replace('"42.50"', '"42.50", "value": "1.00"')
    refuse(shared_world, shared_grant, text)


@pytest.mark.parametrize("both", [True, False], ids=["both", "neither"])
def test_either_details_or_a_scope_is_asked_for(shared_world: World, shared_grant: str, both: bool) -> None:
    """§3.1 lets both be there; contract §6 takes one."""
    changes = {"scope": "catalog.search"} if both else {"authorization_details": None}
    with shared_world.nothing_happens("form.details_or_scope"):
        shared_world.refuses(shared_world.exchange(shared_grant, **changes), "invalid_request")


# --- §5 and §8: what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [None, "", "agent_delegation", "Agent_Action", "payment", 1, ["agent_action"]], ids=str
)
def test_an_unknown_type_is_refused(shared_world: World, shared_grant: str, kind: object) -> None:
    """§2.1 and §5: `type` is required, and the server knows no other here."""
    details = shared_world.action()
    del details["type"]
    body = refuse(shared_world, shared_grant, [details if kind is None else details | {"type": kind}])
    assert "type" in body["error_description"]


@pytest.mark.parametrize(
    "unknown",
    [
        {"unheard_of": 1},
        {"identifier": "account-1"},  # §2.2: a common member, but not of this type
        {"privileges": ["admin"]},
        {"Amount": {"currency": "EUR", "value": "1.00"}},
        {"amount": {"currency": "EUR", "value": "1.00", "max": "2.00"}},
        {"merchant": MERCHANT | {"url": "https://shop.example"}},
        {"limits": {"currency": "EUR"}},
    ],
    ids=str,
)
def test_an_unknown_member_is_refused(
    shared_world: World, shared_grant: str, unknown: dict[str, object]
) -> None:
    """§5: fields that the type does not define, at any level."""
    refuse(shared_world, shared_grant, [shared_world.action(**unknown)])


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("actions", "payment.finalize"),
        ("actions", []),
        ("actions", ["payment.finalize", "order.checkout"]),
        ("actions", ["unheard.of"]),
        ("actions", [None]),
        ("amount", "42.50"),
        ("amount", {"currency": "EUR", "value": 42.5}),
        ("amount", {"currency": "EUR"}),
        ("amount", {"value": "42.50"}),
        ("amount", {"currency": "EUR", "value": "42.505"}),
        ("amount", {"currency": "eur", "value": "42.50"}),
        ("amount", None),
        ("merchant", "m_123"),
        ("merchant", {}),
        ("merchant", MERCHANT | {"category": "541"}),
        ("merchant", MERCHANT | {"category": 5411}),
        ("merchant", MERCHANT | {"country": "EU"}),
        ("merchant", MERCHANT | {"country": "nl"}),
        ("datatypes", "shipping_address"),
        ("datatypes", []),
        ("datatypes", ["unheard_of"]),
        ("reference", 889),
        ("reference", "cart 889"),
        ("locations", []),
        ("locations", MARKET),
    ],
    ids=str,
)
def test_a_member_of_the_wrong_type_or_value_is_refused(
    shared_world: World, shared_grant: str, member: str, value: object
) -> None:
    """§5: fields of the wrong type or with invalid values; the description names the member."""
    body = refuse(shared_world, shared_grant, [shared_world.action() | {member: value}])
    assert member in body["error_description"]


@pytest.mark.parametrize("member", ["actions", "amount", "merchant"])
def test_a_member_that_the_action_needs_is_required(
    shared_world: World, shared_grant: str, member: str
) -> None:
    """§5: missing required fields."""
    refuse(shared_world, shared_grant, [shared_world.action(**{member: None})])


# --- §7, §9: what was granted -------------------------------------------------------------------------------


def test_the_answer_tells_the_details_as_granted(world: World) -> None:
    """§7 and §7.1: what the server filled in is told, so that the agent knows what it got."""
    asked = world.action(locations=[SHOP], merchant=None)
    body = world.exchange(world.granted().grant, action=asked).json()
    assert body["authorization_details"] == [world.action(locations=[SHOP], merchant=MERCHANT)]


def test_the_token_carries_the_details_as_granted(shared_world: World) -> None:
    """§9.1: the claim of the same name, on the top level."""
    body = shared_world.exchange(
        shared_world.granted().grant, action=shared_world.action(reference="cart-889")
    ).json()
    claims = verified(shared_world, body["access_token"])
    assert claims["authorization_details"] == body["authorization_details"]
    assert claims["authorization_details"] == [shared_world.action(reference="cart-889")]


def test_introspection_tells_the_details_as_granted(shared_world: World) -> None:
    """§9.2."""
    token = shared_world.exchange(shared_world.granted().grant).json()["access_token"]
    assert shared_world.introspect(token)["authorization_details"] == [shared_world.action()]


def test_an_amount_is_told_with_all_decimals_of_its_currency(shared_world: World, shared_grant: str) -> None:
    """§7.1: one spelling, whatever the request had."""
    for value, told in (("7", "7.00"), ("7.5", "7.50")):
        asked = shared_world.action(amount={"currency": "EUR", "value": value})
        [granted] = shared_world.exchange(shared_grant, action=asked).json()["authorization_details"]
        assert granted["amount"] == {"currency": "EUR", "value": told}


def test_a_scope_becomes_details_too(shared_world: World, shared_grant: str) -> None:
    """§9.1: whatever was asked for, the token says what it is for in one way."""
    body = shared_world.exchange(
        shared_grant, authorization_details=None, scope="catalog.search", resource=MARKET
    ).json()
    details = [{"type": "agent_action", "actions": ["catalog.search"], "locations": [MARKET]}]
    assert body["authorization_details"] == details
    assert claims_of(body["access_token"])["authorization_details"] == details


def test_details_beyond_the_delegation_are_refused_with_what_would_be_allowed(
    shared_world: World, shared_grant: str
) -> None:
    """§5 and contract §6: the same error, with the limits that were crossed."""
    body = refuse(
        shared_world, shared_grant, [shared_world.action(amount={"currency": "EUR", "value": "80.01"})]
    )
    assert body["violations"] == [
        {"constraint": "limits.per_action", "requested": "80.01", "allowed": "80.00"}
    ]


def test_the_grant_carries_what_the_user_consented_to(shared_world: World) -> None:
    """§9.1 and contract §5: one `agent_delegation`."""
    granted = shared_world.granted()
    [details] = verified(shared_world, granted.grant)["authorization_details"]
    assert details["type"] == "agent_delegation"
    assert details == granted.details.to_json()


# --- §10: metadata ------------------------------------------------------------------------------------------


def test_the_metadata_names_the_types(shared_world: World) -> None:
    """§10: `authorization_details_types_supported`."""
    document = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    assert document["authorization_details_types_supported"] == ["agent_delegation", "agent_action"]
