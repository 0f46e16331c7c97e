"""Who is asked when nobody answers, step by step, and where a group's members may stand (contract §8)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authserver import my_approvals
from authserver.accounts import users
from authserver.config import SHIPPED, ConfigurationError, load_settings
from authserver.errors import Refusal
from authserver.upkeep import tidy
from tests.approving import answers, asked_above_fifty, at_market, id_of, person, polls, waits
from tests.world import World, running_world

CHAIN = """escalation = [
    { to = "group:duty", after = "PT5M" },
    { to = "group:heads", after = "PT15M" },
    { to = "group:board", after = "PT25M" },
]
"""
ONE_STEP = 'escalate_to = "group:payments-duty"\nescalate_after = "PT10M"\n'


@contextmanager
def chained(url: str, directory: Path, *, approver: str = "user", **settings: Any) -> Iterator[World]:
    """A server whose payments escalate by `CHAIN`."""
    text = (SHIPPED / "actions.toml").read_text(encoding="utf-8")
    before, entry = text.split('[actions."payment.finalize"]')
    entry = entry.replace(ONE_STEP, CHAIN, 1).replace('approver = "user"', f"approver = {approver!r}", 1)
    actions = directory / "actions.toml"
    actions.write_text(f'{before}[actions."payment.finalize"]{entry}', encoding="utf-8")
    files = {"actions_file": actions}
    with running_world(url, directory / "world", catalogue=files, **settings) as world:
        yield world


def sees(world: World, username: str) -> bool:
    """Whether something waits for this person on their page."""

    def read(connection: Any) -> bool:
        user = users.find(connection, username)
        assert user is not None
        return bool(my_approvals.overview(world.services, connection, user, world.clock.now()).waiting)

    return world.services.database.read(read)


def escalations(world: World) -> list[str]:
    return [e["data"]["to"] for e in world.events() if e["event"] == "approval.escalated"]


def test_an_approval_goes_up_step_by_step_and_each_step_is_told_once(
    database_url: str, tmp_path: Path
) -> None:
    with chained(database_url, tmp_path) as world:
        for name, group in (("olga", "duty"), ("hans", "heads"), ("bea", "board")):
            person(world, name, group)
        told = waits(world, asked_above_fifty(world).grant)
        seen = []
        for minutes in (0, 5, 9, 1, 10):
            world.clock.advance(minutes=minutes)
            for _ in range(2):
                tidy(world.services, world.clock.now())
            seen.append(([sees(world, name) for name in ("olga", "hans", "bea")], len(escalations(world))))
            if minutes == 9:
                with pytest.raises(Refusal) as refused:
                    answers(world, told.approval, user="hans")
                assert refused.value.status == 403
        assert seen == [
            ([False, False, False], 0),
            ([True, False, False], 1),
            ([True, False, False], 1),
            ([True, True, False], 2),
            ([True, True, True], 3),
        ]
        assert escalations(world) == ["group:duty", "group:heads", "group:board"]
        answers(world, told.approval, user="bea")
        assert polls(world, told.code).status_code == 200


def test_a_step_that_is_due_counts_whether_or_not_anybody_was_told(sqlite_url: str, tmp_path: Path) -> None:
    """No process has to be alive for it; whoever tells later tells every step, in order."""
    with chained(sqlite_url, tmp_path) as world:
        person(world, "hans", "heads")
        told = waits(world, asked_above_fifty(world).grant)
        world.clock.advance(minutes=16)
        assert sees(world, "hans")
        for _ in range(3):
            tidy(world.services, world.clock.now())
        assert escalations(world) == ["group:duty", "group:heads"]
        answers(world, told.approval, user="hans")
        assert polls(world, told.code).status_code == 200


def test_who_is_in_several_steps_and_the_first_group_answers_once(sqlite_url: str, tmp_path: Path) -> None:
    with chained(sqlite_url, tmp_path, approver="group:payments") as world:
        person(world, "grace", "payments", "duty", "heads")
        told = waits(world, asked_above_fifty(world).grant)
        world.clock.advance(minutes=16)
        answers(world, told.approval, user="grace")
        assert polls(world, told.code).status_code == 200


# --- members ----------------------------------------------------------------------------------------------------


def test_a_group_of_the_configuration_has_its_members_there(sqlite_url: str, tmp_path: Path) -> None:
    groups = {"duty": ["olga", "nobody-yet"], "heads": ["ada"]}
    with chained(sqlite_url, tmp_path, groups=groups) as world:
        person(world, "olga")
        person(world, "olg")
        told = waits(world, asked_above_fifty(world).grant)
        world.clock.advance(minutes=5)
        assert (sees(world, "olga"), sees(world, "olg")) == (True, False)
        with pytest.raises(Refusal):
            answers(world, told.approval, user="olg")
        answers(world, told.approval, user="olga")
        assert polls(world, told.code).status_code == 200


def test_A85_nobody_in_a_configured_group_answers_what_was_asked_for_themselves(
    sqlite_url: str, tmp_path: Path
) -> None:
    with chained(sqlite_url, tmp_path, approver="group:payments", groups={"payments": ["ada"]}) as world:
        told = waits(world, asked_above_fifty(world).grant)
        assert not sees(world, "ada")
        with pytest.raises(Refusal) as refused:
            answers(world, told.approval, user="ada")
        assert refused.value.rule == "approval.not_asked"


def test_somebody_who_left_the_group_meanwhile_does_not_count(sqlite_url: str, tmp_path: Path) -> None:
    """Two must agree: the first one's seat is empty again once they are out of the group."""
    text = (SHIPPED / "actions.toml").read_text(encoding="utf-8")
    before, entry = text.split('[actions."payment.finalize"]')
    entry = entry.replace('approver = "user"', 'approver = "group:payments"\napprovals = 2', 1)
    actions = tmp_path / "actions.toml"
    actions.write_text(f'{before}[actions."payment.finalize"]{entry}', encoding="utf-8")
    files = {"actions_file": actions}
    with running_world(sqlite_url, tmp_path / "world", catalogue=files) as world:
        for name in ("grace", "hans", "ines"):
            person(world, name, "payments")
        told = waits(world, asked_above_fifty(world).grant)
        assert answers(world, told.approval, user="grace").state == "waiting"
        assert answers(world, told.approval, user="grace").state == "waiting"  # twice is once
        _leaves(world, "grace")
        assert answers(world, told.approval, user="hans").state == "waiting"
        world.refuses(polls(world, told.code), "authorization_pending")
        assert answers(world, told.approval, user="ines").state == "approved"
        world.clock.advance(seconds=5)
        assert polls(world, told.code).status_code == 200


