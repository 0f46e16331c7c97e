"""Settlement through the kit, against a real server on both databases (threats A72 to A77)."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from authserver.resource_server import (
    InvalidToken,
    IssuerUnavailable,
    Merchant,
    MerchantCategory,
    Money,
    Redemption,
    SettlementRefused,
    Verifier,
)
from authserver.values import Country
from tests.issuer import FakeIssuer, running_issuer
from tests.settling import budget_of, state_of, the_ledger_is_right, token_of
from tests.shops import async_settlement_of, settlement_of, verifier_of
from tests.world import MARKET, SHOP, World


def eur(cents: int) -> Money:
    return Money("EUR", cents)


def refusal(step: Callable[[], Redemption]) -> SettlementRefused:
    with pytest.raises(SettlementRefused) as raised:
        step()
    return raised.value


def outcomes(many: int, step: Callable[[int], Redemption]) -> list[Redemption | SettlementRefused]:
    """What many clients get that ask at the same moment, each again where the server was too busy."""
    together = threading.Barrier(many)

    def one(number: int) -> Redemption | SettlementRefused:
        together.wait()
        for _ in range(20):
            try:
                return step(number)
            except SettlementRefused as refused:
                return refused
            except IssuerUnavailable:
                continue
        raise AssertionError("the server could not answer")

    with ThreadPoolExecutor(many) as pool:
        return list(pool.map(one, range(many)))


def test_A72_of_fifty_clients_one_redeems(world: World) -> None:
    granted = world.granted()
    token, settlement = token_of(world, granted.grant), settlement_of(world)
    got = outcomes(50, lambda _: settlement.redeem(token, eur(4_000)))
    done = [outcome for outcome in got if isinstance(outcome, Redemption)]
    assert len(done) == 1
    assert all(outcome.status == 409 for outcome in got if isinstance(outcome, SettlementRefused))
    assert budget_of(world, granted.grant_id).captured == 4_000
    the_ledger_is_right(world)


def test_A72_a_token_is_not_redeemed_again_after_a_void_or_by_a_new_process(world: World) -> None:
    granted = world.granted()
    token, settlement = token_of(world, granted.grant), settlement_of(world)
    held = settlement.redeem(token, capture=False)
    settlement.void(held.redemption_id)
    for again in (settlement, settlement_of(world)):
        assert refusal(lambda again=again: again.redeem(token)).status == 409
    assert budget_of(world, granted.grant_id).reserved == 0
    the_ledger_is_right(world)


@pytest.mark.parametrize("amount", [eur(5_001), Money("USD", 100), Money("JPY", 1)], ids=str)
def test_A73_more_or_another_currency_is_refused_and_the_reservation_stands(
    world: World, amount: Money
) -> None:
    token, settlement = token_of(world, world.granted().grant), settlement_of(world)
    refused = refusal(lambda: settlement.redeem(token, amount))
    assert (refused.status, refused.error, refused.voided) == (409, "conflict", False)
    assert settlement.redeem(token, eur(5_000)).state == "captured"


@pytest.mark.parametrize(
    "merchant",
    [
        Merchant(category=MerchantCategory("7995")),
        Merchant(country=Country("US")),
        Merchant(id="m_123", category=MerchantCategory("5411"), country=Country("US")),
    ],
    ids=str,
)
def test_A73_facts_that_break_the_delegation_void_the_token(world: World, merchant: Merchant) -> None:
    granted = world.granted()
    token, settlement = token_of(world, granted.grant), settlement_of(world)
    refused = refusal(lambda: settlement.redeem(token, merchant=merchant))
    assert (refused.status, refused.voided) == (409, True)
    assert refused.violations
    assert refusal(lambda: settlement.redeem(token)).status == 409
    assert budget_of(world, granted.grant_id).reserved == 0


def test_A74_who_is_not_the_audience_learns_nothing(world: World) -> None:
    granted = world.granted()
    token = token_of(world, granted.grant)
    stranger = refusal(lambda: settlement_of(world, SHOP).redeem(token))
    made_up = refusal(lambda: settlement_of(world, SHOP).redeem("e30.e30.e30"))
    assert (stranger.status, stranger.error, stranger.detail) == (404, made_up.error, made_up.detail)
    with pytest.raises(InvalidToken, match=r"token\.aud"):
        verifier_of(world, SHOP).verify(token)


def test_A74_a_token_of_another_issuer_is_refused_by_both(world: World) -> None:
    with running_issuer() as other:
        foreign = _foreign(other, world)
        assert refusal(lambda: settlement_of(world).redeem(foreign)).status == 404
        with pytest.raises(InvalidToken):
            verifier_of(world).verify(foreign)


def _foreign(other: FakeIssuer, world: World) -> str:
    return other.token(iss=world.issuer, aud=MARKET)


def test_A74_expired_and_revoked_tokens_are_refused(world: World) -> None:
    granted = world.granted()
    settlement, token = settlement_of(world), token_of(world, granted.grant)
    form = {"token": granted.grant, "client_assertion": world.assertion()}
    form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
    assert world.post("/oauth/revoke", form).status_code == 200
    assert refusal(lambda: settlement.redeem(token)).status == 409
    late = token_of(world, world.granted().grant)
    world.clock.advance(seconds=121)
    assert refusal(lambda: settlement.redeem(late)).status in (404, 409)


def test_A75_refunds_never_exceed_what_was_captured(world: World) -> None:
    granted = world.granted()
    settlement = settlement_of(world)
    paid = settlement.redeem(token_of(world, granted.grant), eur(4_000))
    assert refusal(lambda: settlement.refund(paid.redemption_id, eur(4_001))).status == 409
    assert settlement.refund(paid.redemption_id, eur(1_500)).state == "captured"
    assert refusal(lambda: settlement.refund(paid.redemption_id, eur(2_501))).status == 409
    assert settlement.refund(paid.redemption_id).state == "refunded"
    assert refusal(lambda: settlement.refund(paid.redemption_id)).status == 409
    assert refusal(lambda: settlement.refund("another")).status == 404
    the_ledger_is_right(world)


def test_A75_many_refunds_at_once_give_back_what_was_captured_and_no_more(world: World) -> None:
    granted = world.granted()
    settlement = settlement_of(world)
    paid = settlement.redeem(token_of(world, granted.grant), eur(4_000))
    got = outcomes(12, lambda _: settlement.refund(paid.redemption_id, eur(1_000)))
    assert sum(isinstance(outcome, Redemption) for outcome in got) == 4
    the_ledger_is_right(world)


STEPS: dict[str, tuple[str, ...]] = {
    "capture after void": ("void", "capture"),
    "void after capture": ("capture", "void"),
    "two captures": ("capture", "capture"),
    "two voids": ("void", "void"),
    "refund after void": ("void", "refund"),
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_A76_a_step_that_the_state_forbids_changes_nothing(world: World, steps: tuple[str, str]) -> None:
    settlement = settlement_of(world)
    held = settlement.redeem(token_of(world, world.granted().grant), capture=False)
    done = getattr(settlement, steps[0])(held.redemption_id)
    assert refusal(lambda: getattr(settlement, steps[1])(held.redemption_id)).status == 409
    assert state_of(world, held.redemption_id) == done.state
    the_ledger_is_right(world)


def test_A76_an_authorization_that_lapsed_is_not_captured(world: World) -> None:
    settlement = settlement_of(world)
    held = settlement.redeem(token_of(world, world.granted().grant), capture=False)
    world.clock.advance(days=7)
    assert refusal(lambda: settlement.capture(held.redemption_id)).status == 409


def test_A77_one_key_from_two_clients_at_once_has_one_effect(world: World) -> None:
    granted = world.granted()
    token, settlement = token_of(world, granted.grant), settlement_of(world)
    got = outcomes(2, lambda _: settlement.redeem(token, eur(4_000), idempotency_key="order-1"))
    assert got[0] == got[1]
    assert isinstance(got[0], Redemption)
    refused = refusal(lambda: settlement.redeem(token, eur(3_000), idempotency_key="order-1"))
    assert refused.status == 422
    assert budget_of(world, granted.grant_id).captured == 4_000


def test_the_async_kit_settles_as_the_other_does(world: World) -> None:
    granted = world.granted()
    tokens = [token_of(world, granted.grant, "10.00") for _ in range(4)]
    assert asyncio.run(_everything(world, tokens)) == {
        "redeemed": ("captured", eur(900)),
        "refunded": ("captured", eur(400)),
        "captured": ("captured", eur(800)),
        "voided": ("voided", eur(1_000)),
        "again": 409,
        "at once": 1,
    }
    the_ledger_is_right(world)


async def _everything(world: World, tokens: list[str]) -> dict[str, Any]:
    settlement = async_settlement_of(world)
    found: dict[str, Any] = {}
    paid = await settlement.redeem(tokens[0], eur(900), idempotency_key="a")
    assert paid == await settlement.redeem(tokens[0], eur(900), idempotency_key="a")
    found["redeemed"] = paid.state, paid.amount
    back = await settlement.refund(paid.redemption_id, eur(400))
    found["refunded"] = back.state, back.amount
    held = await settlement.redeem(tokens[1], capture=False)
    taken = await settlement.capture(held.redemption_id, eur(800))
    found["captured"] = taken.state, taken.amount
    held = await settlement.redeem(tokens[2], capture=False)
    gone = await settlement.void(held.redemption_id)
    found["voided"] = gone.state, gone.amount
    try:
        await settlement.redeem(tokens[0])
    except SettlementRefused as refused:
        found["again"] = refused.status
    got = await asyncio.gather(*(settlement.redeem(tokens[3]) for _ in range(5)), return_exceptions=True)
    found["at once"] = sum(isinstance(outcome, Redemption) for outcome in got)
    await settlement.aclose()
    return found


def test_a_server_that_is_away_is_told_apart_from_a_refusal(sqlite_world: World) -> None:
    token = token_of(sqlite_world, sqlite_world.granted().grant)
    with pytest.raises(IssuerUnavailable):
        Verifier("http://127.0.0.1:1", MARKET).verify(token)
    settlement = async_settlement_of(sqlite_world)
    settlement._issuer.identifier = "http://127.0.0.1:1"
    with pytest.raises(IssuerUnavailable):
        asyncio.run(settlement.redeem(token))
