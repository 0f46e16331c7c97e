"""Redemption, capture, void and refund (contract §7): a token is worth one use, with what really happened."""

from typing import Any

import pytest

from authserver import upkeep
from tests.settling import eur, problem, redeem, redeemed, settle, the_ledger_is_right, token_of
from tests.world import MARKET, MERCHANT, World

EUR = {"currency": "EUR", "per_action": "80.00", "total": "100.00"}


@pytest.fixture
def grant(world: World) -> str:
    """A grant with a budget of 100 euros and a daily one of 90."""
    rules = [{"amount": "90.00", "period": "P1D"}]
    actions = ["catalog.search", "payment.finalize", "refund.initiate"]
    return world.granted(limits=EUR | {"per_period": rules, "count": 3}, actions=actions).grant


@pytest.fixture(autouse=True)
def _the_ledger_is_right(world: World) -> object:
    yield
    the_ledger_is_right(world)


def test_a_token_is_redeemed_once(world: World, grant: str) -> None:
    token = token_of(world, grant)
    first = redeem(world, token)
    assert first.status_code == 201, first.text
    body = first.json()
    assert set(body) == {"redemption_id", "state", "amount", "action_id"}
    assert (body["state"], body["amount"]) == ("captured", eur("50.00"))
    problem(redeem(world, token), 409)
    assert world.introspect(token) == {"active": False}
    assert world.rows().reserved == 0


def test_the_rest_of_what_was_held_is_released(world: World, grant: str) -> None:
    token = token_of(world, grant, "80.00")
    assert redeem(world, token, amount=eur("30.00")).json()["amount"] == eur("30.00")
    assert world.rows().in_windows == 3000
    token_of(world, grant, "60.00")
    too_much = world.exchange(grant, action=world.action(amount=eur("10.01")))
    [violation] = [
        v
        for v in world.refuses(too_much, "invalid_authorization_details")["violations"]
        if "total" in v["constraint"]
    ]
    assert violation["allowed"] == "10.00"


def test_more_than_was_held_is_refused_and_the_reservation_stands(world: World, grant: str) -> None:
    token = token_of(world, grant)
    body = problem(redeem(world, token, amount=eur("50.01")), 409)
    assert "voided" not in body
    problem(redeem(world, token, amount={"currency": "USD", "value": "50.00"}), 409)
    assert redeem(world, token).status_code == 201


@pytest.mark.parametrize("facts", [{"category": "7995"}, {"country": "US"}], ids=str)
def test_an_agent_that_lied_about_the_merchant_gains_nothing(
    world: World, grant: str, facts: dict[str, str]
) -> None:
    token = token_of(world, grant)
    body = problem(redeem(world, token, merchant=facts), 409)
    assert body["voided"] is True
    assert body["violations"]
    assert (world.rows().reserved, world.rows().counted, world.rows().in_windows) == (0, 0, 0)
    problem(redeem(world, token), 409)
    assert world.events()[-2]["event"] == "redemption.refused"


def test_another_merchant_that_would_be_allowed_is_still_another(world: World, grant: str) -> None:
    token = token_of(world, grant)
    body = problem(redeem(world, token, merchant=MERCHANT | {"id": "m_9"}), 409)
    assert "voided" not in body
    assert redeem(world, token, merchant=MERCHANT).status_code == 201


def test_what_was_authorized_is_captured_later(world: World, grant: str) -> None:
    body = redeem(world, token_of(world, grant), capture=False).json()
    assert (body["state"], body["amount"]) == ("authorized", eur("50.00"))
    world.clock.advance(days=6)
    path = f"redemptions/{body['redemption_id']}/capture"
    captured = settle(world, path, {"amount": eur("45.00")})
    assert captured.status_code == 200, captured.text
    assert (captured.json()["state"], captured.json()["amount"]) == ("captured", eur("45.00"))
    problem(settle(world, path, {}), 409)


def test_an_authorization_that_nobody_captures_lapses(world: World, grant: str) -> None:
    body = redeem(world, token_of(world, grant), capture=False).json()
    world.clock.advance(days=7)
    problem(settle(world, f"redemptions/{body['redemption_id']}/capture", {}), 409)
    assert upkeep.tidy(world.services, world.clock.now()).reservations == 1
    token_of(world, grant, "80.00")


