"""The exchange, through the front door (RFC 8693, contract §6)."""

from tests.world import MARKET, World


def test_a_grant_and_an_assertion_become_a_token_for_one_action(world: World) -> None:
    granted = world.granted()
    answer = world.exchange(granted.grant)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 120
    claims = world.introspect(body["access_token"])
    assert claims["active"]
    assert claims["aud"] == MARKET
