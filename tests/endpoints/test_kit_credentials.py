"""The resource server's kit without a secret: with a key of its own, or as a workload; and its event loops."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import ECKey

from authserver.actors import resource_servers
from authserver.agent import TokenFile, WorkloadUnknown
from authserver.dpop import ProofKey
from authserver.resource_server import (
    AsWorkload,
    AsyncSettlement,
    ClientSecret,
    Credentials,
    Introspection,
    IssuerUnavailable,
    PrivateKey,
    ProofRequired,
    ResourceServer,
    Settlement,
    SettlementRefused,
    Verifier,
)
from tests.conformance.tokens import claims_of, public
from tests.shops import bound_token, verifier_of
from tests.world import MARKET, World, make_resource_server

KEYED, WORKLOAD = "https://keyed.example/api", "https://workload.example/api"
SUBJECT = "spiffe://example.org/shop/workload"
KEY = ECKey.generate_key("P-256")


@pytest.fixture(scope="module")
def world(shared_world: World) -> World:
    now = shared_world.clock.now()
    jwks = json.dumps({"keys": [public(KEY, kid=KEY.thumbprint())]})
    keyed = make_resource_server("keyed", KEYED, now, auth_method="private_key_jwt", jwks=jwks)
    workload = make_resource_server("workload", WORKLOAD, now, auth_method="jwt-spiffe", subject=SUBJECT)
    shared_world.services.database.write(
        lambda c: [resource_servers.create(c, server) for server in (keyed, workload)]
    )
    return shared_world


def credentials(world: World, place: str) -> Credentials:
    if place == KEYED:
        return PrivateKey("rs_keyed", KEY.as_pem(private=True), clock=world.clock)
    return AsWorkload(lambda: world.assertion(SUBJECT))


def token_at(world: World, place: str, **changes: Any) -> str:
    grant = world.granted(locations=[place]).grant
    answer = world.exchange(grant, action=world.action(locations=[place], **changes))
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


PLACES = pytest.mark.parametrize("place", [KEYED, WORKLOAD])


@PLACES
def test_a_resource_server_without_a_secret_asks_and_settles(world: World, place: str) -> None:
    known, token = credentials(world, place), token_at(world, place)
    settlement = Settlement(world.issuer, known)
    asking = Introspection(world.issuer, place, known, clock=world.clock)
    active = asking.introspect(token)
    assert active is not None
    assert active.jti == claims_of(token)["jti"]
    held = settlement.redeem(token, capture=False)
    # The same key with a fresh assertion is the same request.
    taken = [settlement.capture(held.redemption_id, idempotency_key=f"once-{place}") for _ in range(2)]
    assert taken[0] == taken[1]
    assert settlement.refund(held.redemption_id).state == "refunded"
    assert asking.introspect(token) is None
    with pytest.raises(SettlementRefused) as refused:
        settlement.redeem(token)
    assert refused.value.status == 409


@PLACES
def test_the_same_in_an_event_loop(world: World, place: str) -> None:
    known, token = credentials(world, place), token_at(world, place)

    async def settles() -> str:
        settlement = AsyncSettlement(world.issuer, known)
        try:
            return (await settlement.redeem(token)).state
        finally:
            await settlement.aclose()

    assert asyncio.run(settles()) == "captured"


def test_a_resource_server_with_a_key_of_its_own_lets_a_payment_in(world: World) -> None:
    shop = ResourceServer(world.issuer, KEYED, credentials(world, KEYED), clock=world.clock)
    assert shop.settlement is not None
    assert shop.settlement.redeem(token_at(world, KEYED)).state == "captured"


def test_A74_a_key_or_workload_of_another_settles_nothing(world: World) -> None:
    """Their own tokens are all that they can use; a key that is not registered is nobody's."""
    token = token_at(world, MARKET)
    for place in (KEYED, WORKLOAD):
        with pytest.raises(SettlementRefused) as refused:
            Settlement(world.issuer, credentials(world, place)).redeem(token)
        assert refused.value.status == 404
    other = ECKey.generate_key("P-256").as_pem(private=True)
    strangers: list[Credentials] = [
        PrivateKey("rs_keyed", other, clock=world.clock),
        PrivateKey("rs_market", KEY.as_pem(private=True), clock=world.clock),
        PrivateKey("rs_workload", KEY.as_pem(private=True), clock=world.clock),
        AsWorkload(lambda: world.assertion("spiffe://example.org/shop/other")),
        ClientSecret("rs_keyed", world.market_secret),
    ]
    for stranger in strangers:
        with pytest.raises(IssuerUnavailable, match="401"):
            Settlement(world.issuer, stranger).redeem(token)
    assert world.introspect(token)["active"]


