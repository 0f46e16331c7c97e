"""S5: short-lived tokens: two minutes as a rule, five at most, and never longer than what they rest on."""

from datetime import timedelta

import pytest

from authserver.resource_server import InvalidToken
from tests.journeys.kits import agent_of, refusal, verified
from tests.world import World


def test_S5_a_payment_token_lives_two_minutes_and_not_a_second_longer(world: World) -> None:
    issued = agent_of(world).exchange(world.granted().grant, world.action())
    assert issued.expires_in == 120
    world.clock.advance(seconds=119)
    verified(world, issued)
    assert world.introspect(issued.access_token)["active"]
    world.clock.advance(seconds=1)
    with pytest.raises(InvalidToken):
        verified(world, issued)
    assert world.introspect(issued.access_token) == {"active": False}


def test_S5_no_action_of_the_catalogue_lives_longer_than_five_minutes(sqlite_world: World) -> None:
    catalogue = sqlite_world.services.vocabulary.catalogue
    assert all(entry.lifetime <= 300 for entry in catalogue.entries.values())


def test_S5_no_token_outlives_its_delegation(world: World) -> None:
    ends = world.clock.now() + timedelta(seconds=20)
    granted = world.granted(expires=ends.isoformat().replace("+00:00", "Z"))
    issued = agent_of(world).exchange(granted.grant, world.action())
    assert issued.expires_in == 20
    assert verified(world, issued).expires_at == ends
    world.clock.advance(seconds=20)
    assert refusal(agent_of(world), granted.grant, world.action(), error="invalid_request") == {}


def test_S5_an_assertion_is_short_lived_too(sqlite_world: World) -> None:
    world = sqlite_world
    too_long = world.assertion(lifetime=3600 + 1)
    answer = world.exchange(world.granted().grant, actor_token=too_long)
    world.refuses(answer, "invalid_request")
