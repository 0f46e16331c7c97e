"""`policy`: what an author of policies types, from the first draft to the day when somebody asks why."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.approving import waits
from tests.commands.conftest import Manage, operator_of
from tests.policies import PERMIT_ALL, asks, forbid, forbidden, policed, write
from tests.settling import redeemed
from tests.world import World


def own_policies(manage: Manage, **sets: str) -> Path:
    """Policies of the test's own, configured."""
    directory = write(manage.folder / "policies", **sets)
    manage.config.write_text(f'{manage.config.read_text()}\n[policies]\ndirectory = "policies"\n')
    return directory


@pytest.fixture
def author(sqlite_manage: Manage) -> Manage:
    """The verbs with policies of the test's own: one that permits everything."""
    own_policies(sqlite_manage)
    return sqlite_manage


def rewrite(author: Manage, **sets: str) -> None:
    write(author.folder / "policies", **sets)


# --- check --------------------------------------------------------------------------------------------------------


def test_check_needs_no_database_and_counts_what_is_sound(tmp_path: Path) -> None:
    manage = operator_of(tmp_path, f"sqlite:///{tmp_path}/nowhere/x.db")
    assert manage.prints("policy", "check") == "13 policies in 8 sets are sound\n"
    checked = manage.json("policy", "check", "--json")
    assert checked == {"ok": True, "problems": [], "policies": 13, "unpermitted": []}


def test_check_says_each_problem_with_file_and_line(author: Manage) -> None:
    rewrite(
        author, company=forbid("a", action="payment.finalise") + "\nforbid (principal", more=forbid("all")
    )
    directory = author.folder / "policies"
    result = author.run("policy", "check")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{directory}/company.cedar:3: unexpected end of input\n"
    rewrite(author, company=forbid("a", action="payment.finalise"))
    result = author.run("policy", "check", "--json")
    assert result.exit_code == 1
    problems = json.loads(result.stdout)["problems"]
    assert [(p["file"], p["line"], p["policy"]) for p in problems][:2] == [
        (f"{directory}/more.cedar", 1, "all"),
        (f"{directory}/company.cedar", 1, "a"),
    ]


def test_check_takes_another_directory_and_says_what_nothing_permits(author: Manage) -> None:
    search = '@id("search") permit (principal, action == Action::"catalog.search", resource);'
    write(author.folder / "other", base=search)
    said = author.prints("policy", "check", "--directory", str(author.folder / "other"))
    assert said.startswith(
        "1 policies in 1 sets are sound\nno policy that is enforced from the start permits cart."
    )
    assert "there is no such directory" not in author.fails("policy", "check", "--directory", "nowhere")


# --- test ---------------------------------------------------------------------------------------------------------

CASES = """
[[case]]
name = "at three"
action = "payment.finalize"
at = "2026-11-24T03:00:00Z"
expect = "forbid"
by = ["night"]

[[case]]
name = "at noon"
action = "payment.finalize"
expect = "permit"
"""


def test_the_shipped_policies_come_out_as_their_cases_say(author: Manage) -> None:
    shipped = operator_of(author.folder, "sqlite:///nowhere.db")
    results = shipped.json("policy", "test", "--json")
    assert {result["wrong"] for result in results} == {None}
    assert len(results) == 36


def test_each_shipped_policy_has_a_case_that_it_stops_and_one_that_it_lets_pass(author: Manage) -> None:
    shipped = operator_of(author.folder, "sqlite:///nowhere.db")
    results = shipped.json("policy", "test", "--json")
    for listed in shipped_sets():
        of_this = [result for result in results if result["set"] == listed["set"]]
        assert any(result["outcome"] == "permit" for result in of_this), listed
        for policy in listed["policies"]:
            assert any(policy in result["policies"] for result in of_this), policy


def shipped_sets() -> Iterator[dict[str, Any]]:
    from authserver.config import SHIPPED
    from authserver.policies.files import read_files

    for file in read_files(SHIPPED / "policies"):
        yield {"set": file.name, "policies": [policy.id for policy in file.policies]}


