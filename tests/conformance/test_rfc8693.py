"""OAuth 2.0 Token Exchange (RFC 8693), as contract §6 profiles it."""

import pytest
from joserfc.jwk import ECKey

from authserver.actors import agents
from tests.attacks.making import handed_on
from tests.conformance.tokens import (
    JWT_BEARER,
    JWT_SPIFFE,
    claims_of,
    jwks_of,
    own_assertion,
    token_of,
    verified,
)
from tests.world import ACCESS_TOKEN, BASKET_HELPER, JWT, MARKET, PRICE_SCOUT, World, make_agent

GRANT = "urn:authserver:token-type:delegation-grant"
OTHER_TYPES = [
    *(f"urn:ietf:params:oauth:token-type:{name}" for name in ("refresh_token", "id_token", "saml1", "saml2")),
    "jwt",
    JWT.upper(),
    f"{JWT} ",
    "urn:example:anything",
]


# --- §2.1: the request --------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject_token_type", [JWT, GRANT])
def test_a_grant_is_exchanged_under_either_of_its_types(world: World, subject_token_type: str) -> None:
    """§2.1: `subject_token_type` says what `subject_token` is."""
    answer = world.exchange(world.granted().grant, subject_token_type=subject_token_type)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", ["subject_token", "subject_token_type", "actor_token", "actor_token_type"])
def test_a_token_without_its_type_and_a_type_without_its_token_are_refused(
    shared_world: World, shared_grant: str, name: str
) -> None:
    """§2.1: each is required with the other; the actor's pair is always required here."""
    form = shared_world.form(shared_grant)
    del form[name]
    with shared_world.nothing_happens(f"form.{name}"):
        shared_world.refuses(shared_world.post("/oauth/token", form), "invalid_request")


@pytest.mark.parametrize("token_type", [*OTHER_TYPES, ACCESS_TOKEN])
def test_a_subject_token_of_another_type_is_refused(
    shared_world: World, shared_grant: str, token_type: str
) -> None:
    """§2.1 and §3: type identifiers are compared letter by letter."""
    with shared_world.nothing_happens("form.subject_token_type"):
        answer = shared_world.exchange(shared_grant, subject_token_type=token_type)
        shared_world.refuses(answer, "invalid_request")


@pytest.mark.parametrize("token_type", [*OTHER_TYPES, ACCESS_TOKEN, GRANT])
def test_an_actor_token_of_another_type_is_refused(
    shared_world: World, shared_grant: str, token_type: str
) -> None:
    """§2.1 and §3."""
    with shared_world.nothing_happens("form.actor_token_type"):
        answer = shared_world.exchange(shared_grant, actor_token_type=token_type)
        shared_world.refuses(answer, "invalid_request")


def test_an_access_token_may_be_asked_for_by_its_name(shared_world: World, shared_grant: str) -> None:
    """§2.1: `requested_token_type`."""
    answer = shared_world.exchange(shared_grant, requested_token_type=ACCESS_TOKEN)
    assert answer.json()["issued_token_type"] == ACCESS_TOKEN


@pytest.mark.parametrize("token_type", [*OTHER_TYPES, JWT])
def test_another_requested_type_is_refused(shared_world: World, shared_grant: str, token_type: str) -> None:
    """§2.1 and §2.2.2: a type that cannot be issued is `invalid_request`."""
    with shared_world.nothing_happens("form.requested_token_type"):
        answer = shared_world.exchange(shared_grant, requested_token_type=token_type)
        shared_world.refuses(answer, "invalid_request")


def test_resource_and_audience_may_both_name_the_target(shared_world: World, shared_grant: str) -> None:
    """§2.1: they may be used together."""
    answer = shared_world.exchange(shared_grant, resource=MARKET, audience="rs_market")
    assert claims_of(answer.json()["access_token"])["aud"] == MARKET


def test_the_grant_is_left_as_it_was(shared_world: World) -> None:
    """§1.1 and §2.1: the exchange uses up neither token, unless its own rules say so."""
    form = shared_world.form(shared_world.granted().grant)
    assert [shared_world.post("/oauth/token", form).status_code for _ in range(2)] == [200, 200]


# --- §2.2: the answer ---------------------------------------------------------------------------------------


def test_the_answer_says_what_was_issued_how_to_use_it_and_for_how_long(shared_world: World) -> None:
    """§2.2.1: `access_token`, `issued_token_type`, `token_type`, `expires_in`."""
    body = shared_world.exchange(shared_world.granted().grant).json()
    assert set(body) == {
        *("access_token", "issued_token_type", "token_type", "expires_in"),
        *("authorization_details", "action_id"),  # RFC 9396 §7, contract §6
    }
    assert (body["issued_token_type"], body["token_type"]) == (ACCESS_TOKEN, "Bearer")
    claims = claims_of(body["access_token"])
    assert claims["exp"] - claims["iat"] == body["expires_in"] > 0


def test_the_scope_is_told_where_one_was_asked_for(shared_world: World, shared_grant: str) -> None:
    """§2.2.1: `scope`."""
    answer = shared_world.exchange(
        shared_grant, authorization_details=None, scope="catalog.search", audience="rs_market"
    )
    assert answer.json()["scope"] == "catalog.search"


