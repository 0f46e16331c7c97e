"""Threats A94 and A99: what is revoked at any level is ended on every path, also while many processes are asked."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from authserver import revoke
from authserver.consent import Granted
from authserver.delegations.standing import agent_party, user_party
from authserver.errors import Refusal
from authserver.revoke import Target
from tests.approving import Waiting, answers, polls, waiting
from tests.attacks.making import record_of
from tests.attacks.serving import configuration, serving
from tests.endpoints.test_ending import is_set
from tests.handing_over import hand_on, held, parent, send, token, use
from tests.settling import eur, redeem, redeemed, settle, state_of, the_ledger_is_right
from tests.world import PRICE_SCOUT, World

AMPLE = {"currency": "EUR", "per_action": "80.00", "total": "90000.00"}


@dataclass
class Family:
    """Basket Helper's delegation, and what it handed on to Price Scout for one task; both hold tokens."""

    world: World
    above: Granted
    below: Granted
    task: str

    @classmethod
    def made(cls, world: World, task: str = "job-7") -> "Family":
        above = parent(world, depth=3, limits=AMPLE, approval={"above": "65.00"})
        return cls(world, above, hand_on(world, above, task_id=task), task)

    def target(self, level: str) -> Target:
        """What is revoked at that level."""
        user = record_of(self.world, self.above.grant_id).user_id
        targets = {
            "delegation": Target("delegation", self.below.grant_id),
            "ancestor": Target("delegation", self.above.grant_id),
            "task": Target("task", self.task),
            "task of the agent": Target("task", self.task, agent_party("price-scout")),
            "task of the agent above": Target("task", self.task, agent_party("basket-helper")),
            "task of the user": Target("task", self.task, user_party(user)),
            "agent": Target("agent", "price-scout"),
            "agent above": Target("agent", "basket-helper"),
            "user": Target("user", user),
            "trust domain": Target("trust_domain", "example.org"),
            "everything": Target("all", ""),
        }
        return targets[level]

    def token(self, **changes: Any) -> str:
        """One of Price Scout's."""
        return token(self.world, self.below.grant, "price-scout", **changes)


LEVELS = (
    *("delegation", "ancestor", "task", "task of the agent", "task of the agent above", "task of the user"),
    *("agent", "agent above", "user", "trust domain", "everything"),
)

# --- every path, each with what it needs from before the revocation ---------------------------------------------------
# A path prepares something while all stands, and gives what must hold afterwards.

Path_ = Callable[[Family], Callable[[], None]]


def exchange(family: Family) -> Callable[[], None]:
    def after() -> None:
        for task_id in (None, family.task, "another-name"):
            with family.world.nothing_happens():
                answer = use(family.world, family.below.grant, "price-scout", task_id=task_id)
                family.world.refuses(answer, "invalid_request")

    return after


def retry(family: Family) -> Callable[[], None]:
    form = family.world.form(
        family.below.grant, actor_token=family.world.assertion("spiffe://example.org/agent/price-scout")
    )
    key = {"Idempotency-Key": "before"}
    assert family.world.post("/oauth/token", form, key).status_code == 200

    def after() -> None:
        family.world.refuses(family.world.post("/oauth/token", form, key), "invalid_request")

    return after


def hand_over(family: Family) -> Callable[[], None]:
    details = held(family.world, family.below)

    def after() -> None:
        for task_id in (None, family.task, "another-name"):
            with family.world.nothing_happens(event="hand_over.refused"):
                answer = send(
                    family.world,
                    family.below.grant,
                    details,
                    "basket-helper",
                    by="price-scout",
                    task_id=task_id,
                )
                family.world.refuses(answer, "invalid_request")

    return after


def repeated_hand_over(family: Family) -> Callable[[], None]:
    details, key = held(family.world, family.below), {"Idempotency-Key": "hand"}
    sent = {"to": "basket-helper", "by": "price-scout", "headers": key}
    assert send(family.world, family.below.grant, details, **sent).status_code == 200

    def after() -> None:
        family.world.refuses(send(family.world, family.below.grant, details, **sent), "invalid_request")

    return after


def further_below(family: Family) -> Callable[[], None]:
    child = hand_on(family.world, family.below, "basket-helper", by="price-scout")
    out = token(family.world, child.grant, "basket-helper")

    def after() -> None:
        family.world.refuses(use(family.world, child.grant, "basket-helper"), "invalid_request")
        assert family.world.introspect(out) == {"active": False}

    return after


def redemption(family: Family) -> Callable[[], None]:
    out = family.token()

    def after() -> None:
        assert redeem(family.world, out).status_code == 409
        assert family.world.introspect(out) == {"active": False}

    return after


def token_that_holds_nothing(family: Family) -> Callable[[], None]:
    out = family.token(action=family.world.action(actions=["order.checkout"]))

    def after() -> None:
        assert family.world.introspect(out) == {"active": False}

    return after


def status_list(family: Family) -> Callable[[], None]:
    out = family.token()
    assert not is_set(family.world, out)

    def after() -> None:
        time.sleep(0.25)  # a list may be that old
        assert is_set(family.world, out)

    return after


def capture(family: Family) -> Callable[[], None]:
    path = redeemed(family.world, family.token(action=family.world.action(amount=eur("7.00"))), capture=False)

    def after() -> None:
        answer = settle(family.world, f"{path}/capture", {})
        assert (answer.status_code, answer.json()["state"]) == (200, "captured")
        assert family.world.events()[-1]["data"]["although"]  # the audit says that it had ended
        assert state_of(family.world, path) == "captured"

    return after