def test_a_case_that_comes_out_otherwise_is_shown_and_fails(author: Manage) -> None:
    rewrite(author, company=forbid("night", "context.hour < 6"))
    cases = author.folder / "policies" / "company.test.toml"
    cases.write_text(CASES, encoding="utf-8")
    assert "2 of 2 cases come out as expected" in author.prints("policy", "test")
    rewrite(author, company=forbid("night", "context.hour < 13"))
    result = author.run("policy", "test")
    assert (result.exit_code, result.stderr) == (1, "")
    assert "expects permit, gets forbid by night" in result.stdout
    assert "1 of 2 cases come out as expected" in result.stdout
    rewrite(author, company=forbid("day", "context.hour < 6", approval="user"))
    cases.write_text(CASES.replace('"forbid"', '"approval"') + 'approvers = ["user"]\n', encoding="utf-8")
    wrong = json.loads(author.run("policy", "test", "--json").stdout)
    assert [result["wrong"] for result in wrong] == [
        "expects it by night, gets it by day",
        "expects to ask user, asks nobody",
    ]


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ("[[case]", "Expected ']]'"),
        ("x = 1", "takes tables [[case]], and nothing else"),
        ('[[case]]\nname = "a"\nexpect = "permit"', "case 'a'.action is required"),
        (
            '[[case]]\nname = "a"\nexpect = "perhaps"\naction = "catalog.search"',
            "case 'a'.expect takes one of",
        ),
        (
            '[[case]]\nname = "a"\nexpect = "permit"\naction = "catalog.sarch"',
            "case 'a'.action must be actions",
        ),
        (
            '[[case]]\nname = "a"\nexpect = "permit"\naction = "catalog.search"\nhour = 3',
            "has an unknown member",
        ),
        (CASES + 'at = "noon"', "case 'at noon'.at must be an RFC 3339 time"),
        (CASES + 'amount = { currency = "EUR", value = "1.234" }', "case 'at noon'.amount"),
        (CASES + 'seconds_since = { "x" = 1 }', "case 'at noon'.seconds_since has an unknown member"),
    ],
)
def test_a_case_that_cannot_be_read_is_said_with_its_file(author: Manage, cases: str, said: str) -> None:
    path = author.folder / "policies" / "base.test.toml"
    path.write_text(cases, encoding="utf-8")
    line = author.fails("policy", "test")
    assert line.startswith(f"{path}: ")
    assert said in line


# --- states -------------------------------------------------------------------------------------------------------


def test_sets_are_listed_with_their_states(sqlite_manage: Manage) -> None:
    listed = {one["set"]: one["state"] for one in sqlite_manage.json("policy", "list", "--json")}
    assert listed.pop("base") == "enforce"
    assert {*listed.values()} == {"draft"}
    assert "quiet-hours" in sqlite_manage.prints("policy", "list")


def test_a_set_is_moved_on_by_an_audited_step(manage: Manage) -> None:
    assert manage.json("policy", "observe", "velocity") == {
        "set": "velocity",
        "before": "draft",
        "state": "observe",
    }
    assert manage.json("policy", "enforce", "velocity")["before"] == "observe"
    states = {one["set"]: one["state"] for one in manage.json("policy", "list", "--json")}
    assert states["velocity"] == "enforce"
    events = [json.loads(line) for line in manage.prints("audit", "export").splitlines()]
    moved = [event["data"] for event in events if event["event"] == "policies.moved"]
    assert [(one["before"], one["state"]) for one in moved] == [("draft", "observe"), ("observe", "enforce")]
    assert all(one["by"].startswith("operator:") for one in moved)


def test_a_step_that_no_server_could_take_over_is_refused(author: Manage) -> None:
    assert "no policy that is enforced permits anything" in author.fails("policy", "draft", "base")
    assert author.fails("policy", "enforce", "nights") == "nights: there is no such set; there are base"
    assert author.json("policy", "list", "--json")[0]["state"] == "enforce"


def test_an_operator_revokes_while_a_policy_is_broken(author: Manage) -> None:
    rewrite(author, company="forbid (")
    assert "company.cedar:1: unexpected end of input" in author.fails("serve")
    assert author.json("revoke", "--all")["delegations"] == 0
    assert any(
        one["check"] == "policies" and not one["ok"]
        for one in json.loads(author.run("doctor", "--json").stdout)
    )


