"""Approvals while the agent waits: contract §8, line by line, over draft-ietf-oauth-deferred-token-response."""

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
import rfc8785
from joserfc.jwk import ECKey

from authserver.actors import agents
from authserver.actors.client_authentication import JWT_BEARER, JWT_SPIFFE
from authserver.upkeep import tidy
from tests.approving import (
    DEFERRED,
    answers,
    asked_above_fifty,
    asks,
    at_market,
    person,
    polls,
    record,
    waiting,
    waits,
)
from tests.attacks.forge import Draft, public
from tests.conformance.tokens import claims_of, dpop_proof, verified
from tests.settling import eur, problem, redeem, settle
from tests.world import MERCHANT, PRICE_SCOUT, World

KEY, OTHER = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")


def token_after(world: World, code: str) -> dict[str, Any]:
    """The answer that brings the token."""
    answer = polls(world, code)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


# --- the first answer -----------------------------------------------------------------------------------------------


def test_the_metadata_offers_the_deferred_grant(sqlite_world: World) -> None:
    """§8: `deferred_token_response_supported: true`, and the grant type."""
    document = sqlite_world.client.get("/.well-known/oauth-authorization-server").json()
    assert document["deferred_token_response_supported"] is True
    assert DEFERRED in document["grant_types_supported"]


def test_who_is_ready_to_wait_is_told_how(world: World) -> None:
    """§8: 400 `authorization_pending` with `deferral_code`, `interval`, `expires_in` and `approval_uri`."""
    before = world.rows()
    told = waits(world, asked_above_fifty(world).grant)
    assert told.body["interval"] == 5
    assert told.body["expires_in"] == 1800
    assert len(base64.urlsafe_b64decode(told.code + "=")) == 32
    assert world.rows() == before  # a waiting request holds no budget, and nothing was minted
    assert world.events()[-1]["event"] == "exchange.deferred"
    assert world.events()[-1]["rule"] == "approval.above"


def test_who_does_not_wait_is_refused(world: World) -> None:
    """§8: without the parameter, `access_denied` with the violation `approval`."""
    grant = asked_above_fifty(world).grant
    with world.nothing_happens("approval"):
        answer = world.exchange(grant, action=world.action(amount=eur("62.10")))
        world.refuses(answer, "access_denied", constraint="approval")


def test_what_needs_no_approval_is_answered_at_once(sqlite_world: World) -> None:
    """§8: the parameter says that the agent is ready to wait, not that it wants to."""
    assert asks(sqlite_world, asked_above_fifty(sqlite_world).grant, "42.50").status_code == 200


def test_what_is_not_allowed_is_refused_at_once(sqlite_world: World) -> None:
    """§6: nobody is asked about what the delegation forbids anyway."""
    grant = asked_above_fifty(sqlite_world).grant
    with sqlite_world.nothing_happens("limits.per_action"):
        sqlite_world.refuses(asks(sqlite_world, grant, "80.01"), "invalid_authorization_details")


def test_the_code_is_kept_as_a_hash(sqlite_world: World) -> None:
    """§8 and draft: whoever reads the database cannot poll."""
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    kept = record(sqlite_world, told.approval)
    assert kept.code_hash == hashlib.sha256(told.code.encode()).digest()
    assert told.code not in repr(kept)


def test_a_lost_first_answer_is_told_again_by_its_key(world: World) -> None:
    """§6: the same Idempotency-Key and request are the same request; there is one approval."""
    grant, headers = asked_above_fifty(world).grant, {"Idempotency-Key": "k1"}
    first, again = (waits(world, grant, headers=headers) for _ in range(2))
    assert (first.code, first.approval) == (again.code, again.approval)
    world.refuses(asks(world, grant, "62.11", headers=headers), "invalid_request")
    answers(world, first.approval)
    action_id = token_after(world, first.code)["action_id"]
    retried = asks(world, grant, headers=headers)
    assert retried.json()["action_id"] == action_id  # and is the same action when it came by polling


# --- polling --------------------------------------------------------------------------------------------------------


