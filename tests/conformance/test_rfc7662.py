"""Token Introspection (RFC 7662): what a resource server is told of a token."""

from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey

from tests.conformance.tokens import JWT_SPIFFE, claims_of, dpop_proof, token_of
from tests.world import MARKET, SHOP, World

INACTIVE = {"active": False}


def ask(world: World, form: dict[str, Any]) -> httpx.Response:
    """A request of the market, by its secret."""
    return world.client.post("/oauth/introspect", data=form, auth=(world.market_id, world.market_secret))


def test_a_live_token_is_active_and_its_claims_are_told(world: World) -> None:
    """§2.2: `active`, and the members that the token itself has, with the same values."""
    token = token_of(world, task_id="task-1")
    assert world.introspect(token) == claims_of(token) | {"active": True, "token_type": "Bearer"}


def test_the_members_have_the_types_of_the_rfc(shared_world: World) -> None:
    """§2.2."""
    grant = shared_world.granted().grant
    body = shared_world.introspect(
        token_of(shared_world, grant, authorization_details=None, scope="catalog.search", resource=MARKET)
    )
    assert body["active"] is True
    assert all(type(body[name]) is int for name in ("exp", "iat"))
    names = ("scope", "client_id", "token_type", "sub", "aud", "iss", "jti")
    assert all(isinstance(body[name], str) for name in names)


def test_a_bound_token_is_told_with_its_binding(sqlite_world: World) -> None:
    """§2.2: `token_type`; RFC 9449 §6.2: `cnf`."""
    key = ECKey.generate_key("P-256")
    proof = dpop_proof(sqlite_world, key)
    token = token_of(sqlite_world, headers={"DPoP": proof})
    body = sqlite_world.introspect(token)
    assert body["token_type"] == "DPoP"
    assert body["cnf"] == {"jkt": key.thumbprint()}


def test_a_token_is_active_until_its_last_second(sqlite_world: World) -> None:
    """§2.2 and RFC 7519 §4.1.4: on or after `exp` it is not."""
    token = token_of(sqlite_world)
    sqlite_world.clock.advance(seconds=119)
    assert sqlite_world.introspect(token)["active"]
    sqlite_world.clock.advance(seconds=1)
    assert sqlite_world.introspect(token) == INACTIVE


@pytest.mark.parametrize("token", ["x", "a.b.c", "e30.e30.e30", "é", "a" * 20_000])
def test_what_is_no_token_is_inactive(shared_world: World, token: str) -> None:
    """§2.2: not an error, and nothing more is told."""
    answer = ask(shared_world, {"token": token})
    assert (answer.status_code, answer.json()) == (200, INACTIVE)


def test_a_forged_token_is_inactive(shared_world: World, shared_grant: str) -> None:
    """§4: the signature is checked."""
    one, other = (token_of(shared_world, shared_grant) for _ in range(2))
    forged = f"{one.rsplit('.', 1)[0]}.{other.rsplit('.', 1)[1]}"
    assert shared_world.introspect(forged) == INACTIVE


def test_other_tokens_of_this_server_are_inactive(shared_world: World, shared_grant: str) -> None:
    """§2.2: they are no tokens that the resource server may take."""
    claims = claims_of(token_of(shared_world, shared_grant))
    status_list = shared_world.client.get(claims["status"]["status_list"]["uri"]).text
    for text in (shared_grant, status_list, shared_world.assertion()):
        assert shared_world.introspect(text) == INACTIVE


def test_a_token_for_another_resource_server_is_inactive(world: World) -> None:
    """§2.2 and §4: it must be for the resource server that asks; to others it does not exist."""
    token = token_of(world, action=world.action(locations=[SHOP]))
    assert world.introspect(token) == INACTIVE
    assert world.introspect(token, server="shop")["active"]


def test_an_agent_sees_no_token_as_active(sqlite_world: World) -> None:
    """§2.1 and §4: it may authenticate, and still is not the audience (contract §7)."""
    token = token_of(sqlite_world)
    form = {"client_assertion_type": JWT_SPIFFE, "client_assertion": sqlite_world.assertion()}
    answer = sqlite_world.post("/oauth/introspect", {"token": token} | form)
    assert (answer.status_code, answer.json()) == (200, INACTIVE)


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "unheard_of"])
def test_a_hint_is_only_a_hint(shared_world: World, shared_grant: str, hint: str) -> None:
    """§2.1: `token_type_hint`."""
    token = token_of(shared_world, shared_grant)
    assert ask(shared_world, {"token": token, "token_type_hint": hint}).json()["active"]


@pytest.mark.parametrize("form", [{"token": ""}, {"token_type_hint": "access_token"}], ids=str)
def test_the_token_is_required(shared_world: World, form: dict[str, str]) -> None:
    """§2.1; RFC 6749 §5.2."""
    with shared_world.nothing_happens("form.token", "introspection.refused"):
        shared_world.refuses(ask(shared_world, form), "invalid_request")


def test_a_caller_who_does_not_authenticate_is_told_nothing(sqlite_world: World) -> None:
    """§2.1 and §2.3: 401, whatever the token."""
    for token in (token_of(sqlite_world), "x"):
        for form in ({}, {"client_id": "rs_market"}):
            with sqlite_world.nothing_happens("client.none", "introspection.refused"):
                answer = sqlite_world.post("/oauth/introspect", {"token": token} | form)
                sqlite_world.refuses(answer, "invalid_client", status=401)


def test_a_token_does_not_authenticate_its_caller(sqlite_world: World) -> None:
    """§2.1 allows bearer tokens for this; this server takes client authentication alone."""
    token = token_of(sqlite_world)
    answer = sqlite_world.post("/oauth/introspect", {"token": token}, {"Authorization": f"Bearer {token}"})
    sqlite_world.refuses(answer, "invalid_client", status=401)


def test_an_answer_is_json_that_nobody_keeps(sqlite_world: World) -> None:
    """§2.2 and contract, opening: what it tells is worth protecting."""
    answer = ask(sqlite_world, {"token": token_of(sqlite_world)})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


def test_the_endpoint_is_in_the_metadata(shared_world: World) -> None:
    """RFC 8414 §2."""
    document = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    assert document["introspection_endpoint"] == f"{shared_world.issuer}/oauth/introspect"
    assert {"client_secret_basic", "private_key_jwt"} <= set(
        document["introspection_endpoint_auth_methods_supported"]
    )