def test_a_set_whose_file_is_gone_is_taken_out_of_use_by_a_step(author: Manage) -> None:
    rewrite(author, company=forbid("a"))
    author.json("policy", "enforce", "company")
    (author.folder / "policies" / "company.cedar").unlink()
    assert "company.cedar: is enforced, and there is no such file" in author.fails("serve")
    moved = author.json("policy", "draft", "company")
    assert moved == {"set": "company", "before": "enforce", "state": "draft"}
    assert [one["set"] for one in author.json("policy", "list", "--json")] == ["base"]


# --- what would have been -----------------------------------------------------------------------------------------


@pytest.fixture
def week(database_url: str, tmp_path: Path) -> Iterator[tuple[World, Manage, str]]:
    """A server with a past: three payments, two of them at bars, one too dear, one that asks; and its operator."""
    with policed(database_url, tmp_path, bars=forbid("cards", "false")) as world:
        manage = operator_of(tmp_path / "world", database_url, world.issuer)
        directory = tmp_path / "policies"
        manage.config.write_text(f'{manage.config.read_text()}\n[policies]\ndirectory = "{directory}"\n')
        limits = {"currency": "EUR", "per_action": "80.00", "total": "300.00"}
        anywhere = {"categories": ["any"], "countries": ["any"]}
        grant = world.granted(limits=limits, merchants=anywhere, approval={"above": "60.00"}).grant
        for category, value in (("5411", "10.00"), ("5813", "20.00"), ("5813", "30.00"), ("5813", "90.00")):
            world.exchange(grant, action=payment(world, category, value))
        asks(world, world.exchange(grant, action=payment(world, "5411", "70.00")))
        yield world, manage, grant


def payment(world: World, category: str, value: str) -> dict[str, Any]:
    merchant = {"id": "m_1", "category": category, "country": "NL"}
    return world.action(amount={"currency": "EUR", "value": value}, merchant=merchant)


NO_BARS = forbid("no-bars", 'context has category && context.category == "5813"', reason="No bars.")


def simulated(world: World, manage: Manage, tmp_path: Path, *options: str, **sets: str) -> dict[str, Any]:
    directory = write(tmp_path / "changed", **sets)
    until = world.clock.now().replace(year=world.clock.now().year + 1)
    chosen = (
        "--directory",
        str(directory),
        "--to",
        f"{until:%Y-%m-%dT%H:%M:%SZ}",
        "--from",
        "2020-01-01T00:00:00Z",
    )
    found: dict[str, Any] = manage.json("policy", "simulate", "--json", *chosen, *options)
    return found


def test_simulate_shows_what_would_have_changed(week: tuple[World, Manage, str], tmp_path: Path) -> None:
    world, manage, _ = week
    before = len(world.events())
    found = simulated(world, manage, tmp_path, bars=NO_BARS)
    assert (found["decisions"], found["changed"], found["skipped"]) == (5, 2, 0)
    assert found["changes"] == [{"before": "permit", "after": "forbid", "count": 2}]
    assert found["by_policy"] == {"no-bars": 2}
    assert [one["asked"]["amount"]["value"] for one in found["examples"]] == ["20.00", "30.00"]
    assert len(world.events()) == before  # it changes nothing


def test_simulate_sees_the_past_as_it_was_then(week: tuple[World, Manage, str], tmp_path: Path) -> None:
    world, manage, grant = week
    world.clock.advance(seconds=60)
    redeemed(world, world.exchange(grant, action=payment(world, "5411", "5.00")).json()["access_token"])
    world.clock.advance(seconds=60)
    world.exchange(grant, action=payment(world, "5411", "5.00"))
    rules = {
        "new": forbid("new", "context.first_payment", approval="user"),
        "fast": forbid("fast", "context.payments_last_hour >= 4"),
        "poor": forbid("poor", "context has budget_left && context.budget_left < 23600"),
    }
    found = {
        name: simulated(world, manage, tmp_path / name, **{name: rule})
        for name, rule in made(tmp_path, rules)
    }
    # When the last payment was made, the merchant was new no more; the one of 70.00 asked anyway.
    assert found["new"]["by_policy"] == {"new": 4}
    # The last payment was the fifth; 10 + 20 + 30 + 5 of 300 were gone before it.
    assert found["fast"]["by_policy"] == {"fast": 1}
    assert found["poor"]["by_policy"] == {"poor": 1}


