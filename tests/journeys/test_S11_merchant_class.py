"""S11: a budget constrained by merchant class: ISO 18245 codes and ranges, against registered facts."""

import pytest

from tests.journeys.kits import agent_of, refusal, verified
from tests.world import MERCHANT, SHOP, World


@pytest.mark.parametrize("category", ["5411", "5812", "5814"])
def test_S11_a_class_that_was_named_or_lies_in_a_range_is_allowed(sqlite_world: World, category: str) -> None:
    world = sqlite_world
    asked = world.action(merchant={"category": category, "country": "NL"})
    merchant = verified(world, agent_of(world).exchange(world.granted().grant, asked)).merchant
    assert merchant is not None
    assert merchant.category is not None
    assert merchant.category.code == category


@pytest.mark.parametrize("category", ["5921", "7995", "5815"])
def test_S11_another_class_is_refused(sqlite_world: World, category: str) -> None:
    world = sqlite_world
    asked = world.action(merchant={"category": category, "country": "NL"})
    crossed = refusal(agent_of(world), world.granted().grant, asked)
    assert crossed == {"merchants.categories": (category, ["5411", "5811-5814"])}


def test_S11_an_excepted_class_is_refused_inside_an_allowed_range(sqlite_world: World) -> None:
    world = sqlite_world
    granted = world.granted(
        merchants={"categories": ["5811-5814"], "countries": ["NL"], "except": {"categories": ["5813"]}}
    )
    bar = world.action(merchant={"category": "5813", "country": "NL"})
    assert set(refusal(agent_of(world), granted.grant, bar)) == {"merchants.except.categories"}


def test_S11_silence_about_the_class_is_not_any(sqlite_world: World) -> None:
    world = sqlite_world
    asked = world.action(merchant={"country": "NL", "name": "Who knows"})
    assert "merchants.categories" in refusal(agent_of(world), world.granted().grant, asked)


def test_S11_what_a_shop_is_registered_as_replaces_or_refuses_what_the_agent_says(world: World) -> None:
    helper, grant = agent_of(world), world.granted().grant
    silent = helper.exchange(grant, world.action(locations=[SHOP], merchant=None))
    assert silent.action["merchant"] == MERCHANT
    lying = world.action(locations=[SHOP], merchant={"category": "5812"})
    assert refusal(helper, grant, lying) == {"merchants.categories": ("5812", "5411")}
