"""Token Revocation (RFC 7009): agents end their action tokens and their delegations."""

import httpx
import pytest

from tests.conformance.tokens import JWT_SPIFFE, token_of
from tests.world import BASKET_HELPER, PRICE_SCOUT, World


def revoke(world: World, token: str, subject: str = BASKET_HELPER, **more: str) -> httpx.Response:
    """An agent's request, authenticated by its workload assertion."""
    return world.post(
        "/oauth/revoke",
        {"token": token, "client_assertion_type": JWT_SPIFFE, "client_assertion": world.assertion(subject)}
        | more,
    )


def test_a_token_that_was_revoked_is_inactive_at_once(world: World) -> None:
    """§2 and §2.2: 200, and the token cannot be used any more."""
    token = token_of(world)
    answer = revoke(world, token)
    assert answer.status_code == 200
    assert world.introspect(token) == {"active": False}
    assert world.rows().reserved == 0  # contract §7: it voids its reservation


def test_one_token_is_revoked_and_no_other(shared_world: World) -> None:
    """§2.1: the one that the request names."""
    grant = shared_world.granted().grant
    one, other = token_of(shared_world, grant), token_of(shared_world, grant)
    revoke(shared_world, one)
    assert shared_world.introspect(other)["active"]
    assert shared_world.exchange(grant).status_code == 200


def test_revoking_a_grant_ends_what_came_of_it(world: World) -> None:
    """§2.1: with the authorization grant all access tokens based on it end; no new ones come of it."""
    grant = world.granted().grant
    tokens = [token_of(world, grant) for _ in range(2)]
    assert revoke(world, grant).status_code == 200
    assert [world.introspect(token)["active"] for token in tokens] == [False, False]
    world.refuses(world.exchange(grant), "invalid_request")


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "unheard_of", "é"])
def test_a_hint_is_only_a_hint(sqlite_world: World, hint: str) -> None:
    """§2.1: whatever `token_type_hint` says, the server looks for the token among all kinds."""
    granted = sqlite_world.granted()
    token = token_of(sqlite_world, granted.grant)
    for revoked in (token, granted.grant):
        assert revoke(sqlite_world, revoked, token_type_hint=hint).status_code == 200
    assert sqlite_world.introspect(token) == {"active": False}
    assert sqlite_world.exchange(granted.grant).status_code == 400


def test_the_token_is_required(sqlite_world: World) -> None:
    """§2.1 and §2.2.1: `invalid_request`."""
    for token in ("", None):
        form = {"client_assertion_type": JWT_SPIFFE, "client_assertion": sqlite_world.assertion()}
        form |= {} if token is None else {"token": token}
        with sqlite_world.nothing_happens("form.token", "token_revocation.refused"):
            sqlite_world.refuses(sqlite_world.post("/oauth/revoke", form), "invalid_request")


@pytest.mark.parametrize("token", ["x", "a.b.c", "e30.e30.e30", "é", "a" * 20_000])
def test_what_is_no_token_is_no_error(shared_world: World, token: str) -> None:
    """§2.2: an invalid token has the end that the client wants."""
    assert revoke(shared_world, token).status_code == 200


def test_a_token_may_be_revoked_again_and_after_its_end(sqlite_world: World) -> None:
    """§2.2."""
    granted = sqlite_world.granted()
    token = token_of(sqlite_world, granted.grant)
    assert [revoke(sqlite_world, token).status_code for _ in range(2)] == [200, 200]
    assert [revoke(sqlite_world, granted.grant).status_code for _ in range(2)] == [200, 200]
    sqlite_world.clock.advance(days=31)
    assert [revoke(sqlite_world, text).status_code for text in (token, granted.grant)] == [200, 200]


def test_the_answer_says_nothing(sqlite_world: World) -> None:
    """§2.2: what happened is in the status alone, the same for every token."""
    token = token_of(sqlite_world)
    answers = [revoke(sqlite_world, text) for text in (token, token, "x")]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"{}")}


def test_another_agents_token_is_left_alone(shared_world: World) -> None:
    """§2.1: the token must be the client's own. Contract and threat A32: others are not told what it is."""
    granted = shared_world.granted()
    token = token_of(shared_world, granted.grant)
    for text in (token, granted.grant):
        with shared_world.nothing_happens("revocation.unknown_token", "token_revocation.refused"):
            assert revoke(shared_world, text, PRICE_SCOUT).status_code == 200
    assert shared_world.introspect(token)["active"]
    assert shared_world.exchange(granted.grant).status_code == 200


def test_nobody_revokes_without_authentication(sqlite_world: World) -> None:
    """§2.1: the client's credentials are looked at first."""
    token = token_of(sqlite_world)
    for form in ({}, {"client_id": "basket-helper"}):
        with sqlite_world.nothing_happens(event="token_revocation.refused"):
            answer = sqlite_world.post("/oauth/revoke", {"token": token} | form)
            sqlite_world.refuses(answer, "invalid_client", status=401)
    assert sqlite_world.introspect(token)["active"]


def test_a_resource_server_does_not_revoke(sqlite_world: World) -> None:
    """§2.1 and §2.2.1: tokens are revoked by the client they were issued to (contract §7)."""
    token = token_of(sqlite_world)
    with sqlite_world.nothing_happens("revocation.not_an_agent", "token_revocation.refused"):
        answer = sqlite_world.client.post(
            "/oauth/revoke", data={"token": token}, auth=(sqlite_world.market_id, sqlite_world.market_secret)
        )
        sqlite_world.refuses(answer, "unauthorized_client")
    assert sqlite_world.introspect(token)["active"]


def test_the_endpoint_is_in_the_metadata(shared_world: World) -> None:
    """§2 and RFC 8414 §2."""
    document = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    assert document["revocation_endpoint"] == f"{shared_world.issuer}/oauth/revoke"
    assert "private_key_jwt" in document["revocation_endpoint_auth_methods_supported"]