def test_a_voided_authorization_gives_all_three_back(world: World, grant: str) -> None:
    body = redeem(world, token_of(world, grant), capture=False).json()
    path = f"redemptions/{body['redemption_id']}"
    assert settle(world, f"{path}/void", {}).json()["state"] == "voided"
    problem(settle(world, f"{path}/capture", {}), 409)
    problem(settle(world, f"{path}/void", {}), 409)
    rows = world.rows()
    assert (rows.counted, rows.in_windows) == (0, 0)


def test_a_refund_gives_back_the_total_and_nothing_else(world: World, grant: str) -> None:
    body = redeem(world, token_of(world, grant)).json()
    path = f"redemptions/{body['redemption_id']}/refund"
    part = settle(world, path, {"amount": eur("20.00")})
    assert (part.json()["state"], part.json()["amount"]) == ("captured", eur("20.00"))
    problem(settle(world, path, {"amount": eur("30.01")}), 409)
    assert settle(world, path, {}).json() == {
        "redemption_id": body["redemption_id"],
        "action_id": body["action_id"],
        "state": "refunded",
        "amount": eur("30.00"),
    }
    problem(settle(world, path, {}), 409)
    assert world.rows().in_windows == 5000
    assert world.rows().counted == 1
    problem(settle(world, f"redemptions/{body['redemption_id']}/capture", {}), 409)


def test_a_refund_token_gives_back_what_was_captured_for_its_reference(world: World, grant: str) -> None:
    assert redeem(world, token_of(world, grant, reference="cart-1")).status_code == 201
    refund = world.action(actions=["refund.initiate"], amount=eur("50.00"), reference="cart-1")
    token = world.exchange(grant, action=refund).json()["access_token"]
    assert redeem(world, token, amount=eur("20.00")).status_code == 201
    second = world.exchange(grant, action=refund).json()["access_token"]
    problem(redeem(world, second, amount=eur("30.01")), 409)
    assert redeem(world, second, amount=eur("30.00")).status_code == 201
    other = world.exchange(grant, action=refund | {"reference": "cart-2"}).json()["access_token"]
    problem(redeem(world, other, amount=eur("0.01")), 409)


def test_nobody_but_the_audience_learns_that_a_token_exists(world: World, grant: str) -> None:
    token = token_of(world, grant)
    for body in ({"token": token}, {"token": "no.such.token"}):
        problem(settle(world, "redeem", body, server="shop"), 404)
    redemption = redeem(world, token, capture=False).json()["redemption_id"]
    for path in (redemption, "unknown"):
        problem(settle(world, f"redemptions/{path}/capture", {}, server="shop"), 404)


def test_an_action_that_is_not_redeemed_stays_usable(world: World, grant: str) -> None:
    token = world.exchange(grant, authorization_details=None, scope="catalog.search", resource=MARKET).json()[
        "access_token"
    ]
    problem(redeem(world, token), 409)
    assert world.introspect(token)["active"]


def test_the_same_key_brings_the_same_answer(world: World, grant: str) -> None:
    token = token_of(world, grant)
    first = settle(world, "redeem", {"token": token, "capture": False}, key="k-1")
    again = settle(world, "redeem", {"token": token, "capture": False}, key="k-1")
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    problem(settle(world, "redeem", {"token": token}, key="k-1"), 422)
    path = f"redemptions/{first.json()['redemption_id']}/capture"
    captured = [settle(world, path, {}, key="k-2") for _ in range(2)]
    assert [answer.json()["state"] for answer in captured] == ["captured", "captured"]


def test_an_expired_or_revoked_token_is_not_redeemed_but_an_authorization_is_still_captured(
    world: World, grant: str
) -> None:
    from authserver import revoke

    expired = token_of(world, grant, "10.00")
    world.clock.advance(seconds=120)
    problem(redeem(world, expired), 409)
    authorized = redeem(world, token_of(world, grant, "20.00"), capture=False).json()["redemption_id"]
    revoked = token_of(world, grant, "30.00")
    target = revoke.Target("agent", "basket-helper")
    revoke.revoke(world.services, target, reason="test", by="test", now=world.clock.now())
    problem(redeem(world, revoked), 409)
    assert settle(world, f"redemptions/{authorized}/capture", {}).json()["state"] == "captured"


