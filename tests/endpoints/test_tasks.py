"""`POST /oauth/tasks/{task_id}/complete`: an agent ends its task, for good, and nobody else's (contract §7)."""

import httpx
import pytest

from authserver import revoke
from authserver.accounts import users
from authserver.delegations.standing import user_party
from authserver.revoke import Target, UnknownTarget
from tests.attacks.making import record_of
from tests.conformance.tokens import JWT_SPIFFE
from tests.handing_over import SUBJECTS, hand_on, held, parent, send, token, use
from tests.settling import redeem, redeemed, settle, the_ledger_is_right
from tests.world import World


def complete(world: World, task_id: str, by: str = "basket-helper", **changes: str) -> httpx.Response:
    """The agent says that the task is over."""
    form = {"client_assertion_type": JWT_SPIFFE, "client_assertion": world.assertion(SUBJECTS[by])}
    return world.post(f"/oauth/tasks/{task_id}/complete", form | changes)


def test_a_completed_task_ends_its_tokens_gives_back_and_mints_no_more(world: World) -> None:
    granted = world.granted()
    mine, also = (token(world, granted.grant, "basket-helper", task_id="dinner") for _ in range(2))
    other = token(world, granted.grant, "basket-helper", task_id="breakfast")
    answer = complete(world, "dinner")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json() == {"task_id": "dinner", "state": "completed", "tokens": 2}
    for ended in (mine, also):
        assert world.introspect(ended) == {"active": False}
        assert redeem(world, ended).status_code == 409
    assert world.introspect(other)["active"]
    assert world.rows().reserved == 4250
    with world.nothing_happens("task.ended"):
        world.refuses(use(world, granted.grant, "basket-helper", task_id="dinner"), "invalid_request")
    assert complete(world, "dinner").json()["tokens"] == 0
    the_ledger_is_right(world)


def test_a_task_of_another_agent_goes_on_under_the_same_name(world: World) -> None:
    mine, other = world.granted(), world.granted(agent="price-scout")
    token(world, mine.grant, "basket-helper", task_id="dinner")
    theirs = token(world, other.grant, "price-scout", task_id="dinner")
    assert complete(world, "dinner").json()["tokens"] == 1
    assert world.introspect(theirs)["active"]
    assert use(world, other.grant, "price-scout", task_id="dinner").status_code == 200


def test_what_was_handed_on_for_a_task_ends_with_it(world: World) -> None:
    above = parent(world)
    for_task, for_good = hand_on(world, above, task_id="dinner"), hand_on(world, above)
    theirs = token(world, for_task.grant, "price-scout")
    by_name = token(world, for_good.grant, "price-scout", task_id="dinner")
    assert complete(world, "dinner").json()["tokens"] == 1
    assert world.introspect(theirs) == {"active": False}
    # The other agent's own way of naming its work is its own to end.
    assert world.introspect(by_name)["active"]
    with world.nothing_happens("task.ended"):
        world.refuses(use(world, for_task.grant, "price-scout"), "invalid_request")
    with world.nothing_happens("task.ended", "hand_over.refused"):
        answer = send(world, above.grant, held(world, above), task_id="dinner")
        world.refuses(answer, "invalid_request")


def test_the_agent_that_was_handed_to_ends_its_own_part_of_a_task(world: World) -> None:
    above = parent(world)
    child = hand_on(world, above, task_id="dinner")
    mine = token(world, above.grant, "basket-helper", task_id="dinner")
    token(world, child.grant, "price-scout")
    assert complete(world, "dinner", by="price-scout").json()["tokens"] == 1
    assert world.introspect(mine)["active"]
    assert use(world, child.grant, "price-scout").status_code == 400


