"""Faults F01 and F02: server processes are killed at any instant (contract §6, §7; invariants C1 to C4, C8, C9)."""

import random
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.attacks.serving import configuration
from tests.faults.servers import Server, server
from tests.faults.storm import Storm, storm
from tests.world import World


@dataclass
class Figures:
    """What a run of kills was like."""

    kills: int = 0
    answers: int = 0
    resent: int = 0
    seconds: float = 0.0


def killed_again_and_again(world: World, folder: Path, kills: int, seed: int) -> Figures:
    """Kill the server so many times in a storm; hold the database to the answers after each, and at the end."""
    chance, begun = random.Random(seed), time.monotonic()
    with server(configuration(world, folder), workers=2) as running:
        with storm(world, running.url, seed=seed) as shopping:
            for _ in range(kills):
                _kill_once(running, shopping, chance)
            _let_some_pass(shopping)
            shopping.end()
        shopping.has_done_exactly_this()
    return Figures(kills, shopping.answers, shopping.resent, time.monotonic() - begun)


def _kill_once(running: Server, shopping: Storm, chance: random.Random) -> None:
    _let_some_pass(shopping)
    time.sleep(chance.uniform(0, 0.3))
    running.kill()
    shopping.goes_on()
    shopping.holds(shopping.answered())
    running.start()


def _let_some_pass(shopping: Storm) -> None:
    """Wait until the server has answered again: a kill in the silence would prove nothing."""
    before, deadline = shopping.answers, time.monotonic() + 30
    while shopping.answers < before + 20:
        shopping.goes_on()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_F01_F02_a_server_killed_in_a_storm_loses_and_doubles_nothing(world: World, tmp_path: Path) -> None:
    figures = killed_again_and_again(world, tmp_path, kills=5, seed=1)
    print(figures)
    assert figures.resent > 0  # some request had lost its answer


@pytest.mark.prove
def test_F01_F02_two_hundred_kills_lose_and_double_nothing(world: World, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    print(killed_again_and_again(world, tmp_path, kills=200, seed=seed))
