"""Delegations by an operator, and ending them (contract §5, §11)."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from authserver import jose
from tests.commands.conftest import Manage, operator_of
from tests.world import World


def later(**by: float) -> str:
    """An instant from now, as details write it."""
    return f"{datetime.now(UTC) + timedelta(**by):%Y-%m-%dT%H:%M:%SZ}"


def create(manage: Manage, details: object, user: str = "ada", agent: str = "basket-helper") -> list[str]:
    """The arguments that record a delegation."""
    file = manage.file("details.json", details)
    return ["delegations", "create", "--user", user, "--agent", agent, "--details", file]


def test_a_grant_of_an_operator_is_as_good_as_any(running: World, beside: Manage) -> None:
    made = beside.json(*create(beside, running.delegation()))
    assert list(made) == ["grant_id", "grant"]
    token = jose.read_compact(made["grant"])
    assert (token.header.typ, token.claims["jti"]) == ("delegation-grant+jwt", made["grant_id"])
    assert token.claims["aud"] == running.issuer
    assert running.exchange(made["grant"]).status_code == 200
    created = running.events()[0]
    assert (created["event"], created["delegation_id"]) == ("delegation.created", made["grant_id"])
    assert created["data"]["by"].startswith("operator:")


def test_details_may_be_an_array_of_one_and_come_from_standard_input(running: World, beside: Manage) -> None:
    details = json.dumps([running.delegation()])
    arguments = ("delegations", "create", "--user", "ada", "--agent", "basket-helper", "--details", "-")
    assert "grant" in beside.json(*arguments, input=details)


def test_a_delegation_may_have_begun_and_may_be_short(running: World, beside: Manage) -> None:
    details = running.delegation(not_before=later(days=-40), expires=later(seconds=90))
    assert "grant" in beside.json(*create(beside, details))


def test_delegations_are_listed_with_whether_they_stand(running: World, beside: Manage) -> None:
    standing = beside.json(*create(beside, running.delegation()))
    waiting = beside.json(*create(beside, running.delegation(not_before=later(days=1))))
    ended = beside.json(*create(beside, running.delegation()))
    assert running.exchange(ended["grant"]).status_code == 200
    revoked = beside.json("delegations", "revoke", ended["grant_id"])
    assert revoked == {"grant_id": ended["grant_id"], "delegations": 1, "tokens": 1}
    listed = {one["grant_id"]: one for one in beside.json("delegations", "list", "--json")}
    assert listed[standing["grant_id"]]["state"] == "active"
    assert listed[waiting["grant_id"]]["state"] == "not_yet_valid"
    assert listed[ended["grant_id"]]["state"] == "revoked"
    assert {one["user"] for one in listed.values()} == {"ada"}
    assert ended["grant"] not in beside.prints("delegations", "list", "--json")
    assert standing["grant_id"] in beside.prints("delegations", "list")


def test_showing_a_delegation_tells_what_is_spent(running: World, beside: Manage) -> None:
    made = beside.json(*create(beside, running.delegation()))
    assert running.exchange(made["grant"]).status_code == 200
    shown = beside.json("delegations", "show", made["grant_id"])
    assert shown["spent"] == {"total": {"currency": "EUR", "value": "42.50"}, "count": 1, "open": 1}
    assert shown["authorization_details"]["limits"]["total"] == "300.00"
    assert shown["created_by"].startswith("operator:")


@pytest.mark.parametrize("verb", ["show", "revoke"])
def test_a_delegation_that_there_is_not_is_named(sqlite_manage: Manage, verb: str) -> None:
    # Some ids begin with a dash, and are no option for that.
    for grant_id in ("nobody", "-hJx", "--x"):
        assert grant_id in sqlite_manage.fails("delegations", verb, grant_id)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"actions": ["payment.finalise"]}, "actions"),
    ({"expires": later(days=91)}, "expires is more than 90 days ahead"),
    ({"expires": later(days=-1)}, "expires is in the past"),
    ({"locations": ["https://nowhere.example/"]}, "locations names a resource server that is not registered"),
    ({"limits": None}, "limits"),
    ({"colour": "red"}, "member"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD)
def test_details_that_cannot_be_granted_are_refused(
    sqlite_world: World, sqlite_url: str, changes: dict[str, Any], reason: str
) -> None:
    beside = operator_of(sqlite_world.domain.parent, sqlite_url, sqlite_world.issuer)
    assert reason in beside.fails(*create(beside, sqlite_world.delegation(**changes)))
    assert beside.json("delegations", "list", "--json") == []


def test_both_parties_must_be_there(running: World, beside: Manage) -> None:
    details = running.delegation()
    assert beside.fails(*create(beside, details, user="bob")) == "there is no such enabled user"
    assert beside.fails(*create(beside, details, agent="bob")) == "there is no such enabled agent"
    beside.prints("agents", "disable", "basket-helper")
    assert beside.fails(*create(beside, details)) == "there is no such enabled agent"


def test_a_file_of_several_delegations_is_refused(running: World, beside: Manage) -> None:
    both = [running.delegation(), running.delegation()]
    assert "takes one agent_delegation, or an array of one" in beside.fails(*create(beside, both))


# --- revoke -------------------------------------------------------------------------------------------------------


TARGETS = [
    (["--agent", "basket-helper"], "agent", "basket-helper"),
    (["--user", "ada"], "user", None),
    (["--trust-domain", "example.org"], "trust_domain", "example.org"),
    (["--all"], "all", ""),
]


@pytest.mark.parametrize(("options", "kind", "name"), TARGETS)
def test_revoking_ends_all_that_it_covers(
    running: World, beside: Manage, options: list[str], kind: str, name: str | None
) -> None:
    grant = running.granted().grant
    token = running.exchange(grant).json()["access_token"]
    assert running.introspect(token)["active"] is True
    would_end = beside.json("revoke", *options, "--dry-run")
    assert (would_end["delegations"], would_end["tokens"], would_end["dry_run"]) == (1, 1, True)
    assert running.introspect(token)["active"] is True
    ended = beside.json("revoke", *options, "--reason", "a drill")
    assert (ended["kind"], ended["delegations"], ended["tokens"], ended["dry_run"]) == (kind, 1, 1, False)
    if name is not None:
        assert ended["target"] == name
    assert running.introspect(token)["active"] is False
    running.refuses(running.exchange(grant), "invalid_request")
    event = next(event for event in running.events() if event["event"] == "revocation")
    assert (event["data"]["reason"], event["data"]["by"].split(":")[0]) == ("a drill", "operator")


def test_revoking_a_task_ends_its_tokens_and_no_other(running: World, beside: Manage) -> None:
    grant = running.granted().grant
    of_task = running.exchange(grant, task_id="task-1").json()["access_token"]
    other = running.exchange(grant, task_id="task-2").json()["access_token"]
    ended = beside.json("revoke", "--task", "task-1")
    assert (ended["delegations"], ended["tokens"]) == (0, 1)
    assert running.introspect(of_task)["active"] is False
    assert running.introspect(other)["active"] is True


def test_a_user_is_revoked_by_name_or_by_id(running: World, beside: Manage) -> None:
    running.granted()
    (ada,) = beside.json("users", "list", "--json")
    by_name = beside.json("revoke", "--user", "ada", "--dry-run")
    assert by_name == beside.json("revoke", "--user", ada["user_id"], "--dry-run")
    assert by_name["target"] == ada["user_id"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--agent", "nobody"], "there is no agent nobody"),
        (["--user", "nobody"], "there is no user nobody"),
        (["--trust-domain", "example.net"], "there is no trust domain example.net"),
    ],
)
def test_what_is_not_there_cannot_be_revoked(sqlite_manage: Manage, options: list[str], reason: str) -> None:
    assert sqlite_manage.fails("revoke", *options) == reason
    assert sqlite_manage.fails("revoke", *options, "--dry-run") == reason


@pytest.mark.parametrize("options", [[], ["--all", "--agent", "a"], ["--agent", "a", "--user", "b"]])
def test_exactly_one_target_is_taken(sqlite_manage: Manage, options: list[str]) -> None:
    result = sqlite_manage.run("revoke", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "exactly one of --agent, --user, --trust-domain, --task and --all" in result.stderr
