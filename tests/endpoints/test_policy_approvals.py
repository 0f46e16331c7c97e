"""Whoever a delegation, the catalogue or a policy asks has to agree: each of them, and each time another person."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from authserver.approve import can_be_lifted
from authserver.errors import Refusal
from authserver.schema import User
from tests.approving import answers, asked_above_fifty, person, polls, record, waits
from tests.attacks.making import change
from tests.policies import forbid, policed, write
from tests.shipped import CONFIG
from tests.world import World

FINANCE = forbid("finance", "context has amount && context.amount > 6000", approval="group:finance")


@pytest.fixture
def asked(database_url: str, tmp_path: Path) -> Iterator[World]:
    """A server where the finance group is asked above 60.00; Bob is in it, Ada, whose money it is, too."""
    with policed(database_url, tmp_path, company=FINANCE) as world:
        person(world, "bob", "finance")
        person(world, "dan", "payments-duty")
        yield world


def not_asked(world: World, approval: str, user: str) -> None:
    with pytest.raises(Refusal) as refused:
        answers(world, approval, user=user)
    assert refused.value.status == 403


def test_a_policy_names_the_group_that_is_asked_and_nobody_else_may_answer(asked: World) -> None:
    waiting = waits(asked, asked.granted().grant)
    assert record(asked, waiting.approval).because == "policy:finance"
    for user in ("ada", "dan"):
        not_asked(asked, waiting.approval, user)
    asked.clock.advance(seconds=660)  # the catalogue's escalation is for what the catalogue asks
    not_asked(asked, waiting.approval, "dan")
    answers(asked, waiting.approval, user="bob")
    answer = polls(asked, waiting.code)
    assert answer.status_code == 200, answer.text
    assert asked.events()[-1]["data"]["policies"] == ["all"]


def test_where_the_delegation_asks_the_user_and_a_policy_a_group_both_must_agree(asked: World) -> None:
    for first, second in (("ada", "bob"), ("bob", "ada")):
        waiting = waits(asked, asked_above_fifty(asked).grant)
        assert not can_be_lifted(
            record(asked, waiting.approval)
        )  # no rule of hers lifts what the policy wants
        answers(asked, waiting.approval, user=first)
        asked.refuses(polls(asked, waiting.code), "authorization_pending")
        answers(asked, waiting.approval, user=second)
        asked.clock.advance(seconds=60)
        assert polls(asked, waiting.code).status_code == 200


def test_one_of_both_who_refuses_is_enough(asked: World) -> None:
    waiting = waits(asked, asked_above_fifty(asked).grant)
    answers(asked, waiting.approval, user="ada")
    answers(asked, waiting.approval, "refuse", user="bob")
    asked.refuses(polls(asked, waiting.code), "access_denied")


def test_a_rule_of_the_user_does_not_lift_what_a_policy_asks_of_the_same_user(
    sqlite_url: str, tmp_path: Path
) -> None:
    with policed(sqlite_url, tmp_path) as world:
        grant = asked_above_fifty(world).grant
        waiting = waits(world, grant)
        answers(world, waiting.approval, rule_up_to="70.00")
        assert polls(world, waiting.code).status_code == 200
        assert world.exchange(grant, action=world.action(amount={"currency": "EUR", "value": "62.10"}))
        write(tmp_path / "policies", company=forbid("look", approval="user"))
        world.services.policies.refresh()
        assert record(world, waits(world, grant).approval).because == "policy:look"


def test_a_policy_that_changes_while_somebody_waits_is_asked_again_at_the_end(
    asked: World, tmp_path: Path
) -> None:
    waiting = waits(asked, asked.granted().grant)
    answers(asked, waiting.approval, user="bob")
    write(tmp_path / "policies", company=FINANCE.replace("group:finance", "group:board"))
    asked.services.policies.refresh()
    asked.refuses(polls(asked, waiting.code), "access_denied", constraint="approval")
    write(tmp_path / "policies", company=forbid("never"))
    asked.services.policies.refresh()
    asked.clock.advance(seconds=60)
    asked.refuses(polls(asked, waiting.code), "access_denied", constraint="policy:never")
    write(tmp_path / "policies", company="")
    asked.services.policies.refresh()
    asked.clock.advance(seconds=60)
    assert polls(asked, waiting.code).status_code == 200


def test_a_policy_sees_who_has_agreed(sqlite_url: str, tmp_path: Path) -> None:
    rules = forbid("ask", approval="group:risk") + forbid("odd", 'context.approved_by.contains("group:risk")')
    with policed(sqlite_url, tmp_path, company=rules) as world:
        person(world, "eve", "risk")
        world.refuses(world.exchange(world.granted().grant), "access_denied", constraint="approval")
        waiting = waits(world, world.granted().grant)
        answers(world, waiting.approval, user="eve")
        world.refuses(polls(world, waiting.code), "access_denied", constraint="policy:odd")


# --- several people -----------------------------------------------------------------------------------------------


@pytest.fixture
def two(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    """A server where two people of the risk group agree to each payment; after ten minutes one of the duty may."""
    shipped = (CONFIG / "actions.toml").read_text(encoding="utf-8")
    head, entry = shipped.split('[actions."payment.finalize"]')
    entry = entry.replace('approver = "user"', 'approver = "group:risk"\napprovals = 2', 1)
    entry = entry.replace('approval = "delegation"', 'approval = "always"', 1)
    path = tmp_path / "actions.toml"
    path.write_text(f'{head}[actions."payment.finalize"]{entry}', encoding="utf-8")
    company = forbid("board", "context has amount && context.amount > 7000", approval="group:board")
    with policed(sqlite_url, tmp_path, catalogue={"actions_file": path}, company=company) as world:
        for name, groups in {"eve": ("risk",), "fay": ("risk", "board"), "gus": ("board",)}.items():
            person(world, name, *groups)
        person(world, "dan", "payments-duty")
        yield world


def agree(world: World, approval: str, *users: str) -> list[str]:
    """What becomes of it after each of them has agreed."""
    return [answers(world, approval, user=user).state for user in users]


def test_two_different_people_have_to_agree(two: World) -> None:
    waiting = waits(two, two.granted().grant)
    assert agree(two, waiting.approval, "eve", "eve") == ["waiting", "waiting"]
    not_asked(two, waiting.approval, "gus")
    assert agree(two, waiting.approval, "fay") == ["approved"]
    assert polls(two, waiting.code).status_code == 200


def test_each_person_takes_one_seat_and_changes_it_where_that_helps(two: World) -> None:
    waiting = waits(two, two.granted().grant, "75.00")
    assert record(two, waiting.approval).seats == ("group:risk", "group:risk", "group:board")
    # Fay is in both groups: first she sits for risk, then for the board, and once more nobody counts twice.
    assert agree(two, waiting.approval, "fay", "eve") == ["waiting", "waiting"]
    assert agree(two, waiting.approval, "gus") == ["approved"]


def test_who_stands_in_after_a_while_takes_only_the_catalogues_seats(two: World) -> None:
    waiting = waits(two, two.granted().grant, "75.00")
    not_asked(two, waiting.approval, "dan")
    two.clock.advance(seconds=601)
    assert agree(two, waiting.approval, "dan", "eve") == ["waiting", "waiting"]
    assert agree(two, waiting.approval, "gus") == ["approved"]


def test_somebody_who_was_disabled_since_does_not_count(two: World) -> None:
    waiting = waits(two, two.granted().grant)
    agree(two, waiting.approval, "eve")
    change(two, User, {"username": "eve"}, disabled_at=two.clock.now())
    assert agree(two, waiting.approval, "fay") == ["waiting"]
