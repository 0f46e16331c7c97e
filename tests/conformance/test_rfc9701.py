"""JWT responses for token introspection (RFC 9701)."""

import httpx
import pytest

from tests.conformance.tokens import header_of, token_of, verified
from tests.world import MARKET, SHOP, World

JWT_ANSWER = "application/token-introspection+jwt"


def ask(world: World, token: str, accept: str = JWT_ANSWER, server: str = "market") -> httpx.Response:
    """A request of a resource server that wants its answer in that form."""
    names = {"market": (world.market_id, world.market_secret), "shop": (world.shop_id, world.shop_secret)}
    return world.client.post(
        "/oauth/introspect", data={"token": token}, auth=names[server], headers={"Accept": accept}
    )


def test_who_accepts_a_jwt_gets_one(world: World) -> None:
    """§4 and §5: by the Accept header; the answer's media type is that of the JWT."""
    answer = ask(world, token_of(world))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == JWT_ANSWER
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "accept",
    ["application/json", "*/*", "application/*", f"application/json, {JWT_ANSWER};q=0.5", "text/html"],
)
def test_who_does_not_ask_for_a_jwt_gets_json(shared_world: World, shared_grant: str, accept: str) -> None:
    """§4: RFC 7662 is the rule, the JWT is what a caller asks for."""
    answer = ask(shared_world, token_of(shared_world, shared_grant), accept)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["active"]


def test_who_prefers_a_jwt_gets_one(shared_world: World, shared_grant: str) -> None:
    """§4, RFC 9110 §12.5.1."""
    token = token_of(shared_world, shared_grant)
    for accept in (f"{JWT_ANSWER}, application/json;q=0.5", f"application/json;q=0.5, {JWT_ANSWER}"):
        assert ask(shared_world, token, accept).headers["content-type"] == JWT_ANSWER


def test_the_header_says_what_kind_of_jwt_it_is(shared_world: World) -> None:
    """§5: `typ` is token-introspection+jwt; signed with a published key."""
    header = header_of(ask(shared_world, token_of(shared_world)).text)
    [key] = shared_world.client.get("/oauth/jwks").json()["keys"]
    assert header == {"typ": "token-introspection+jwt", "alg": "ES256", "kid": key["kid"]}


def test_the_jwt_is_from_the_server_to_the_caller(sqlite_world: World) -> None:
    """§5: `iss`, `aud` (the resource server that asked), `iat`, `token_introspection`, and no `sub` nor `exp`."""
    token = token_of(sqlite_world)
    sqlite_world.clock.advance(seconds=10)
    claims = verified(sqlite_world, ask(sqlite_world, token).text)
    assert set(claims) == {"iss", "aud", "iat", "token_introspection"}
    assert claims["iss"] == sqlite_world.issuer
    assert claims["aud"] == MARKET
    assert claims["iat"] == int(sqlite_world.clock.now().timestamp())


def test_inside_is_what_the_json_answer_says(sqlite_world: World) -> None:
    """§5: `token_introspection` has the members of RFC 7662 §2.2; its `iat` and `exp` are the token's."""
    token = token_of(sqlite_world)
    sqlite_world.clock.advance(seconds=10)
    claims = verified(sqlite_world, ask(sqlite_world, token).text)
    assert claims["token_introspection"] == sqlite_world.introspect(token)
    assert claims["token_introspection"]["iat"] == claims["iat"] - 10


@pytest.mark.parametrize("kind", ["no token", "another's token"])
def test_of_an_inactive_token_nothing_more_is_told(shared_world: World, kind: str) -> None:
    """§5: `active` is false and the only member; the JWT is for the caller all the same."""
    token = "x" if kind == "no token" else token_of(shared_world)
    claims = verified(shared_world, ask(shared_world, token, server="shop").text)
    assert claims["token_introspection"] == {"active": False}
    assert claims["aud"] == SHOP


def test_the_jwt_is_no_token(shared_world: World, shared_grant: str) -> None:
    """§8.1: it is never taken for an access token, a grant or an assertion."""
    told = ask(shared_world, token_of(shared_world, shared_grant)).text
    assert shared_world.introspect(told) == {"active": False}
    for changes in ({"subject_token": told}, {"actor_token": told}):
        with shared_world.nothing_happens():
            shared_world.refuses(shared_world.exchange(shared_grant, **changes), "invalid_request")


def test_who_does_not_authenticate_gets_an_error_as_json(shared_world: World) -> None:
    """§4: authentication comes first; RFC 7662 §2.3."""
    answer = shared_world.post("/oauth/introspect", {"token": "x"}, {"Accept": JWT_ANSWER})
    shared_world.refuses(answer, "invalid_client", status=401)


def test_the_algorithm_is_in_the_metadata(shared_world: World) -> None:
    """§7: `introspection_signing_alg_values_supported`; there is no encryption."""
    document = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    assert document["introspection_signing_alg_values_supported"] == ["ES256"]
    assert not [name for name in document if name.startswith("introspection_encryption")]