def test_a_workload_that_is_unknown_now_is_a_server_that_cannot_be_asked(world: World, tmp_path: Any) -> None:
    """Fail closed: the money does not move, and the answer is 503, not an error of the program."""
    source = TokenFile(tmp_path / "none")
    with pytest.raises(WorkloadUnknown):
        source.assertion(world.issuer)
    with pytest.raises(IssuerUnavailable, match="cannot say who it is"):
        Settlement(world.issuer, AsWorkload(source)).redeem(token_at(world, WORKLOAD))


@pytest.mark.parametrize(
    "made",
    [
        lambda: Settlement("https://auth.example", "rs_shop"),
        lambda: Settlement("https://auth.example", ClientSecret("rs_shop", "s"), "s"),
        lambda: Introspection("https://auth.example", KEYED, "rs_shop"),
        lambda: ResourceServer("https://auth.example", KEYED, "rs_shop"),
        lambda: PrivateKey("rs_shop", b"no key"),
        lambda: PrivateKey("rs_shop", ECKey.generate_key("P-384").as_pem(private=True)),
        lambda: PrivateKey("rs_shop", KEY.as_pem(private=False)),
    ],
)
def test_credentials_that_are_none_are_told_at_once(made: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="takes"):
        made()


def test_no_secret_and_no_key_is_shown(world: World) -> None:
    shown = repr([ClientSecret("rs_shop", "hush"), credentials(world, KEYED)])
    assert "hush" not in shown
    assert KEY.as_dict(private=True)["d"] not in shown


# --- introspection in an event loop -------------------------------------------------------------------------------


def test_introspection_in_an_event_loop_answers_as_it_does_in_a_thread(world: World) -> None:
    asking = Introspection(world.issuer, MARKET, world.market_id, world.market_secret, clock=world.clock)
    token, other = token_at(world, MARKET), token_at(world, KEYED)

    async def asks() -> list[object]:
        found = await asyncio.gather(*(asking.introspect_async(each) for each in (token, other, "x.y.z")))
        assert found[0] is not None
        return [found[0].jti, *found[1:], (await asking.introspect_async(found[0])) == found[0]]

    assert asyncio.run(asks()) == [claims_of(token)["jti"], None, None, True]
    Settlement(world.issuer, world.market_id, world.market_secret).redeem(token)
    assert asyncio.run(asking.introspect_async(token)) is None


def test_A101_introspection_in_an_event_loop_takes_no_bound_token_without_its_proof(world: World) -> None:
    key = ProofKey.generate()
    token = bound_token(world, world.granted().grant, key)
    asking = Introspection(world.issuer, MARKET, world.market_id, world.market_secret, clock=world.clock)
    with pytest.raises(ProofRequired):
        asyncio.run(asking.introspect_async(token))
    with pytest.raises(ProofRequired):
        verifier_of(world).verify(token)
    away = Introspection("http://127.0.0.1:1", MARKET, "id", "secret", clock=world.clock)
    with pytest.raises(IssuerUnavailable):
        asyncio.run(away.introspect_async(token))


# --- the end of a job ---------------------------------------------------------------------------------------------


@PLACES
def test_a_shop_says_that_a_job_is_done_there(world: World, place: str) -> None:
    granted, known = world.granted(locations=[place]), credentials(world, place)
    asked = {"action": world.action(locations=[place]), "task_id": f"job-{place[8:13]}"}
    tokens = [world.exchange(granted.grant, **asked).json()["access_token"] for _ in range(3)]
    verifier = Verifier(world.issuer, place, clock=world.clock)
    paid, left = verifier.verify(tokens[0]), Introspection(world.issuer, place, known, clock=world.clock)
    settlement = Settlement(world.issuer, known)
    settlement.redeem(paid)
    assert settlement.complete_task(paid) == 2
    assert [left.introspect(token) for token in tokens] == [None, None, None]

    async def again() -> int:
        in_a_loop = AsyncSettlement(world.issuer, known)
        try:
            return await in_a_loop.complete_task(paid)
        finally:
            await in_a_loop.aclose()

    assert asyncio.run(again()) == 0
    for another in (world.market_id, world.market_secret), (world.shop_id, world.shop_secret):
        with pytest.raises(SettlementRefused):
            Settlement(world.issuer, *another).complete_task(paid)
    with pytest.raises(ValueError, match="of a task"):
        settlement.complete_task(verifier.verify(token_at(world, place)))
    with pytest.raises(IssuerUnavailable):
        Settlement("http://127.0.0.1:1", known).complete_task(paid)
