"""S12: a budget constrained by geography: ISO 3166-1 countries and groups of them."""

import pytest

from tests.journeys.kits import agent_of, refusal, verified
from tests.world import SHOP, World


def seller(country: str) -> dict[str, str]:
    return {"category": "5411", "country": country}


def test_S12_a_named_country_is_allowed_and_another_is_refused(world: World) -> None:
    helper, grant = agent_of(world), world.granted().grant
    merchant = verified(world, helper.exchange(grant, world.action(merchant=seller("BE")))).merchant
    assert merchant is not None
    assert merchant.country is not None
    assert merchant.country.code == "BE"
    crossed = refusal(helper, grant, world.action(merchant=seller("US")))
    assert crossed == {"merchants.countries": ("US", ["NL", "BE"])}


@pytest.mark.parametrize(("country", "is_inside"), [("PT", True), ("FI", True), ("CH", False), ("GB", False)])
def test_S12_a_group_stands_for_its_countries(sqlite_world: World, country: str, is_inside: bool) -> None:
    world = sqlite_world
    helper = agent_of(world)
    grant = world.granted(merchants={"categories": ["5411"], "countries": ["EU"]}).grant
    asked = world.action(merchant=seller(country))
    if is_inside:
        helper.exchange(grant, asked)
    else:
        assert refusal(helper, grant, asked) == {"merchants.countries": (country, ["EU"])}


@pytest.mark.parametrize("country", ["EU", "nl", "NLD", "XX"])
def test_S12_a_request_names_one_real_country(sqlite_world: World, country: str) -> None:
    world = sqlite_world
    assert refusal(agent_of(world), world.granted().grant, world.action(merchant=seller(country))) == {}


def test_S12_an_excepted_country_is_refused_inside_an_allowed_group(sqlite_world: World) -> None:
    world = sqlite_world
    granted = world.granted(
        merchants={"categories": ["5411"], "countries": ["EU"], "except": {"countries": ["MT"]}}
    )
    crossed = refusal(agent_of(world), granted.grant, world.action(merchant=seller("MT")))
    assert set(crossed) == {"merchants.except.countries"}


def test_S12_where_a_shop_is_registered_counts_and_not_what_the_agent_says(world: World) -> None:
    helper = agent_of(world)
    grant = world.granted(merchants={"categories": ["5411"], "countries": ["BE"]}).grant
    truth = world.action(locations=[SHOP], merchant=None)
    assert refusal(helper, grant, truth) == {"merchants.countries": ("NL", ["BE"])}
    lie = world.action(locations=[SHOP], merchant={"country": "BE"})
    assert "merchants.countries" in refusal(helper, grant, lie)
