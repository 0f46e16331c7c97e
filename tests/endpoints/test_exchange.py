"""The exchange, through the front door (RFC 8693, contract §6)."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from authserver import upkeep
from authserver.actors import resource_servers
from authserver.actors.resource_servers import ResourceServer
from authserver.delegations.stored_details import StoredDetails
from authserver.introspect import introspect
from authserver.policy.catalogue import Catalogue
from tests.world import ACCESS_TOKEN, BASKET_HELPER, MARKET, MERCHANT, SHOP, World, example_org, running_world


def a_market(world: World) -> ResourceServer:
    """The registered market."""
    found = world.services.database.read(lambda c: resource_servers.find(c, world.market_id))
    assert found is not None
    return found


def claims_of(world: World, token: str, server: str = "market") -> dict[str, object]:
    """What the token says, as its audience learns it."""
    claims = world.introspect(token, server=server)
    assert claims["active"]
    return claims


def test_a_grant_and_an_assertion_become_a_token_for_one_action(world: World) -> None:
    answer = world.exchange(world.granted().grant)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["issued_token_type"] == ACCESS_TOKEN
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 120
    assert body["authorization_details"] == [world.action()]
    assert "scope" not in body
    claims = claims_of(world, body["access_token"])
    assert claims["jti"] == body["action_id"]


def test_the_token_says_what_it_is_for_and_who_acts(world: World) -> None:
    granted = world.granted()
    token = world.exchange(granted.grant, task_id="task-1").json()["access_token"]
    claims = claims_of(world, token)
    assert claims["iss"] == world.issuer
    assert claims["aud"] == MARKET
    assert claims["client_id"] == "basket-helper"
    assert claims["act"] == {"iss": "spiffe://example.org", "sub": BASKET_HELPER}
    assert claims["authorization_details"] == [world.action()]
    assert claims["task_id"] == "task-1"
    assert claims["exp"] - claims["iat"] == 120
    assert claims["grant_id"] != granted.grant_id
    assert claims["sub"] not in ("ada", granted.grant_id)
    assert "scope" not in claims
    assert set(claims["status"]["status_list"]) == {"uri", "idx"}


def test_names_of_the_user_and_the_grant_differ_between_resource_servers(world: World) -> None:
    grant = world.granted().grant
    at_market = claims_of(world, world.exchange(grant).json()["access_token"])
    shop_action = world.action(locations=[SHOP])
    at_shop = claims_of(world, world.exchange(grant, action=shop_action).json()["access_token"], "shop")
    assert at_market["sub"] != at_shop["sub"]
    assert at_market["grant_id"] != at_shop["grant_id"]


def test_an_action_without_limits_is_asked_for_by_its_scope(world: World) -> None:
    answer = world.exchange(
        world.granted().grant, authorization_details=None, scope="catalog.search", resource=MARKET
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["scope"] == "catalog.search"
    assert claims_of(world, body["access_token"])["scope"] == "catalog.search"
    assert body["authorization_details"] == [
        {"type": "agent_action", "actions": ["catalog.search"], "locations": [MARKET]}
    ]


@pytest.mark.parametrize(
    "target", [{"resource": MARKET}, {"audience": MARKET}, {"audience": "rs_market"}, {}], ids=str
)
def test_the_resource_server_is_named_in_any_of_three_ways(world: World, target: dict[str, str]) -> None:
    answer = world.exchange(world.granted().grant, **target)
    assert answer.status_code == 200, answer.text
    assert claims_of(world, answer.json()["access_token"])["aud"] == MARKET


def test_no_resource_server_at_all_is_no_target(world: World) -> None:
    grant = world.granted().grant
    with world.nothing_happens("target.missing"):
        world.refuses(world.exchange(grant, action=world.action(locations=None)), "invalid_target")


def test_facts_on_record_are_filled_in(world: World) -> None:
    action = world.action(locations=[SHOP], merchant=None)
    body = world.exchange(world.granted().grant, action=action).json()
    assert body["authorization_details"] == [world.action(locations=[SHOP], merchant=MERCHANT)]


def test_the_agents_own_client_id_may_be_sent(world: World) -> None:
    answer = world.exchange(world.granted().grant, client_id="basket-helper")
    assert answer.status_code == 200, answer.text


def test_a_refusal_lists_every_limit_that_was_crossed(world: World) -> None:
    grant = world.granted().grant
    action = world.action(
        amount={"currency": "EUR", "value": "92.00"},
        merchant={"id": "m_9", "category": "7995", "country": "US"},
        datatypes=["email"],
    )
    with world.nothing_happens():
        body = world.refuses(world.exchange(grant, action=action), "invalid_authorization_details")
    assert {v["constraint"]: (v.get("requested"), v.get("allowed")) for v in body["violations"]} == {
        "limits.per_action": ("92.00", "80.00"),
        "merchants.categories": ("7995", ["5411", "5811-5814"]),
        "merchants.countries": ("US", ["NL", "BE"]),
        "datatypes": (["email"], ["shipping_address"]),
    }


def test_what_is_left_of_the_total_is_told(world: World) -> None:
    grant = world.granted(limits={"currency": "EUR", "per_action": "80.00", "total": "100.00"}).grant
    assert world.exchange(grant).status_code == 200
    action = world.action(amount={"currency": "EUR", "value": "60.00"})
    with world.nothing_happens("limits.total"):
        body = world.refuses(world.exchange(grant, action=action), "invalid_authorization_details")
    assert body["violations"] == [{"constraint": "limits.total", "requested": "60.00", "allowed": "57.50"}]


def test_an_action_that_needs_approval_is_refused_until_there_are_approvals(world: World) -> None:
    grant = world.granted(approval={"above": "40.00"}).grant
    with world.nothing_happens("approval"):
        body = world.refuses(world.exchange(grant), "access_denied")
    assert body["violations"] == [{"constraint": "approval"}]
    assert "approval is required" in body["error_description"]


def test_an_agent_registered_for_less_gets_less(world: World) -> None:
    from authserver.actors import agents
    from tests.world import make_agent

    now = world.clock.now()
    searcher = make_agent(
        "searcher", "spiffe://example.org/agent/searcher", now, actions=frozenset({"catalog.search"})
    )
    world.services.database.write(lambda connection: agents.create(connection, searcher))
    grant = world.granted(agent="searcher").grant
    with world.nothing_happens("actions"):
        world.refuses(
            world.exchange(grant, actor_token=world.assertion(searcher.subject)),
            "invalid_authorization_details",
            constraint="actions",
        )


# --- Idempotency-Key ----------------------------------------------------------------------------------------


def test_a_retry_with_the_same_key_gets_the_same_action(world: World) -> None:
    form = world.form(world.granted().grant)
    first = world.post("/oauth/token", form, {"Idempotency-Key": "k-1"}).json()
    held = world.rows()
    world.clock.advance(seconds=20)
    retry = form | {"actor_token": world.assertion()}
    second = world.post("/oauth/token", retry, {"Idempotency-Key": "k-1"}).json()
    assert world.rows() == held
    assert second["action_id"] == first["action_id"]
    assert second["expires_in"] == first["expires_in"] - 20
    one, two = (claims_of(world, answer["access_token"]) for answer in (first, second))
    assert one == two


def test_without_a_key_a_repeated_request_is_a_new_action(world: World) -> None:
    form = world.form(world.granted().grant)
    ids = {world.post("/oauth/token", form).json()["action_id"] for _ in range(2)}
    assert len(ids) == 2


def test_a_key_does_not_bring_back_a_token_that_has_ended(world: World) -> None:
    form = world.form(world.granted().grant)
    assert world.post("/oauth/token", form, {"Idempotency-Key": "k-1"}).status_code == 200
    world.clock.advance(seconds=121)
    with world.nothing_happens("idempotency_key.ended"):
        world.refuses(world.post("/oauth/token", form, {"Idempotency-Key": "k-1"}), "invalid_request")


def test_a_refused_request_leaves_its_key_free(world: World) -> None:
    grant = world.granted().grant
    dear = world.action(amount={"currency": "EUR", "value": "99.00"})
    assert world.exchange(grant, action=dear, headers={"Idempotency-Key": "k-1"}).status_code == 400
    assert world.exchange(grant, headers={"Idempotency-Key": "k-1"}).status_code == 200


# --- audit --------------------------------------------------------------------------------------------------


def test_a_permit_leaves_one_event_that_says_who_and_what(world: World) -> None:
    granted = world.granted()
    before = len(world.events())
    body = world.exchange(granted.grant).json()
    [event] = world.events()[before:]
    assert event["event"] == "exchange.permitted"
    assert event["client_id"] == "basket-helper"
    assert event["delegation_id"] == granted.grant_id
    assert event["action_id"] == body["action_id"]
    assert event["data"]["asked"] == world.action()
    assert event["data"]["resource_server"] == MARKET


def test_a_refusal_leaves_one_event_that_names_the_rule(world: World) -> None:
    granted = world.granted()
    before = len(world.events())
    world.exchange(granted.grant, action=world.action(merchant=MERCHANT | {"country": "US"}))
    [event] = world.events()[before:]
    assert event["event"] == "exchange.refused"
    assert event["rule"] == "merchants.countries"
    assert event["client_id"] == "basket-helper"
    assert event["data"]["violations"][0]["requested"] == "US"


def test_no_event_holds_a_token(world: World) -> None:
    granted = world.granted()
    form = world.form(granted.grant)
    token = world.post("/oauth/token", form).json()["access_token"]
    world.post("/oauth/token", form | {"actor_token": form["actor_token"][:-4] + "AAAA"})
    written = json.dumps(world.events())
    for secret in (granted.grant, form["actor_token"], token):
        assert secret not in written
        assert secret.rsplit(".", 1)[1] not in written


# --- what a review found ------------------------------------------------------------------------------------


def test_a_delegation_that_names_no_place_is_good_at_none(world: World) -> None:
    """Contract §4: `"any"` must be said."""
    grant = world.granted(
        actions=["catalog.search"], locations=None, limits=None, merchants=None, datatypes=None
    ).grant
    with world.nothing_happens("locations"):
        answer = world.exchange(grant, authorization_details=None, scope="catalog.search", resource=MARKET)
        world.refuses(answer, "invalid_authorization_details", constraint="locations")


def test_one_assertion_may_be_actor_and_client_even_where_it_is_good_once(
    sqlite_url: str, tmp_path: Path
) -> None:
    directory = tmp_path / "world"
    domain = example_org(directory) | {"refuse_repeated_jti": True}
    with running_world(sqlite_url, directory, trust_domains=[domain]) as world:
        assertion = world.assertion()
        answer = world.exchange(
            world.granted().grant,
            actor_token=assertion,
            client_assertion=assertion,
            client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
        )
        assert answer.status_code == 200, answer.text
        again = world.exchange(world.granted().grant, actor_token=assertion)
        world.refuses(again, "invalid_request")


def test_a_server_whose_clock_is_behind_signs_at_once(world: World) -> None:
    begun = (world.clock.now() - timedelta(hours=1)).isoformat()
    grant = world.granted(not_before=begun).grant
    world.clock.advance(seconds=-20)
    assert world.exchange(grant).status_code == 200


def test_a_word_that_the_catalogue_lost_ends_nothing_else(world: World) -> None:
    from dataclasses import replace

    granted = world.granted(actions=["payment.finalize", "subscription.renew"])
    token = world.exchange(granted.grant).json()["access_token"]
    entries = dict(world.services.vocabulary.catalogue.entries)
    del entries["subscription.renew"]
    vocabulary = replace(world.services.vocabulary, catalogue=Catalogue(entries))
    later = replace(world.services, vocabulary=vocabulary, stored=StoredDetails())
    claims = introspect(later, token, a_market(world), world.clock.now())
    assert claims is not None
    soon = world.clock.now() + timedelta(seconds=120)
    assert upkeep.tidy(later, soon).reservations == 1
