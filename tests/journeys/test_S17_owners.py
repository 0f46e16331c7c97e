"""S17: every sensitive action has an owner, somebody who approves it and somebody to turn to; or nothing starts."""

import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from authserver.config import SHIPPED
from authserver.policy.catalogue import CatalogueError, parse_catalogue
from tests.approving import answers, asks, person, polls, waiting
from tests.pages.browser import signed_in
from tests.settling import eur
from tests.world import World, running_world

RULES = ("owner", "approver", "approval", "escalate_to", "escalate_after")


def shipped() -> dict[str, Any]:
    """The catalogue that ships."""
    return tomllib.loads((SHIPPED / "actions.toml").read_text(encoding="utf-8"))


def test_S17_every_shipped_action_says_who_answers_for_it() -> None:
    entries = parse_catalogue(shipped(), "actions.toml").entries.values()
    assert len(entries) == 10
    for entry in entries:
        assert entry.owner
        assert entry.approver == "user"
        [step] = entry.escalation
        assert step.to.startswith("group:")
        assert step.after == timedelta(minutes=10)


@pytest.mark.parametrize("rule", RULES)
def test_S17_an_action_that_lacks_a_rule_stops_the_start(rule: str) -> None:
    catalogue = shipped()
    del catalogue["actions"]["payment.finalize"][rule]
    with pytest.raises(CatalogueError, match=f"payment.finalize: {rule}: is missing"):
        parse_catalogue(catalogue, "actions.toml")


def test_S17_the_catalogue_says_who_is_asked_and_to_whom_it_escalates(
    sqlite_url: str, tmp_path: Path
) -> None:
    text = (SHIPPED / "actions.toml").read_text(encoding="utf-8")
    before, entry = text.split('[actions."payment.finalize"]')
    entry = entry.replace('approver = "user"', 'approver = "group:payments"', 1)
    entry = entry.replace('escalate_after = "PT10M"', 'escalate_after = "PT2M"', 1)
    actions = tmp_path / "actions.toml"
    actions.write_text(f'{before}[actions."payment.finalize"]{entry}', encoding="utf-8")
    with running_world(sqlite_url, tmp_path / "world", catalogue={"actions_file": actions}) as world:
        person(world, "grace", "payments")
        person(world, "olga", "payments-duty")
        granted = world.granted(approval={"above": "50.00"})
        seen = [_sees(world, name) for name in ("ada", "grace", "olga")]
        told = waiting(world, asks(world, granted.grant, action=world.action(amount=eur("62.10"))))
        seen += [_sees(world, name) for name in ("ada", "grace", "olga")]
        world.clock.advance(minutes=2)
        seen += [_sees(world, name) for name in ("ada", "grace", "olga")]
        assert seen == [False, False, False, False, True, False, False, True, True]
        answers(world, told.approval, user="olga")
        assert polls(world, told.code).status_code == 200


def _sees(world: World, username: str) -> bool:
    with signed_in(world, username) as visit:
        return "<article" in visit.get("/approvals").text
