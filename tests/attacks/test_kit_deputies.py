"""Tokens where they do not belong, and keys that change while tokens are used (threats A102, A103, A105, F10)."""

import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import flask
import pytest

from authserver.resource_server import (
    Introspection,
    InvalidToken,
    Money,
    NotAllowed,
    ResourceServer,
    SettlementRefused,
)
from authserver.resource_server.flask import protect
from authserver.tokens import signing_keys
from tests.settling import eur
from tests.shops import market_of, settlement_of, verifier_of
from tests.world import MARKET, SHOP, World


def token_of(world: World, **changes: Any) -> str:
    limits = {"currency": "EUR", "per_action": "80.00", "total": "10000.00"}
    answer = world.exchange(world.granted(limits=limits).grant, action=world.action(**changes))
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


def shop_introspection(world: World) -> Introspection:
    return Introspection(world.issuer, SHOP, world.shop_id, world.shop_secret, clock=world.clock)


def test_A102_who_is_not_the_audience_is_told_that_a_token_is_not_active(shared_world: World) -> None:
    token = token_of(shared_world)
    assert shop_introspection(shared_world).introspect(token) is None
    market = Introspection(
        shared_world.issuer,
        MARKET,
        shared_world.market_id,
        shared_world.market_secret,
        clock=shared_world.clock,
    )
    told = market.introspect(token)
    assert told is not None
    assert market.introspect(told) == told


def test_A102_a_status_list_tells_nothing_but_bits(shared_world: World) -> None:
    """Whoever asks for one list after another learns how many tokens were ended, and nothing of whose they are."""
    token = verifier_of(shared_world).verify(token_of(shared_world))
    assert token.status is not None
    answer = shared_world.client.get(token.status.uri)
    for secret in (token.subject, token.grant_id, token.jti, token.client_id, MARKET):
        assert secret not in answer.text
    assert shared_world.client.get(f"{shared_world.issuer}/oauth/status/2").status_code == 404


def test_A103_each_token_is_refused_for_every_other_action_place_and_amount(shared_world: World) -> None:
    market, shop = verifier_of(shared_world), verifier_of(shared_world, SHOP)
    search = token_of(shared_world, actions=["catalog.search"], amount=None, merchant=None)
    ten = token_of(shared_world, amount=eur("10.00"))
    for token in (search, ten):
        with pytest.raises(InvalidToken, match=r"token\.aud"):
            shop.verify(token)
    with pytest.raises(NotAllowed) as refused:
        market.verify(search).require("payment.finalize", amount=Money("EUR", 1))
    assert (refused.value.status, refused.value.error) == (403, "insufficient_scope")
    with pytest.raises(NotAllowed):
        market.verify(ten).require("payment.finalize", amount=Money("EUR", 1_100))
    market.verify(ten).require("payment.finalize", amount=Money("EUR", 1_000))


def test_A105_a_token_that_is_passed_on_is_refused_wherever_it_comes(shared_world: World) -> None:
    """The market is a deputy that hands the token it was shown to the shop, to the server, to whoever takes it."""
    app = flask.Flask("shop", static_folder=None)
    shop = ResourceServer(
        shared_world.issuer, SHOP, shared_world.shop_id, shared_world.shop_secret, clock=shared_world.clock
    )
    app.add_url_rule("/", "pay", protect(app, shop).require_action("payment.finalize")(lambda: "paid"))
    token = token_of(shared_world)
    answer = app.test_client().get("/", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    with pytest.raises(SettlementRefused) as refused:
        settlement_of(shared_world, SHOP).redeem(token)
    assert refused.value.status == 404
    # Nor does it make another token: it is no grant, and no assertion.
    grant = shared_world.granted().grant
    for changes in ({"subject_token": token}, {"actor_token": token}):
        with shared_world.nothing_happens():
            shared_world.refuses(shared_world.exchange(grant, **changes), "invalid_request")
    # It was not used up by any of that.
    assert market_of(shared_world).verifier.verify(token).action == "payment.finalize"


def test_F10_keys_change_under_load_and_no_verification_fails(world: World) -> None:
    verifier, failures = verifier_of(world), list[Exception]()
    done, made = threading.Event(), list[str]()
    grant = world.granted(limits={"currency": "EUR", "per_action": "80.00", "total": "99999.00"}).grant
    turns = [threading.Lock() for _ in range(3)]

    def buy(turn: threading.Lock) -> None:
        while not done.wait(0.002):
            with turn:  # the clock stands still for the life of a token, as it nearly does
                answer = world.exchange(grant, action=world.action(amount=eur("0.01")))
                try:
                    made.append(verifier.verify(answer.json()["access_token"]).jti)
                except Exception as error:  # noqa: BLE001
                    failures.append(error)

    threads = [threading.Thread(target=buy, args=(turn,)) for turn in turns]
    for thread in threads:
        thread.start()
    kids = _rotate_three_times(world, turns)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(made)) == len(made) > 20
    assert len(kids) == 4


def _rotate_three_times(world: World, turns: list[threading.Lock]) -> set[str]:
    """Publish a key, wait ten minutes of the test's clock, sign with it, three times. The keys that signed."""
    services, ahead = world.services, timedelta(seconds=600)
    kids = {services.signing_keys.active().kid}
    for _ in range(3):
        now, life = services.clock.now(), services.longest_life()
        services.database.write(
            lambda c, now=now, life=life: signing_keys.rotate(
                c, services.seal, now, publish_ahead=ahead, longest_life=life
            )
        )
        services.signing_keys.forget()
        for _ in range(2):
            with ExitStack() as nobody_buys:
                for turn in turns:
                    nobody_buys.enter_context(turn)
                world.clock.advance(seconds=310)
                time.sleep(0.25)  # a status list may be that old, and is then five minutes old
            time.sleep(0.2)
        kids.add(services.signing_keys.active().kid)
    return kids