def waits(family: Family, value: str) -> Waiting:
    """Price Scout asks for what its user wants to be asked about, and waits."""
    pay = family.world.action(amount=eur(value))
    asked = use(family.world, family.below.grant, "price-scout", action=pay, completion_mode="deferred")
    return waiting(family.world, asked)


def comes_back(family: Family, waits: Waiting) -> httpx.Response:
    return polls(family.world, waits.code, actor_token=family.world.assertion(PRICE_SCOUT))


def deferred(family: Family) -> Callable[[], None]:
    approved, unanswered = waits(family, "70.00"), waits(family, "71.00")
    answers(family.world, approved.approval)

    def after() -> None:
        for one in (approved, unanswered):
            with family.world.nothing_happens(event="deferred.refused"):
                family.world.refuses(comes_back(family, one), "invalid_request")
        with pytest.raises(Refusal):
            answers(family.world, unanswered.approval)

    return after


def collected_again(family: Family) -> Callable[[], None]:
    approved = waits(family, "72.00")
    answers(family.world, approved.approval)
    assert comes_back(family, approved).status_code == 200

    def after() -> None:
        family.world.refuses(comes_back(family, approved), "invalid_request")

    return after


PATHS: tuple[Path_, ...] = (
    *(exchange, retry, hand_over, repeated_hand_over, further_below),
    *(deferred, collected_again),
    *(redemption, token_that_holds_nothing, status_list, capture),
)


def end(world: World, target: Target) -> revoke.Ended:
    """Revoke as an operator does."""
    return revoke.revoke(world.services, target, reason="test", by="test", now=world.clock.now())


@pytest.mark.parametrize("level", LEVELS)
def test_A99_revoked_at_one_level_is_ended_on_every_path(world: World, level: str) -> None:
    family = Family.made(world)
    checks = [path(family) for path in PATHS]
    other = parent(world, agent="price-scout")
    stays = token(world, other.grant, "price-scout", task_id="another")
    expected = revoke.would_end(world.services, family.target(level), world.clock.now())
    assert end(world, family.target(level)) == expected
    assert expected.tokens >= 4
    assert expected.authorized == 1
    for check in checks:
        check()
    assert world.rows().reserved == (4250 if _leaves(level) else 0)
    assert world.introspect(stays)["active"] == _leaves(level)
    the_ledger_is_right(world)


def _leaves(level: str) -> bool:
    """Whether another delegation of Price Scout, for the same user and another task, goes on."""
    return level in ("delegation", "ancestor", "agent above") or level.startswith("task")


@pytest.mark.parametrize("level", ["delegation", "task of the agent", "agent"])
def test_A99_what_is_above_what_ended_goes_on(world: World, level: str) -> None:
    family = Family.made(world)
    mine = token(world, family.above.grant, "basket-helper", task_id=family.task)
    end(world, family.target(level))
    assert world.introspect(mine)["active"]
    assert use(world, family.above.grant, "basket-helper", task_id=family.task).status_code == 200


# --- many processes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def servers(world: World, tmp_path: Path) -> Iterator[list[httpx.Client]]:
    """Four server processes behind one address, and the world's own, all on one database."""
    with (
        serving(configuration(world, tmp_path), workers=4) as server,
        ExitStack() as opened,
    ):
        client = opened.enter_context(httpx.Client(base_url=server.url, timeout=30))
        yield [client, world.client]


def _asks(family: Family, servers: list[httpx.Client]) -> list[Callable[[int], int]]:
    """Everything that would make something of the family's, by its status."""
    world, details = family.world, held(family.world, family.above)
    pay = world.action(amount=eur("1.00"))

    def spend(number: int) -> int:
        client = servers[number % 2]
        return use(
            world, family.below.grant, "price-scout", client, action=pay, task_id=family.task
        ).status_code

    def hand(number: int) -> int:
        client = servers[number % 2]
        return send(world, family.above.grant, details, client=client, task_id=family.task).status_code

    def spend_and_redeem(number: int) -> int:
        client = servers[number % 2]
        answer = use(world, family.below.grant, "price-scout", client, action=pay)
        if answer.status_code != 200:
            return answer.status_code
        body = {"token": answer.json()["access_token"]}
        answer = settle(world, "redeem", body, client=servers[(number + 1) % 2])
        return {201: 200, 409: 400}.get(answer.status_code, answer.status_code)

    return [spend, hand, spend_and_redeem]


RACED = (
    "ancestor",
    "task of the agent above",
    "task of the user",
    "agent above",
    "trust domain",
    "everything",
)


def test_A94_A99_many_processes_mint_nothing_after_a_revocation(
    world: World, servers: list[httpx.Client]
) -> None:
    for number, level in enumerate(RACED):
        # A task is over for good: each round has one of its own.
        _race(world, Family.made(world, f"job-{number}"), servers, level)
    the_ledger_is_right(world)


def _race(world: World, family: Family, servers: list[httpx.Client], level: str) -> None:
    asks, answered, ended = _asks(family, servers), Counter[int](), threading.Event()
    before = len(world.events())

    def keep_asking(number: int) -> None:
        late = 0
        while late < 2:
            late += ended.is_set()
            answered[asks[number % 3](number // 3)] += 1

    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(keep_asking, number) for number in range(6)]
        while answered[200] < 12:
            assert not any(thread.done() for thread in asking), [thread.exception() for thread in asking]
            time.sleep(0.01)
        end(world, family.target(level))
        ended.set()
        for thread in asking:
            thread.result()
    assert answered[400] >= 12
    assert set(answered) <= {200, 400, 503}
    events = [event["event"] for event in world.events()[before:]]
    after = set(events[events.index("revocation") :])
    assert not {"exchange.permitted", "delegation.created", "redemption.permitted"} & after, level
    assert world.rows().reserved == 0
