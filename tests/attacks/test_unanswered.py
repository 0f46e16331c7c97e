"""Requests that nobody answers: an agent that leaves many of them is stopped, and nobody else is (RFC 9126 §2.3)."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.asking import CALLBACK, allow, as_agent, ask_by_device, push, pushed, register_redirect_uris
from tests.pages.browser import signed_in
from tests.settling import at_once
from tests.world import PRICE_SCOUT, World, running_world

FEW = 3


@pytest.fixture
def few(database_url: str, tmp_path: Path) -> Iterator[World]:
    """A server where three requests of one agent may wait, on both databases."""
    with running_world(database_url, tmp_path / "world", authorization={"open_for_agent": FEW}) as world:
        register_redirect_uris(world, CALLBACK)
        yield world


def is_too_many(world: World, answer: httpx.Response) -> int:
    """Hold an answer to what an agent is told that asks too much; gives the seconds that it is to wait."""
    world.refuses(answer, "temporarily_unavailable", status=429)
    return int(answer.headers["retry-after"])


def test_what_waits_of_one_agent_is_bounded_by_whichever_way_it_asks(few: World) -> None:
    mine = [pushed(few), pushed(few)]
    assert ask_by_device(few).status_code == 200
    with few.nothing_happens("authorization.too_many", "authorization_request.refused"):
        assert is_too_many(few, push(few)) == 300
    with few.nothing_happens("authorization.too_many", "device_authorization.refused"):
        is_too_many(few, ask_by_device(few))
    scout = {"client_id": "price-scout", **as_agent(few, PRICE_SCOUT)}
    assert ask_by_device(few, **scout).status_code == 200  # another agent asks as before
    with signed_in(few) as visit:
        assert allow(visit, mine[0]).status_code == 303
    assert push(few).status_code == 201  # one was answered
    is_too_many(few, push(few))
    few.clock.advance(seconds=300)
    assert push(few).status_code == 201  # and the others are over


def test_of_many_at_once_no_more_are_taken(few: World) -> None:
    answers = at_once(12, lambda number: push(few))
    assert Counter(answer.status_code for answer in answers) == {201: FEW, 429: 12 - FEW}