def test_until_there_is_an_answer_it_is_pending(world: World) -> None:
    """§8: `authorization_pending`, or `slow_down`, which adds 5 s to the interval."""
    told = waits(world, asked_above_fifty(world).grant)
    world.refuses(polls(world, told.code), "authorization_pending")
    world.clock.advance(seconds=4)
    assert world.refuses(polls(world, told.code), "slow_down")["interval"] == 10
    world.clock.advance(seconds=9)
    assert world.refuses(polls(world, told.code), "slow_down")["interval"] == 15
    world.clock.advance(seconds=15)
    body = world.refuses(polls(world, told.code), "authorization_pending")
    assert (body["interval"], body["expires_in"]) == (15, 1800 - 28)


def test_then_the_answer_is_that_of_the_exchange(world: World) -> None:
    """§8: the answer of §6; the token carries `approval`, which introspection tells, too."""
    granted = asked_above_fifty(world)
    told = waits(world, granted.grant, task_id="dinner")
    answers(world, told.approval)
    body = token_after(world, told.code)
    assert body["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 120)
    claims = verified(world, body["access_token"])
    assert claims["jti"] == body["action_id"]
    assert (
        claims["authorization_details"]
        == body["authorization_details"]
        == [world.action(amount=eur("62.10"))]
    )
    assert claims["task_id"] == "dinner"
    shown = hashlib.sha256(rfc8785.dumps(claims["authorization_details"][0])).digest()
    digest = base64.urlsafe_b64encode(shown).rstrip(b"=").decode()
    assert claims["approval"] == {"id": told.approval, "details_hash": digest}
    assert world.introspect(body["access_token"])["approval"] == claims["approval"]
    assert record(world, told.approval).details_hash == digest
    names = [event["event"] for event in world.events()[-3:]]
    assert names == ["exchange.deferred", "approval.approved", "deferred.permitted"]
    assert redeem(world, body["access_token"]).status_code == 201


def test_a_token_without_approval_says_nothing_of_one(sqlite_world: World) -> None:
    """§8: the claim is there where somebody approved."""
    token = sqlite_world.exchange(sqlite_world.granted().grant).json()["access_token"]
    assert "approval" not in claims_of(token)


def test_a_lost_token_is_told_again_while_it_lives(world: World) -> None:
    """§8: it yields one token; a retry of the poll gets that one, and nothing is reserved twice."""
    told = waits(world, asked_above_fifty(world).grant)
    answers(world, told.approval)
    first, rows = token_after(world, told.code), world.rows()
    world.clock.advance(seconds=60)
    again = token_after(world, told.code)
    assert again["action_id"] == first["action_id"]
    assert again["expires_in"] == 60
    assert claims_of(again["access_token"]) == claims_of(first["access_token"])
    assert world.rows() == rows
    world.clock.advance(seconds=60)
    world.refuses(polls(world, told.code), "access_denied")
    assert world.rows() == rows


def test_a_refusal_is_access_denied(world: World) -> None:
    """§8: and stays so."""
    told = waits(world, asked_above_fifty(world).grant)
    answers(world, told.approval, "refuse")
    for _ in range(2):
        with world.nothing_happens("approval.refused", "deferred.refused"):
            world.refuses(polls(world, told.code), "access_denied")


@pytest.mark.parametrize("tidied", [True, False])
def test_no_answer_is_a_refusal(world: World, tidied: bool) -> None:
    """§8: `expired_token`, whether or not anybody has written down that its time is over."""
    told = waits(world, asked_above_fifty(world).grant)
    world.clock.advance(seconds=1800)
    if tidied:
        tidy(world.services, world.clock.now())
        assert record(world, told.approval).state == "expired"
        assert world.events()[-1]["event"] == "approval.expired"
    with world.nothing_happens("approval.expired", "deferred.refused"):
        world.refuses(polls(world, told.code), "expired_token")


def test_an_approval_that_nobody_fetches_ends_too(sqlite_world: World) -> None:
    """§8: `expires_in` is the life of the code."""
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    answers(sqlite_world, told.approval)
    sqlite_world.clock.advance(seconds=1800)
    sqlite_world.refuses(polls(sqlite_world, told.code), "expired_token")


# --- who polls ------------------------------------------------------------------------------------------------------


def test_a_client_assertion_says_who_polls_as_well(sqlite_world: World) -> None:
    """§8: a fresh `actor_token` with its type, or a `client_assertion`."""
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    answers(sqlite_world, told.approval)
    answer = _with_assertion(sqlite_world, told.code, sqlite_world.assertion())
    assert answer.status_code == 200, answer.text


def _with_assertion(world: World, code: str, assertion: str, kind: str = JWT_SPIFFE) -> httpx.Response:
    return polls(
        world,
        code,
        actor_token=None,
        actor_token_type=None,
        client_assertion=assertion,
        client_assertion_type=kind,
    )


def test_an_agent_with_keys_of_its_own_polls_with_private_key_jwt(sqlite_world: World) -> None:
    """§3: `private_key_jwt`, each assertion once."""
    world, now = sqlite_world, sqlite_world.clock.now()
    jwks = json.dumps({"keys": [public(KEY, kid="own")]})

    def write(connection: Any) -> None:
        agent = agents.find(connection, "basket-helper")
        assert agent is not None
        agents.change(connection, replace(agent, jwks=jwks))

    world.services.database.write(write)
    claims = {"iss": "basket-helper", "sub": "basket-helper", "aud": world.issuer, "jti": "a1"}
    claims |= {"exp": int(now.timestamp()) + 60}
    assertion = Draft({"alg": "ES256", "kid": "own"}, claims, KEY).signed()
    told = waits(world, asked_above_fifty(world).grant)
    world.refuses(_with_assertion(world, told.code, assertion, JWT_BEARER), "authorization_pending")
    world.refuses(_with_assertion(world, told.code, assertion, JWT_BEARER), "invalid_client", status=401)


def test_who_polls_must_say_who_it_is(sqlite_world: World) -> None:
    """§8: the code alone is worth nothing."""
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    answers(sqlite_world, told.approval)
    without = polls(sqlite_world, told.code, actor_token=None, actor_token_type=None)
    sqlite_world.refuses(without, "invalid_client", status=401)
    sqlite_world.refuses(polls(sqlite_world, told.code, actor_token_type=None), "invalid_request")
    sqlite_world.refuses(polls(sqlite_world, told.code, actor_token="x.y.z"), "invalid_request")
    other = polls(sqlite_world, told.code, client_id="price-scout")
    sqlite_world.refuses(other, "invalid_request")


@pytest.mark.parametrize("code", ["x", "A" * 43, "A" * 500, "\u20ac", "%00"])
def test_an_unknown_code_is_an_invalid_grant(sqlite_world: World, code: str) -> None:
    """§8: `invalid_grant`."""
    with sqlite_world.nothing_happens("approval.unknown_code", "deferred.refused"):
        sqlite_world.refuses(polls(sqlite_world, code), "invalid_grant")


def test_a_code_of_another_agent_is_an_invalid_grant(world: World) -> None:
    """§8: with the very answer that an unknown code gets."""
    told = waits(world, asked_above_fifty(world).grant)
    answers(world, told.approval)
    with world.nothing_happens("approval.unknown_code", "deferred.refused"):
        stolen = polls(world, told.code, actor_token=world.assertion(PRICE_SCOUT))
    world.refuses(stolen, "invalid_grant")
    assert stolen.json() == polls(world, "A" * 43, actor_token=world.assertion(PRICE_SCOUT)).json()
    assert record(world, told.approval).state == "approved"


def test_the_dpop_key_stays(world: World) -> None:
    """§8: the same DPoP key where one was used; with another, or none, there is no token."""
    grant = asked_above_fifty(world).grant
    told = waits(world, grant, headers={"DPoP": dpop_proof(world, KEY)})
    answers(world, told.approval)
    world.refuses(polls(world, told.code, {"DPoP": dpop_proof(world, OTHER)}), "invalid_dpop_proof")
    world.refuses(polls(world, told.code), "invalid_dpop_proof")
    answer = polls(world, told.code, {"DPoP": dpop_proof(world, KEY)})
    assert answer.json()["token_type"] == "DPoP"
    assert claims_of(answer.json()["access_token"])["cnf"] == {"jkt": KEY.thumbprint()}
    assert "DPoP-Nonce" in answer.headers


def test_a_poll_brings_no_new_key(sqlite_world: World) -> None:
    """§8: nothing about the request can be changed by polling."""
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    answers(sqlite_world, told.approval)
    bound = polls(sqlite_world, told.code, {"DPoP": dpop_proof(sqlite_world, KEY)})
    sqlite_world.refuses(bound, "invalid_dpop_proof")


def test_what_else_a_poll_says_changes_nothing(sqlite_world: World) -> None:
    """§8: unknown parameters are ignored (RFC 6749 §3.2), and repeated ones refused."""
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    answers(sqlite_world, told.approval)
    more = json.dumps([sqlite_world.action(amount=eur("79.00"))])
    answer = polls(sqlite_world, told.code, authorization_details=more, resource="https://evil.example")
    assert answer.json()["authorization_details"] == [sqlite_world.action(amount=eur("62.10"))]
    twice = sqlite_world.client.post(
        "/oauth/token", data={"grant_type": DEFERRED, "deferral_code": [told.code, told.code]}
    )
    sqlite_world.refuses(twice, "invalid_request")


# --- who answers ----------------------------------------------------------------------------------------------------


def test_what_needs_no_amount_can_wait_as_well(sqlite_world: World) -> None:
    """§4: `order.change_address` needs an approval unless the delegation says otherwise."""
    granted = sqlite_world.granted(actions=["order.change_address"], limits=None, merchants=None)
    action = at_market(sqlite_world, "order.change_address", reference="order-7")
    told = waiting(sqlite_world, asks(sqlite_world, granted.grant, action=action))
    answers(sqlite_world, told.approval)
    assert token_after(sqlite_world, told.code)["authorization_details"] == [action]


def test_an_action_that_is_asked_for_by_scope_can_wait(sqlite_world: World) -> None:
    """§6: `scope` instead of details, for an action that the delegation wants to be asked about."""
    granted = sqlite_world.granted(approval={"actions": ["catalog.search"]})
    asked = sqlite_world.exchange(
        granted.grant,
        authorization_details=None,
        scope="catalog.search",
        resource="https://shop.example/api",
        completion_mode="deferred",
    )
    told = waiting(sqlite_world, asked)
    answers(sqlite_world, told.approval)
    body = token_after(sqlite_world, told.code)
    assert body["scope"] == "catalog.search"
    assert claims_of(body["access_token"])["scope"] == "catalog.search"


def test_after_a_while_others_are_asked_as_well(world: World) -> None:
    """§8: the catalogue names to whom it escalates after how long (`group:payments-duty`, PT10M)."""
    duty = person(world, "grace", "payments-duty")
    told = waits(world, asked_above_fifty(world).grant)
    world.clock.advance(minutes=10)
    tidy(world.services, world.clock.now())
    escalated = world.events()[-1]
    assert escalated["event"] == "approval.escalated"
    assert escalated["data"]["to"] == "group:payments-duty"
    tidy(world.services, world.clock.now())
    assert world.events()[-1] == escalated  # once
    answers(world, told.approval, user="grace")
    assert world.events()[-1]["data"]["answered_by"] == duty
    token_after(world, told.code)


# --- what was shown is what is executed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"amount": eur("62.11")}, 409),
        ({"merchant": MERCHANT | {"id": "m_124"}}, 409),
        ({"merchant": MERCHANT | {"category": "5812"}}, 409),
        ({"merchant": MERCHANT | {"country": "BE"}}, 409),
        ({"merchant": MERCHANT | {"name": "Example Fuels"}}, 409),
        ({"merchant": MERCHANT}, 201),
        ({"amount": eur("60.00")}, 201),
    ],
)
def test_redemption_is_held_to_what_was_shown(sqlite_world: World, body: dict[str, Any], status: int) -> None:
    """§8: the amount no higher, the seller the same, by every fact that was shown."""
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    answers(sqlite_world, told.approval)
    token = token_after(sqlite_world, told.code)["access_token"]
    answer = settle(sqlite_world, "redeem", {"token": token} | body)
    if status == 409:
        problem(answer, 409)
        assert redeem(sqlite_world, token).status_code == 201  # the reservation stands
    assert answer.status_code == status


def test_a_fact_that_was_not_shown_is_not_the_same_seller(sqlite_world: World) -> None:
    """§8: where no country was shown, none can come in at redemption."""
    merchants = {"categories": ["5411"], "countries": ["any"]}
    granted = asked_above_fifty(sqlite_world, merchants=merchants)
    shown = sqlite_world.action(amount=eur("62.10"), merchant={"id": "m_123", "category": "5411"})
    told = waits(sqlite_world, granted.grant, action=shown)
    answers(sqlite_world, told.approval)
    token = token_after(sqlite_world, told.code)["access_token"]
    problem(redeem(sqlite_world, token, merchant=MERCHANT), 409)
