"""One agent hands on to another: the grant that comes of it, who may use it, and what it draws on (contract §9)."""

from datetime import timedelta

import pytest
from joserfc.jwk import ECKey

from authserver.delegations.records import DelegationRecord, below
from authserver.policy.reading import instant_text
from tests.attacks.making import dpop_proof, record_of
from tests.conformance.tokens import JWT_SPIFFE, verified
from tests.handing_over import DELEGATION_GRANT, hand_on, held, parent, received, send, token, use
from tests.settling import eur, redeemed, the_ledger_is_right
from tests.world import BASKET_HELPER, PRICE_SCOUT, World


def children_of(world: World, grant_id: str) -> list[DelegationRecord]:
    """All that was handed on below it."""
    top = record_of(world, grant_id)
    return world.services.database.read(lambda c: below(c, top, world.services.stored))[1:]


def test_the_answer_is_that_of_a_grant(world: World) -> None:
    above = parent(world)
    answer = send(world, above.grant, held(world, above))
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["issued_token_type"] == DELEGATION_GRANT
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 30 * 86_400
    assert body["authorization_details"] == [held(world, above)]
    claims = verified(world, body["access_token"])
    assert claims["jti"] == body["grant_id"] != above.grant_id
    assert claims["client_id"] == "price-scout"
    assert claims["may_act"] == {"iss": "spiffe://example.org", "sub": PRICE_SCOUT}
    assert claims["sub"] != verified(world, above.grant)["sub"]  # pairwise for each agent
    assert claims["authorization_details"] == body["authorization_details"]
    child = received(world, answer)
    assert use(world, child.grant, "price-scout").status_code == 200
    event = next(e for e in world.events() if e["delegation_id"] == child.grant_id)
    assert (event["event"], event["data"]["parent"]) == ("delegation.created", above.grant_id)
    assert event["data"]["by"] == "agent:basket-helper"


@pytest.mark.parametrize("name", ["price-scout", PRICE_SCOUT])
def test_the_receiver_is_named_by_its_client_id_or_its_workload(sqlite_world: World, name: str) -> None:
    child = hand_on(sqlite_world, parent(sqlite_world), name)
    assert record_of(sqlite_world, child.grant_id).client_id == "price-scout"


def test_what_a_child_spends_counts_at_once_all_the_way_up(world: World) -> None:
    first = parent(world, depth=2)
    second = hand_on(world, first)
    third = hand_on(world, second, "basket-helper", by="price-scout")
    access_token = token(world, third.grant, "basket-helper", action=world.action(amount=eur("30.00")))
    spent = [record_of(world, granted.grant_id).total_spent for granted in (first, second, third)]
    assert spent == [3000, 3000, 3000]
    redeemed(world, access_token, amount=eur("12.00"))
    assert [record_of(world, g.grant_id).total_spent for g in (first, second, third)] == [1200] * 3
    the_ledger_is_right(world)


def test_the_same_key_brings_the_same_child(world: World) -> None:
    above, key = parent(world), {"Idempotency-Key": "hand-1"}
    details = held(world, above)
    first = send(world, above.grant, details, headers=key)
    world.clock.advance(seconds=5)
    again = send(world, above.grant, details, headers=key)
    one, other = (verified(world, answer.json()["access_token"]) for answer in (first, again))
    assert one == other
    assert again.json()["expires_in"] == first.json()["expires_in"] - 5
    assert again.json()["authorization_details"] == first.json()["authorization_details"]
    for changed in (send(world, above.grant, details | {"actions": ["catalog.search"]}, headers=key),):
        world.refuses(changed, "invalid_request")
    world.refuses(world.exchange(above.grant, headers=key), "invalid_request")
    assert len(children_of(world, above.grant_id)) == 1


def test_a_key_whose_child_was_revoked_brings_nothing_back(world: World) -> None:
    above, key = parent(world), {"Idempotency-Key": "hand-1"}
    child = received(world, send(world, above.grant, held(world, above), headers=key))
    form = {"token": child.grant, "client_assertion_type": JWT_SPIFFE}
    assert (
        world.post("/oauth/revoke", form | {"client_assertion": world.assertion(PRICE_SCOUT)}).status_code
        == 200
    )
    with world.nothing_happens("idempotency_key.ended", "hand_over.refused"):
        world.refuses(send(world, above.grant, held(world, above), headers=key), "invalid_request")


def test_an_agent_gives_up_what_it_was_handed_and_what_is_below_ends(world: World) -> None:
    above = parent(world)
    child = hand_on(world, above)
    below = hand_on(world, child, "basket-helper", by="price-scout")
    out = token(world, below.grant, "basket-helper")
    form = {"token": child.grant, "client_assertion_type": JWT_SPIFFE}
    assert (
        world.post("/oauth/revoke", form | {"client_assertion": world.assertion(PRICE_SCOUT)}).status_code
        == 200
    )
    assert world.introspect(out) == {"active": False}
    assert use(world, above.grant, "basket-helper").status_code == 200


def test_a_child_may_begin_later_and_is_not_valid_before(world: World) -> None:
    above = parent(world)
    tomorrow = world.clock.now() + timedelta(days=1)
    child = hand_on(world, above, not_before=instant_text(tomorrow.replace(microsecond=0)))
    with world.nothing_happens("delegation.not_yet_valid"):
        world.refuses(use(world, child.grant, "price-scout"), "invalid_request")
    world.clock.advance(seconds=86_401)
    assert use(world, child.grant, "price-scout").status_code == 200


def test_left_out_a_child_begins_now(sqlite_world: World) -> None:
    above = parent(sqlite_world)
    sqlite_world.clock.advance(seconds=90)
    child = hand_on(sqlite_world, above, not_before=None)
    assert child.details.not_before == sqlite_world.clock.now().replace(microsecond=0)


def test_a_proof_that_comes_along_is_good_once(world: World) -> None:
    above, key = parent(world), ECKey.generate_key("P-256")
    proof = {"DPoP": dpop_proof(world, key)}
    answer = send(world, above.grant, held(world, above), headers=proof)
    assert (answer.status_code, "DPoP-Nonce" in answer.headers) == (200, True)
    with world.nothing_happens("dpop.replayed", "hand_over.refused"):
        again = send(world, above.grant, held(world, above), headers=proof)
        world.refuses(again, "invalid_dpop_proof")


def test_a_client_assertion_may_come_along_and_names_the_same_agent(world: World) -> None:
    above = parent(world)
    for subject, error in ((BASKET_HELPER, None), (PRICE_SCOUT, "invalid_client")):
        client = {"client_assertion_type": JWT_SPIFFE, "client_assertion": world.assertion(subject)}
        answer = send(world, above.grant, held(world, above), **client)
        if error is None:
            assert answer.status_code == 200, answer.text
        else:
            world.refuses(answer, error, status=401)


def test_children_are_told_as_a_tree(world: World) -> None:
    root = parent(world, depth=3)
    left = hand_on(world, root)
    world.clock.advance(seconds=1)
    right = hand_on(world, root, "basket-helper")
    last = hand_on(world, left, "basket-helper", by="price-scout")
    token(world, last.grant, "basket-helper", action=world.action(amount=eur("5.00")))
    hand_on(world, parent(world))  # of another root
    found = children_of(world, root.grant_id)
    assert [record.id for record in found] == [left.grant_id, last.grant_id, right.grant_id]
    assert [len(record.path) for record in found] == [2, 3, 2]
    assert [record.total_spent for record in found] == [500, 500, 0]
    assert [record.id for record in children_of(world, left.grant_id)] == [last.grant_id]