def made(tmp_path: Path, rules: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, rule in rules.items():
        (tmp_path / name).mkdir()
        yield name, rule


def test_simulate_lifts_what_only_a_policy_refused(week: tuple[World, Manage, str], tmp_path: Path) -> None:
    world, manage, grant = week
    write(tmp_path / "policies", bars=NO_BARS + forbid("ask", "context.hour >= 0", approval="user"))
    assert world.services.policies.refresh()
    forbidden(world, world.exchange(grant, action=payment(world, "5813", "1.00")))
    asks(world, world.exchange(grant, action=payment(world, "5411", "1.00")))
    forbidden(world, world.exchange(grant, action=payment(world, "5813", "99.00")))
    waits(world, grant, action=payment(world, "5411", "1.00"))
    found = simulated(world, manage, tmp_path)
    assert found["changes"] == [
        {"before": "approval", "after": "permit", "count": 2},
        {"before": "forbid", "after": "permit", "count": 1},
    ]


def test_simulate_takes_sets_as_if_they_were_enforced_or_drafted(
    week: tuple[World, Manage, str], tmp_path: Path
) -> None:
    world, manage, _ = week
    (tmp_path / "changed" / "library").mkdir(parents=True)
    (tmp_path / "changed" / "library" / "bars.cedar").write_text(NO_BARS, encoding="utf-8")
    manage.run("policy", "draft", "bars")  # of that name, a set that is there today
    assert simulated(world, manage, tmp_path)["changed"] == 0
    assert simulated(world, manage, tmp_path, "--enforce", "bars")["changed"] == 2
    assert simulated(world, manage, tmp_path, "--enforce", "bars", "--examples", "1")["examples"][1:] == []
    assert "x: there is no such set" in manage.fails("policy", "simulate", "--draft", "x")
    assert "--from and --to" in manage.fails("policy", "simulate", "--from", "yesterday")
    for until in ("2020-01-01T00:00:00Z", "0001-01-01T00:00:00Z"):
        text = manage.prints("policy", "simulate", "--draft", "bars", "--to", until)
        assert text == "0 decisions, of which 0 would have been others\n"


# --- why ----------------------------------------------------------------------------------------------------------


def test_explain_tells_how_a_refusal_came_about(week: tuple[World, Manage, str], tmp_path: Path) -> None:
    world, manage, grant = week
    write(tmp_path / "policies", bars=NO_BARS)
    assert world.services.policies.refresh()
    forbidden(world, world.exchange(grant, action=payment(world, "5813", "1.00")))
    number = len(world.events())
    told = manage.json("policy", "explain", str(number), "--json")
    assert told["outcome"] == "forbid"
    assert [(p["policy"], p["reason"]) for p in told["decided_by"]] == [("no-bars", "No bars.")]
    assert told["context"]["category"] == "5813"
    assert told["data"]["violations"] == [{"constraint": "policy:no-bars", "reason": "No bars."}]
    text = manage.prints("policy", "explain", str(number))
    assert f"decided by no-bars ({tmp_path}/policies/bars.cedar:1)" in text
    write(tmp_path / "policies", bars="")
    assert "decided by no-bars (which is there no more)" in manage.prints("policy", "explain", str(number))


def test_explain_takes_the_id_of_an_action(week: tuple[World, Manage, str]) -> None:
    world, manage, grant = week
    action_id = world.exchange(grant, action=payment(world, "5411", "1.00")).json()["action_id"]
    told = manage.json("policy", "explain", action_id, "--json")
    assert (told["outcome"], told["decided_by"][0]["policy"]) == ("permit", "all")
    assert "there is no decision" in manage.fails("policy", "explain", "nothing")
    assert PERMIT_ALL.strip() in manage.prints("policy", "explain", action_id)