def test_what_was_handed_on_for_a_task_serves_no_other(world: World) -> None:
    child = hand_on(world, parent(world), task_id="dinner")
    with world.nothing_happens("task.other"):
        world.refuses(use(world, child.grant, "price-scout", task_id="breakfast"), "invalid_request")
    with world.nothing_happens("task.other", "hand_over.refused"):
        answer = send(world, child.grant, held(world, child), by="price-scout", task_id="breakfast")
        world.refuses(answer, "invalid_request")
    below = hand_on(world, child, "basket-helper", by="price-scout")
    for granted, by in ((child, "price-scout"), (below, "basket-helper")):
        assert world.introspect(token(world, granted.grant, by))["task_id"] == "dinner"


def test_what_was_authorized_for_a_task_may_still_be_captured(world: World) -> None:
    granted = world.granted()
    path = redeemed(world, token(world, granted.grant, "basket-helper", task_id="dinner"), capture=False)
    assert complete(world, "dinner").json()["tokens"] == 0
    assert settle(world, f"{path}/capture", {}).json()["state"] == "captured"
    assert world.events()[-1]["data"]["although"] == "task.ended"


def test_a_user_ends_a_job_of_all_agents_and_of_nobody_else(world: World) -> None:
    world.services.database.write(
        lambda connection: users.create(connection, users.NewUser("bo", "Bo"), world.clock.now())
    )
    mine, scouts = world.granted(), world.granted(agent="price-scout")
    bos = world.granted(user="bo")
    held_by = ((mine, "basket-helper"), (scouts, "price-scout"))
    out = [token(world, granted.grant, by, task_id="job-7") for granted, by in held_by]
    goes_on = token(world, bos.grant, "basket-helper", task_id="job-7")
    ada = record_of(world, mine.grant_id).user_id
    target = Target("task", "job-7", user_party(ada))
    ended = revoke.revoke(world.services, target, reason="changed my mind", by="user", now=world.clock.now())
    assert (ended.tokens, ended.tasks) == (2, 1)
    assert [world.introspect(one)["active"] for one in (*out, goes_on)] == [False, False, True]
    assert [use(world, g.grant, by, task_id="job-7").status_code for g, by in held_by] == [400, 400]
    assert use(world, bos.grant, "basket-helper", task_id="job-7").status_code == 200
    the_ledger_is_right(world)


def test_nobody_elses_task_is_ended_by_a_name_that_is_unknown(sqlite_world: World) -> None:
    for party in ("agent:nobody", "user:nobody"):
        with pytest.raises(UnknownTarget):
            revoke.revoke(
                sqlite_world.services,
                Target("task", "dinner", party),
                reason="test",
                by="test",
                now=sqlite_world.clock.now(),
            )


@pytest.mark.parametrize(
    ("task_id", "changes", "error", "status"),
    [
        ("dinner", {"client_assertion": "no.such.token"}, "invalid_client", 401),
        ("dinner", {"client_assertion": "", "client_assertion_type": ""}, "invalid_client", 401),
        ("no spaces", {}, "invalid_request", 400),
        ("x" * 65, {}, "invalid_request", 400),
        ("dinner%00", {}, "invalid_request", 400),
    ],
)
def test_a_completion_that_is_not_in_order_ends_nothing(
    sqlite_world: World, task_id: str, changes: dict[str, str], error: str, status: int
) -> None:
    world = sqlite_world
    out = token(world, world.granted().grant, "basket-helper", task_id="dinner")
    with world.nothing_happens(event="task_completion.refused"):
        world.refuses(complete(world, task_id, **changes), error, status=status)
    assert world.introspect(out)["active"]


def test_a_resource_server_completes_no_task(sqlite_world: World) -> None:
    world = sqlite_world
    with world.nothing_happens("task.not_an_agent", "task_completion.refused"):
        answer = world.client.post(
            "/oauth/tasks/dinner/complete", data={"x": "1"}, auth=(world.market_id, world.market_secret)
        )
        world.refuses(answer, "unauthorized_client")
    assert world.client.get("/oauth/tasks/dinner/complete").status_code == 405
