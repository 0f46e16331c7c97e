"""Fault F02 for approvals: a server that is killed while people answer loses and doubles nothing."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from authserver.schema import Action, Approval, ApprovalAnswer, table_of
from tests.approving import DEFERRED, Waiting, asked_above_fifty, waits
from tests.attacks.serving import configuration
from tests.faults.servers import Server, server
from tests.pages.browser import Visit, signed_in
from tests.settling import the_ledger_is_right
from tests.world import JWT, World

KILLS = 2
LIMITS = {"currency": "EUR", "per_action": "80.00", "total": "2000.00"}


def test_F02_a_server_killed_while_people_answer_loses_and_doubles_nothing(
    world: World, tmp_path: Path
) -> None:
    chance, grant = random.Random(7), asked_above_fifty(world, limits=LIMITS).grant
    assertion = world.assertion()
    with server(configuration(world, tmp_path)) as running, signed_in(world) as visit:
        for _ in range(KILLS):
            told = [waits(world, grant) for _ in range(4)]
            answered = threading.Thread(target=_answer_all, args=(running, visit, told, assertion))
            answered.start()
            time.sleep(chance.uniform(0, 0.4))
            running.kill()
            answered.join()
            _holds(world)
            running.start()
            _until(lambda told=told: _answer_all(running, visit, told, assertion))  # type: ignore[misc]
            world.clock.advance(seconds=60)
    kept = _holds(world)
    assert Counter(row.state for row in kept) == {"used": KILLS * 4}
    the_ledger_is_right(world)


def _answer_all(running: Server, visit: Visit, told: list[Waiting], assertion: str) -> bool:
    """Approve each and come back for each; whether all were told so."""
    done = 0
    with (
        suppress(httpx.HTTPError),
        httpx.Client(base_url=running.url, cookies=visit.client.cookies, timeout=10) as client,
    ):
        for one in told:
            client.post(f"/approvals/{one.approval}", data={"csrf": visit.csrf, "answer": "approve"})
            form = {"grant_type": DEFERRED, "deferral_code": one.code}
            form |= {"actor_token": assertion, "actor_token_type": JWT}
            done += client.post("/oauth/token", data=form).status_code == 200
    return done == len(told)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _holds(world: World) -> list[Any]:
    """Each approval is as it was before an answer or as it is after, never between."""

    def read(connection: Any) -> tuple[list[Any], Counter[str], Counter[str]]:
        said = connection.execute(select(table_of(ApprovalAnswer))).all()
        actions = connection.execute(select(table_of(Action).c.approval_id)).all()
        approvals = connection.execute(select(table_of(Approval))).all()
        return approvals, Counter(row.approval_id for row in said), Counter(row[0] for row in actions)

    approvals, said, actions = world.services.database.read(read)
    for row in approvals:
        expected = {"waiting": (0, 0), "approved": (1, 0), "used": (1, 1)}[row.state]
        assert (said[row.id], actions[row.id]) == expected
    events = Counter(event["event"] for event in world.events())
    states = Counter(row.state for row in approvals)
    assert events["approval.approved"] == states["approved"] + states["used"]
    assert events["deferred.permitted"] == states["used"]
    return approvals
