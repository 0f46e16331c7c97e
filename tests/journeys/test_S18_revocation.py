"""S18: revocation is stored in the database, and administrators revoke: one delegation, or all of somebody's."""

import pytest
from sqlalchemy import select

from authserver.accounts import users
from authserver.delegations.standing import Kind
from authserver.revoke import Target, revoke
from authserver.schema import Revocation, table_of
from tests.journeys.kits import agent_of, refusal
from tests.world import BASKET_HELPER, World

JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"


def target_of(world: World, kind: Kind, grant_id: str) -> Target:
    ada = world.services.database.read(lambda connection: users.find(connection, "ada"))
    assert ada is not None
    names = {
        "delegation": grant_id,
        "agent": "basket-helper",
        "user": ada.user_id,
        "trust_domain": "example.org",
        "all": "",
    }
    return Target(kind, names[kind])


@pytest.mark.parametrize("kind", ["delegation", "agent", "user", "trust_domain", "all"])
def test_S18_a_revocation_ends_what_is_out_and_what_would_come(world: World, kind: Kind) -> None:
    helper, granted = agent_of(world), world.granted()
    out = helper.exchange(granted.grant, world.action())
    assert world.introspect(out.access_token)["active"]
    target = target_of(world, kind, granted.grant_id)
    ended = revoke(world.services, target, reason="lost trust", by="operator:grace", now=world.clock.now())
    assert (ended.delegations, ended.tokens) == (1, 1)
    assert world.introspect(out.access_token) == {"active": False}
    assert refusal(helper, granted.grant, world.action(), error="invalid_request") == {}
    assert world.rows().reserved == 0


def test_S18_a_revocation_is_a_row_that_says_who_and_why(world: World) -> None:
    granted = world.granted()
    target = Target("delegation", granted.grant_id)
    revoke(world.services, target, reason="lost trust", by="operator:grace", now=world.clock.now())
    table = table_of(Revocation)
    (row,) = world.services.database.read(lambda connection: connection.execute(select(table)).all())
    assert (row.kind, row.target, row.reason, row.revoked_by) == (
        "delegation",
        granted.grant_id,
        "lost trust",
        "operator:grace",
    )


def test_S18_what_others_were_given_goes_on(world: World) -> None:
    helper, one, another = agent_of(world), world.granted(), world.granted()
    target = Target("delegation", one.grant_id)
    revoke(world.services, target, reason="enough", by="operator:grace", now=world.clock.now())
    assert refusal(helper, one.grant, world.action(), error="invalid_request") == {}
    helper.exchange(another.grant, world.action())


def test_S18_an_agent_ends_its_own_token_or_its_delegation(world: World) -> None:
    helper, granted = agent_of(world), world.granted()
    out = helper.exchange(granted.grant, world.action())
    ends(world, out.access_token)
    assert world.introspect(out.access_token) == {"active": False}
    assert world.rows().reserved == 0
    ends(world, granted.grant)
    assert refusal(helper, granted.grant, world.action(), error="invalid_request") == {}


def ends(world: World, token: str) -> None:
    form = {
        "token": token,
        "client_assertion_type": JWT_SPIFFE,
        "client_assertion": world.assertion(BASKET_HELPER),
    }
    assert world.post("/oauth/revoke", form).status_code == 200
