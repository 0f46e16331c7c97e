"""One agent hands on to another: the grant that comes of it, who may use it, and what it draws on (contract §9)."""

from tests.handing_over import DELEGATION_GRANT, held, parent, received, send, use
from tests.world import World


def test_the_answer_is_that_of_a_grant(world: World) -> None:
    above = parent(world)
    answer = send(world, above.grant, held(world, above))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert body["issued_token_type"] == DELEGATION_GRANT
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 30 * 86_400
    child = received(world, answer)
    assert use(world, child.grant, "price-scout").status_code == 200
