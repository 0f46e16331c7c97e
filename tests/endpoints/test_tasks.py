"""`POST /oauth/tasks/{task_id}/complete`: an agent ends its task, for good, and nobody else's (contract §7)."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
from tests.statements import statements
from tests.world import MARKET, SHOP, World, running_world

SEARCH = {"type": "agent_action", "actions": ["catalog.search"], "locations": [MARKET]}


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


# --- by a resource server ---------------------------------------------------------------------------------------


def completes_here(world: World, task_id: str, server: str = "market", **form: str) -> httpx.Response:
    """A resource server says that the task is over, with a token that it was shown."""
    names = {"market": (world.market_id, world.market_secret), "shop": (world.shop_id, world.shop_secret)}
    return world.client.post(f"/oauth/tasks/{task_id}/complete", data=form, auth=names[server])


def test_a_resource_server_ends_what_is_live_there_of_the_job_that_it_was_shown(world: World) -> None:
    above = parent(world)
    child = hand_on(world, above)
    at_shop = world.action(locations=[SHOP], merchant={"name": "Example Foods"})
    mine = token(world, above.grant, "basket-helper", task_id="dinner")
    searching = token(world, above.grant, "basket-helper", task_id="dinner", action=SEARCH)
    theirs = token(world, child.grant, "price-scout", task_id="dinner")
    other = token(world, above.grant, "basket-helper", task_id="breakfast")
    elsewhere = token(world, above.grant, "basket-helper", task_id="dinner", action=at_shop)
    stranger = token(world, world.granted(agent="price-scout").grant, "price-scout", task_id="dinner")
    assert redeem(world, mine).status_code == 201
    answer = completes_here(world, "dinner", token=mine)
    assert (answer.status_code, answer.json()["tokens"]) == (200, 2)
    told = world.events()[-1]
    assert (told["event"], told["data"]["tokens"]) == ("task_completion", 2)
    for ended in (searching, theirs):
        assert world.introspect(ended) == {"active": False}
    assert world.introspect(other)["active"]
    assert world.introspect(stranger)["active"]
    assert world.introspect(elsewhere, server="shop")["active"]
    assert completes_here(world, "dinner", token=mine).json()["tokens"] == 0
    # Only its agent and its user end a job for good.
    assert use(world, above.grant, "basket-helper", task_id="dinner").status_code == 200
    the_ledger_is_right(world)


def test_a_resource_server_ends_nothing_with_a_token_that_is_not_its_own(sqlite_world: World) -> None:
    world = sqlite_world
    granted = world.granted()
    out = token(world, granted.grant, "basket-helper", task_id="dinner")
    nameless = token(world, granted.grant, "basket-helper")
    for server, task_id, shown in (
        ("shop", "dinner", out),
        ("market", "breakfast", out),
        ("market", "dinner", nameless),
        ("market", "dinner", granted.grant),
        ("market", "dinner", f"{out}x"),
        ("market", "dinner", "x"),
    ):
        with world.nothing_happens("task.unknown_token", "task_completion.refused"):
            world.refuses(completes_here(world, task_id, server, token=shown), "not_found", status=404)
    with world.nothing_happens(event="task_completion.refused"):
        world.refuses(completes_here(world, "dinner", x="1"), "invalid_request")
    assert world.introspect(out)["active"]
    assert world.client.get("/oauth/tasks/dinner/complete").status_code == 405


# --- bounds -----------------------------------------------------------------------------------------------------


def test_a_task_has_so_many_tokens_and_no_more_however_they_are_asked_for(
    database_url: str, tmp_path: Path
) -> None:
    """Eight at once, by two agents, of five; a repeated answer is none of them; other tasks are not counted."""
    with running_world(database_url, tmp_path / "world", tasks={"most_actions": 5}) as world:
        above = parent(world, limits={"currency": "EUR", "per_action": "80.00", "total": "3000.00"})
        child = hand_on(world, above, task_id="dinner")
        same = {"Idempotency-Key": "once"}
        first = world.exchange(above.grant, task_id="dinner", headers=same)
        assert first.status_code == 200

        def ask(number: int) -> int:
            granted, by = ((above, "basket-helper"), (child, "price-scout"))[number % 2]
            with httpx.Client(base_url=world.url, timeout=30) as client:
                return use(world, granted.grant, by, client, task_id="dinner").status_code

        with ThreadPoolExecutor(8) as pool:
            statuses = [*pool.map(ask, range(8))]
        assert sorted(statuses) == [200] * 4 + [400] * 4
        with world.nothing_happens("task.most_actions"):
            world.refuses(use(world, child.grant, "price-scout"), "invalid_request")
        again = world.exchange(above.grant, task_id="dinner", headers=same)
        assert again.json()["action_id"] == first.json()["action_id"]
        for task_id in ("breakfast", None):
            assert use(world, above.grant, "basket-helper", task_id=task_id).status_code == 200
        the_ledger_is_right(world)


def test_a_task_goes_on_for_so_long_and_no_longer(sqlite_url: str, tmp_path: Path) -> None:
    with running_world(sqlite_url, tmp_path / "world", tasks={"longest": 3600}) as world:
        grant = world.granted().grant
        assert use(world, grant, "basket-helper", task_id="dinner").status_code == 200
        world.clock.advance(seconds=3599)
        assert use(world, grant, "basket-helper", task_id="dinner").status_code == 200
        world.clock.advance(seconds=1)
        with world.nothing_happens("task.longest"):
            world.refuses(use(world, grant, "basket-helper", task_id="dinner"), "invalid_request")
        assert use(world, grant, "basket-helper", task_id="supper").status_code == 200


def test_bounds_of_tasks_cost_an_exchange_nothing_that_has_none(sqlite_url: str, tmp_path: Path) -> None:
    def sent(world: World, **changes: str) -> int:
        grant = world.granted().grant
        use(world, grant, "basket-helper", **changes)
        with statements(world) as heard:
            assert use(world, grant, "basket-helper", **changes).status_code == 200
        return len(heard)

    url = Path(sqlite_url.removeprefix("sqlite:///"))
    copy = shutil.copy(url, tmp_path / "other.db")
    with running_world(sqlite_url, tmp_path / "world") as world:
        plain, with_task = sent(world), sent(world, task_id="dinner")
    with running_world(f"sqlite:///{copy}", tmp_path / "bounded", tasks={"longest": 60}) as world:
        assert (sent(world), sent(world, task_id="dinner")) == (plain, with_task + 1)
