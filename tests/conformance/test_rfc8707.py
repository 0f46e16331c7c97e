"""Resource Indicators (RFC 8707): which resource server a token is for. Here there is exactly one."""

from collections.abc import Mapping

import httpx
import pytest

from authserver.actors import resource_servers
from tests.conformance.tokens import claims_of, verified
from tests.world import MARKET, SHOP, World

LOOK_ALIKES = [
    "https://market.example/api/",
    "https://market.example/API",
    "https://MARKET.example/api",
    "HTTPS://market.example/api",
    "https://market.example:443/api",
    "https://market.example/./api",
    "https://market.example/x/../api",
    "https://market.example/%61pi",
    "https://market.example//api",
    "https://user@market.example/api",
    "https://market.example/api?",
    "https://market.example/api?x=1",
    "https://market.example/api#",
    "https://market.example/api#part",
    "https://market.example",
    "https://market.example/api/more",
    "https://market.example.evil.example/api",
    "http://market.example/api",
    " https://market.example/api",
    "https://marкet.example/api",
]
NOT_ABSOLUTE = ["/api", "market.example/api", "//market.example/api", "?x=1", "#part", "api", "rs_market"]


def twice(world: World, grant: str, name: str, values: list[str]) -> httpx.Response:
    """An exchange in which a parameter is repeated."""
    return world.client.post("/oauth/token", data={**world.form(grant), name: values})


@pytest.mark.parametrize("action", ["catalog.search", "payment.finalize"])
def test_the_resource_is_the_tokens_audience(shared_world: World, action: str) -> None:
    """§2.2: the token is for the resource that was asked for, which is its `aud`."""
    for resource in (MARKET, SHOP):
        asked = shared_world.action(locations=None, actions=[action])
        answer = shared_world.exchange(shared_world.granted().grant, action=asked, resource=resource)
        assert verified(shared_world, answer.json()["access_token"])["aud"] == resource


def test_the_resource_is_told_as_the_place_of_the_action(shared_world: World, shared_grant: str) -> None:
    """§2.2 and RFC 9396 §2.2: the granted `locations` are the resource."""
    answer = shared_world.exchange(shared_grant, action=shared_world.action(locations=None), resource=MARKET)
    assert answer.json()["authorization_details"][0]["locations"] == [MARKET]


@pytest.mark.parametrize("resource", NOT_ABSOLUTE)
def test_a_resource_that_is_no_absolute_uri_is_refused(
    shared_world: World, shared_grant: str, resource: str
) -> None:
    """§2: an absolute URI; the logical name of a target belongs in `audience` (RFC 8693 §2.1)."""
    with shared_world.nothing_happens("target.unknown"):
        shared_world.refuses(shared_world.exchange(shared_grant, resource=resource), "invalid_target")


@pytest.mark.parametrize("resource", LOOK_ALIKES)
def test_a_resource_is_compared_letter_by_letter(
    shared_world: World, shared_grant: str, resource: str
) -> None:
    """§2: no fragment, and nothing but the registered identifier names a resource server."""
    asked = shared_world.action(locations=None)
    with shared_world.nothing_happens("target.unknown"):
        answer = shared_world.exchange(shared_grant, action=asked, resource=resource)
        shared_world.refuses(answer, "invalid_target")


@pytest.mark.parametrize("name", ["resource", "audience"])
@pytest.mark.parametrize("values", [[MARKET, SHOP], [MARKET, MARKET]], ids=["different", "same"])
def test_a_token_is_for_one_place(
    shared_world: World, shared_grant: str, name: str, values: list[str]
) -> None:
    """§2 allows several, and a server may refuse what it cannot serve: a token for one action has one place."""
    with shared_world.nothing_happens("target.several"):
        shared_world.refuses(twice(shared_world, shared_grant, name, values), "invalid_target")


@pytest.mark.parametrize(
    "names",
    [
        {"resource": SHOP},
        {"audience": SHOP},
        {"audience": "rs_shop"},
        {"resource": MARKET, "audience": "rs_shop"},
        {"resource": SHOP, "audience": "rs_market"},
    ],
    ids=str,
)
def test_members_that_name_different_places_are_refused(
    shared_world: World, shared_grant: str, names: Mapping[str, str]
) -> None:
    """§2.2: `invalid_target`; the details name the market."""
    with shared_world.nothing_happens("target.several"):
        shared_world.refuses(shared_world.exchange(shared_grant, **names), "invalid_target")


def test_no_resource_at_all_is_refused(shared_world: World, shared_grant: str) -> None:
    """§2.2: `invalid_target` where nothing says what the token is for."""
    with shared_world.nothing_happens("target.missing"):
        answer = shared_world.exchange(shared_grant, action=shared_world.action(locations=None))
        shared_world.refuses(answer, "invalid_target")


def test_the_details_may_name_the_resource_alone(shared_world: World, shared_grant: str) -> None:
    """§2, contract §6: the parameter is optional where `locations` has it."""
    token = shared_world.exchange(shared_grant).json()["access_token"]
    assert claims_of(token)["aud"] == MARKET


def test_a_resource_server_that_was_disabled_is_no_target(sqlite_world: World) -> None:
    """§2.2: a target that the server is not willing to issue tokens for."""
    grant = sqlite_world.granted().grant
    now = sqlite_world.clock.now()
    sqlite_world.services.database.write(
        lambda connection: resource_servers.disable(connection, "rs_market", now)
    )
    with sqlite_world.nothing_happens("target.unknown"):
        sqlite_world.refuses(sqlite_world.exchange(grant), "invalid_target")


def test_a_place_outside_the_delegation_is_a_limit_that_was_crossed(sqlite_world: World) -> None:
    """§2.2 and contract §6: the target is known, the user did not allow it."""
    grant = sqlite_world.granted(locations=[SHOP]).grant
    with sqlite_world.nothing_happens("locations"):
        sqlite_world.refuses(
            sqlite_world.exchange(grant), "invalid_authorization_details", constraint="locations"
        )