@pytest.mark.parametrize("which", ["subject_token", "actor_token"])
@pytest.mark.parametrize("how", ["forged", "not a token", "the other token"])
def test_an_unacceptable_token_is_an_invalid_request(
    shared_world: World, shared_grant: str, which: str, how: str
) -> None:
    """§2.2.2: `invalid_request` for a subject or actor token that is invalid or unacceptable."""
    form = shared_world.form(shared_grant)
    other = {"subject_token": "actor_token", "actor_token": "subject_token"}[which]
    signed = form[which].rsplit(".", 1)[0]
    bad = {"forged": f"{signed}.{'A' * 86}", "not a token": "abc", "the other token": form[other]}[how]
    with shared_world.nothing_happens():
        shared_world.refuses(shared_world.post("/oauth/token", form | {which: bad}), "invalid_request")


def test_an_unknown_target_is_an_invalid_target(shared_world: World, shared_grant: str) -> None:
    """§2.2.2: `invalid_target`."""
    with shared_world.nothing_happens("target.unknown"):
        answer = shared_world.exchange(shared_grant, audience="https://nobody.example")
        shared_world.refuses(answer, "invalid_target")


def test_a_client_that_fails_to_authenticate_is_an_invalid_client(
    shared_world: World, shared_grant: str
) -> None:
    """§2.2.2 and RFC 6749 §5.2: 401 `invalid_client`, unlike an actor token that is not good."""
    form = shared_world.form(
        shared_grant,
        client_assertion_type=JWT_SPIFFE,
        client_assertion=shared_world.assertion()[:-4] + "AAAA",
    )
    with shared_world.nothing_happens("jws.signature"):
        shared_world.refuses(shared_world.post("/oauth/token", form), "invalid_client", status=401)


# --- §1.1, §4: who acts for whom ----------------------------------------------------------------------------


def test_the_token_names_the_user_as_subject_and_the_agent_as_actor(world: World) -> None:
    """§1.1 and §4.1: delegation, not impersonation. Only what identifies the actor is in `act`."""
    granted = world.granted()
    claims = verified(world, token_of(world, granted.grant))
    assert claims["act"] == {"iss": "spiffe://example.org", "sub": BASKET_HELPER}
    assert claims["sub"] not in (BASKET_HELPER, "basket-helper")
    assert claims["client_id"] == "basket-helper"  # §4.3
    assert "may_act" not in claims


def test_earlier_actors_are_nested_in_the_current_one(shared_world: World) -> None:
    """§4.1: the outermost actor is the current one, and the one before it is inside."""
    child = handed_on(shared_world, shared_world.granted(redelegation={"depth": 1}))
    token = token_of(shared_world, child.grant, actor_token=shared_world.assertion(PRICE_SCOUT))
    assert verified(shared_world, token)["act"] == {
        "iss": "spiffe://example.org",
        "sub": PRICE_SCOUT,
        "act": {"iss": "spiffe://example.org", "sub": BASKET_HELPER},
    }


def test_a_grant_names_the_one_party_that_may_act(shared_world: World) -> None:
    """§4.4: `may_act` identifies the actor by `iss` and `sub`."""
    claims = verified(shared_world, shared_world.granted().grant)
    assert claims["may_act"] == {"iss": "spiffe://example.org", "sub": BASKET_HELPER}


def test_nobody_else_may_act(world: World) -> None:
    """§4.4: another good workload does not fit the grant."""
    grant = world.granted().grant
    with world.nothing_happens("grant.may_act"):
        answer = world.exchange(grant, actor_token=world.assertion(PRICE_SCOUT))
        world.refuses(answer, "invalid_request")


def test_a_workload_that_is_no_agent_may_not_act(shared_world: World, shared_grant: str) -> None:
    """§4.4, contract §3: the subject matches one registered agent, as exact text."""
    for subject in (f"{BASKET_HELPER}/2", BASKET_HELPER[:-1], "spiffe://example.org/unheard/of"):
        with shared_world.nothing_happens("actor.unknown_agent"):
            answer = shared_world.exchange(shared_grant, actor_token=shared_world.assertion(subject))
            shared_world.refuses(answer, "invalid_request")


# --- contract §3: client_id and client_assertion beside the actor ---------------------------------------------


def test_the_client_may_authenticate_as_the_actor_too(sqlite_world: World) -> None:
    """§2.1: client authentication is the server's choice; a client_id or client_assertion names the same agent."""
    key, now = ECKey.generate_key("P-256"), sqlite_world.clock.now()
    agent = make_agent("keyed", "spiffe://example.org/agent/keyed", now, jwks=jwks_of(key))
    sqlite_world.services.database.write(lambda connection: agents.create(connection, agent))
    grant, actor = sqlite_world.granted(agent="keyed").grant, sqlite_world.assertion(agent.subject)
    ways = [
        {"client_id": "keyed"},
        {"client_assertion_type": JWT_SPIFFE, "client_assertion": actor},
        {
            "client_assertion_type": JWT_BEARER,
            "client_assertion": own_assertion(sqlite_world, "keyed", key),
            "client_id": "keyed",
        },
    ]
    for way in ways:
        answer = sqlite_world.exchange(grant, actor_token=actor, **way)
        assert answer.status_code == 200, answer.text


def test_the_client_is_never_another_than_the_actor(shared_world: World, shared_grant: str) -> None:
    """§1.1 and §2.1: a client_id of another agent is malformed, an assertion of another agent fails."""
    with shared_world.nothing_happens("client.other_agent"):
        shared_world.refuses(shared_world.exchange(shared_grant, client_id="price-scout"), "invalid_request")
    other = {
        "client_assertion_type": JWT_SPIFFE,
        "client_assertion": shared_world.assertion(PRICE_SCOUT),
    }
    with shared_world.nothing_happens("client.other_agent"):
        shared_world.refuses(shared_world.exchange(shared_grant, **other), "invalid_client", status=401)