def _leaves(world: World, username: str) -> None:
    def write(connection: Any) -> None:
        user = users.by_id(connection, id_of(world, username))
        assert user is not None
        users.change(connection, replace(user, groups=()))

    world.services.database.write(write)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('"Payments Team" = ["ada"]', "a group's name takes"),
        ('payments = "ada"', "groups.payments: takes an array"),
        ("payments = [7]", "groups.payments.0: takes a text"),
    ],
)
def test_a_group_that_is_not_in_order_stops_the_start(tmp_path: Path, table: str, says: str) -> None:
    file = tmp_path / "authserver.toml"
    file.write_text(
        '[server]\nissuer = "http://127.0.0.1:1"\n[database]\nurl = "sqlite:///a.db"\n'
        f'[groups]\n{table}\n[[trust_domains]]\nname = "example.org"\nkind = "spiffe"\njwks_file = "a"\n'
    )
    with pytest.raises(ConfigurationError, match=says):
        load_settings(file)


# --- data types of an action ----------------------------------------------------------------------------------------


def test_an_action_is_for_no_other_data_than_its_entry_says(sqlite_url: str, tmp_path: Path) -> None:
    """Whatever a user has delegated; what an allowed type contains is allowed, too."""
    with catalogued(sqlite_url, tmp_path, 'datatypes = ["contact"]') as world:
        grant = world.granted(actions=["profile.read"], limits=None, datatypes=["profile"]).grant

        def reads(*datatypes: str) -> Any:
            return world.exchange(grant, action=at_market(world, "profile.read", datatypes=list(datatypes)))

        assert reads("email").status_code == 200
        with world.nothing_happens("catalogue.datatypes"):
            body = world.refuses(reads("email", "birth_date"), "invalid_authorization_details")
        assert body["violations"] == [
            {"constraint": "catalogue.datatypes", "requested": ["birth_date"], "allowed": ["contact"]}
        ]


def test_a_data_type_that_nobody_knows_stops_the_start(sqlite_url: str, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"profile\.read: datatypes: there is no 'shoe_size'"),
        catalogued(sqlite_url, tmp_path, 'datatypes = ["shoe_size"]'),
    ):
        pass


@contextmanager
def catalogued(url: str, directory: Path, line: str) -> Iterator[World]:
    """A server whose entry for reading personal data has one more line."""
    text = (SHIPPED / "actions.toml").read_text(encoding="utf-8")
    head = '[actions."profile.read"]\n'
    (directory / "actions.toml").write_text(text.replace(head, head + line + "\n"), encoding="utf-8")
    files = {"actions_file": directory / "actions.toml"}
    with running_world(url, directory / "world", catalogue=files) as world:
        yield world
