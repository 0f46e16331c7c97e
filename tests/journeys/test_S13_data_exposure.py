"""S13: a budget constrained by data exposure: data types in the delegation, the request, the token and the answer."""

import pytest

from authserver.resource_server import NotAllowed
from tests.journeys.kits import agent_of, refusal, verified
from tests.world import World

RECORD = {"name": "Ada", "email": "ada@example.org", "phone": "+31 20 1234567", "birth_date": "1815-12-10"}


def reading(world: World, *datatypes: str) -> dict[str, object]:
    return world.action(actions=["profile.read"], amount=None, merchant=None, datatypes=list(datatypes))


def test_S13_what_was_not_granted_is_refused_and_named(world: World) -> None:
    grant = world.granted(actions=["profile.read"], datatypes=["email"]).grant
    crossed = refusal(agent_of(world), grant, reading(world, "email", "birth_date"))
    assert crossed == {"datatypes": (["birth_date"], ["email"])}


def test_S13_a_kind_contains_what_is_below_it_and_nothing_above(sqlite_world: World) -> None:
    world = sqlite_world
    helper = agent_of(world)
    contact = world.granted(actions=["profile.read"], datatypes=["contact"]).grant
    assert verified(world, helper.exchange(contact, reading(world, "email"))).datatypes == ("email",)
    email = world.granted(actions=["profile.read"], datatypes=["email"]).grant
    assert refusal(helper, email, reading(world, "contact")) == {"datatypes": (["contact"], ["email"])}


def test_S13_a_delegation_that_says_nothing_of_data_gives_none(sqlite_world: World) -> None:
    world = sqlite_world
    grant = world.granted(datatypes=None).grant
    crossed = refusal(agent_of(world), grant, world.action(datatypes=["shipping_address"]))
    assert crossed == {"datatypes": (["shipping_address"], [])}


def test_S13_a_resource_server_shows_what_the_token_names_and_no_more(world: World) -> None:
    grant = world.granted(actions=["profile.read"], datatypes=["contact", "name"]).grant
    token = verified(world, agent_of(world).exchange(grant, reading(world, "email", "name")))
    assert token.expose(RECORD) == {"email": "ada@example.org", "name": "Ada"}
    token.require("profile.read", datatypes=["email"])
    with pytest.raises(NotAllowed):
        token.require("profile.read", datatypes=["birth_date"])