@pytest.mark.parametrize(
    "body",
    [
        {"amount": 5},
        {"amount": {"currency": "EUR", "value": 5}},
        {"amount": {"currency": "EUR", "value": "5.001"}},
        {"merchant": {}},
        {"merchant": {"category": "541"}},
        {"capture": "yes"},
        {"unknown": True},
        {"token": 7},
    ],
    ids=str,
)
def test_a_malformed_redemption_changes_nothing(world: World, grant: str, body: dict[str, Any]) -> None:
    token = token_of(world, grant)
    with world.nothing_happens(event="redemption.refused"):
        problem(settle(world, "redeem", {"token": token} | body), 400)
    assert redeem(world, token).status_code == 201


def test_an_authorization_is_voided_as_a_whole(world: World, grant: str) -> None:
    path = redeemed(world, token_of(world, grant), capture=False)
    for amount in (eur("49.99"), eur("50.01"), {"currency": "USD", "value": "50.00"}):
        with world.nothing_happens(event="void.refused"):
            problem(settle(world, f"{path}/void", {"amount": amount}), 409)
    assert settle(world, f"{path}/void", {"amount": eur("50.00")}).status_code == 200


# --- RFC 9457: whatever is wrong is a problem ----------------------------------------------------------------------


JSON = {"Content-Type": "application/json"}
NOT_SETTLING: dict[str, tuple[int, dict[str, Any]]] = {
    "no_credentials": (401, {"auth": None, "json": {}}),
    "another_secret": (401, {"auth": ("rs_market", "guessed"), "json": {}}),
    "a_bearer_token": (401, {"auth": None, "json": {}, "headers": {"Authorization": "Bearer x"}}),
    "two_ways_at_once": (400, {"json": {"client_assertion": "x"}}),
    "a_form": (415, {"data": {"token": "x"}}),
    "plain_text": (415, {"content": b'{"token": "x"}', "headers": {"Content-Type": "text/plain"}}),
    "no_content_type": (415, {"content": b'{"token": "x"}'}),
    "200_kilobytes": (413, {"content": b"x" * 200_000, "headers": JSON}),
    "nothing": (400, {}),
    "an_array": (400, {"json": [{"token": "x"}]}),
    "a_member_twice": (400, {"content": b'{"token": "x", "token": "y"}', "headers": JSON}),
    "no_utf_8": (400, {"content": b'{"token": "\xff"}', "headers": JSON}),
    "ten_thousand_levels": (
        400,
        {"content": b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "headers": JSON},
    ),
    "a_query": (400, {"json": {"token": "x"}, "params": {"token": "x"}}),
    "an_empty_key": (400, {"json": {"token": "x"}, "headers": {"Idempotency-Key": ""}}),
    "a_key_with_a_space": (400, {"json": {"token": "x"}, "headers": {"Idempotency-Key": "a b"}}),
}


@pytest.mark.parametrize("path", ["redeem", "redemptions/unknown/capture"])
@pytest.mark.parametrize("case", NOT_SETTLING)
def test_a_request_that_is_no_settlement_is_refused_as_a_problem(world: World, path: str, case: str) -> None:
    status, request = NOT_SETTLING[case]
    if case == "nothing" and path != "redeem":
        status = 404
    event = "redemption" if path == "redeem" else "capture"
    with world.nothing_happens(event=f"{event}.refused"):
        asked = {"auth": (world.market_id, world.market_secret)} | request
        answer = world.client.post(f"/oauth/{path}", **asked)
        problem(answer, status)
    # RFC 9110 §15.5.2: whoever is not known is told how to become so.
    assert answer.headers.get("www-authenticate", "").startswith("Basic realm=") == (status == 401)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "redeem", 405),
        ("PUT", "redemptions/unknown/capture", 405),
        ("POST", "redemptions/unknown/cancel", 404),
        ("POST", "redemptions/a%00b/capture", 404),
        ("POST", "redemptions/a%ffb/void", 404),
        pytest.param("POST", f"redemptions/{'x' * 10_000}/refund", 404, id="long"),
    ],
)
def test_where_nothing_is_settled_the_answer_is_a_problem_too(
    world: World, method: str, path: str, status: int
) -> None:
    auth = (world.market_id, world.market_secret)
    answer = world.client.request(method, f"/oauth/{path}", json={}, auth=auth)
    problem(answer, status)
    assert ("POST" in answer.headers.get("allow", "")) == (status == 405)
