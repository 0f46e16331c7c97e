"""The JWT profile for access tokens (RFC 9068), which action tokens follow."""

import pytest
from joserfc.errors import BadSignatureError

from tests.conformance.tokens import claims_of, header_of, token_of, verified
from tests.world import MARKET, SHOP, World

EVERY_TOKEN_SAYS = {
    *("iss", "exp", "aud", "sub", "client_id", "iat", "jti"),  # §2.2
    *("act", "authorization_details", "grant_id", "status"),  # contract §6
}


def test_the_header_says_that_it_is_an_access_token(shared_world: World) -> None:
    """§2.1: `typ` is at+jwt, the algorithm is asymmetric, and the key is published."""
    header = header_of(token_of(shared_world))
    kids = [key["kid"] for key in shared_world.client.get("/oauth/jwks").json()["keys"]]
    assert header == {"alg": "ES256", "kid": kids[0], "typ": "at+jwt"}


def test_the_signature_is_good_with_the_published_key_and_only_then(shared_world: World) -> None:
    """§4: whoever has the published keys verifies the token."""
    token = token_of(shared_world)
    assert verified(shared_world, token) == claims_of(token)
    other = token_of(shared_world)
    header_and_claims, signature = token.rsplit(".", 1)[0], other.rsplit(".", 1)[1]
    with pytest.raises(BadSignatureError):
        verified(shared_world, f"{header_and_claims}.{signature}")


def test_the_required_claims_are_there_and_no_others(world: World) -> None:
    """§2.2, contract §6."""
    claims = verified(world, token_of(world))
    assert set(claims) == EVERY_TOKEN_SAYS
    assert all(isinstance(claims[name], str) and claims[name] for name in ("sub", "client_id", "jti"))
    assert all(type(claims[name]) is int for name in ("exp", "iat"))


def test_the_issuer_is_the_one_of_the_metadata(shared_world: World) -> None:
    """§2.2 and §4: compared letter by letter with the metadata's `issuer`."""
    metadata = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    assert verified(shared_world, token_of(shared_world))["iss"] == metadata["issuer"]


@pytest.mark.parametrize("place", [MARKET, SHOP])
def test_the_audience_is_one_resource_server(shared_world: World, shared_grant: str, place: str) -> None:
    """§2.2 and §3: `aud` identifies the resource that was asked for, as one string."""
    token = token_of(shared_world, shared_grant, action=shared_world.action(locations=[place]))
    assert verified(shared_world, token)["aud"] == place


@pytest.mark.parametrize(
    ("action", "lifetime"), [("catalog.search", 300), ("order.checkout", 120), ("payment.finalize", 120)]
)
def test_a_token_lives_as_long_as_its_action_may(
    shared_world: World, shared_grant: str, action: str, lifetime: int
) -> None:
    """§2.2: `exp` and `iat`; contract §1: at most 300 seconds."""
    answer = shared_world.exchange(shared_grant, action=shared_world.action(actions=[action]))
    claims = verified(shared_world, answer.json()["access_token"])
    assert claims["iat"] == int(shared_world.clock.now().timestamp())
    assert claims["exp"] - claims["iat"] == answer.json()["expires_in"] == lifetime


def test_every_token_has_its_own_id(shared_world: World, shared_grant: str) -> None:
    """§2.2: `jti` (RFC 7519 §4.1.7: unique)."""
    tokens = [token_of(shared_world, shared_grant) for _ in range(5)]
    assert len({claims_of(token)["jti"] for token in tokens}) == 5


def test_the_subject_is_the_user_and_stays_the_same(shared_world: World) -> None:
    """§2.2: `sub` is the resource owner where one is involved; §6: a name for this resource server alone."""
    first, second = shared_world.granted(), shared_world.granted()
    subjects = {claims_of(token_of(shared_world, granted.grant))["sub"] for granted in (first, second, first)}
    assert len(subjects) == 1
    at_shop = token_of(shared_world, first.grant, action=shared_world.action(locations=[SHOP]))
    assert claims_of(at_shop)["sub"] not in subjects


def test_a_token_says_its_scope_where_one_was_asked_for(shared_world: World, shared_grant: str) -> None:
    """§2.2.3: `scope`; contract §6: never for an action with limits."""
    token = token_of(
        shared_world, shared_grant, authorization_details=None, scope="catalog.search", resource=MARKET
    )
    assert verified(shared_world, token)["scope"] == "catalog.search"
    asked = shared_world.action(actions=["catalog.search"], amount=None, merchant=None)
    assert "scope" not in claims_of(token_of(shared_world, shared_grant, action=asked))


def test_nothing_but_an_action_token_is_an_access_token(shared_world: World, shared_grant: str) -> None:
    """§2.1 and §5: other tokens of this server say that they are something else."""
    claims = claims_of(token_of(shared_world, shared_grant))
    status_list = shared_world.client.get(claims["status"]["status_list"]["uri"]).text
    kinds = [header_of(token)["typ"] for token in (shared_grant, status_list)]
    assert kinds == ["delegation-grant+jwt", "statuslist+jwt"]
