"""`apply`: what the files say comes to be, once; what they do not say is left alone (contract §11)."""

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from tests.commands.conftest import Manage

FILE = """
[[agents]]
client_id = "helper"
trust_domain = "example.org"
subject = "spiffe://example.org/agent/helper"
name = "Basket Helper"
actions = ["catalog.search", "payment.finalize"]
redirect_uris = ["https://agent.example/callback"]

[[resource_servers]]
identifier = "https://shop.example/api"
name = "Example Foods"
merchant = { id = "m_123", category = "5411", country = "NL" }

[[users]]
username = "ada"
name = "Ada"
groups = ["payments"]
"""


def records(manage: Manage) -> list[Any]:
    """Everything that is registered."""
    return [manage.json(noun, "list", "--json") for noun in ("agents", "resource-servers", "users")]


def test_applying_twice_is_applying_once(manage: Manage) -> None:
    file = manage.file("records.toml", FILE)
    first = manage.json("apply", file, "--json")
    assert [(change["kind"], change["name"], change["change"]) for change in first["changes"]] == [
        ("agent", "helper", "create"),
        ("resource server", "https://shop.example/api", "create"),
        ("user", "ada", "create"),
    ]
    after = records(manage)
    assert manage.json("apply", file, "--json") == {"dry_run": False, "changes": [], "created": []}
    assert manage.prints("apply", file) == "nothing differs\n"
    assert records(manage) == after


def test_secrets_of_what_is_new_are_shown_once(manage: Manage) -> None:
    created = manage.json("apply", manage.file("records.toml", FILE), "--json")["created"]
    server, user = created
    assert list(server) == ["id", "identifier", "client_secret"]
    assert list(user) == ["user_id", "username", "enrolment_url"]
    assert server["client_secret"] not in json.dumps(records(manage)) + manage.prints("audit", "export")


def test_the_difference_is_shown_before_what_is_made(sqlite_manage: Manage) -> None:
    printed = sqlite_manage.prints("apply", sqlite_manage.file("records.toml", FILE))
    assert printed.startswith("+ agent helper\n")
    assert printed.index("+ user ada") < printed.index('"client_secret"')


def test_a_dry_run_shows_the_difference_and_does_nothing(manage: Manage) -> None:
    file = manage.file("records.toml", FILE)
    shown = manage.json("apply", "--dry-run", "--json", file)
    assert (shown["dry_run"], len(shown["changes"]), shown["created"]) == (True, 3, [])
    assert '"client_secret"' not in manage.prints("apply", "--dry-run", file)
    assert records(manage) == [[], [], []]
    assert manage.prints("audit", "export") == ""


def test_what_changed_in_the_file_is_changed_and_nothing_else(manage: Manage) -> None:
    manage.prints("apply", manage.file("records.toml", FILE))
    manage.prints("users", "create", "--username", "bob")
    changed = FILE.replace('"Basket Helper"', '"Helper"').replace('groups = ["payments"]', "groups = []")
    shown = manage.json("apply", manage.file("records.toml", changed), "--json")
    assert [(change["name"], change["members"]) for change in shown["changes"]] == [
        ("helper", {"name": {"from": "Basket Helper", "to": "Helper"}}),
        ("ada", {"groups": {"from": ["payments"], "to": []}}),
    ]
    (agent,), (server,), users = records(manage)
    assert (agent["name"], agent["actions"]) == ("Helper", ["catalog.search", "payment.finalize"])
    assert server["merchant"] == {"id": "m_123", "category": "5411", "country": "NL"}
    assert [(user["username"], user["groups"]) for user in users] == [("ada", []), ("bob", [])]


def test_a_member_that_a_file_leaves_out_stays_as_it_is(manage: Manage) -> None:
    """An agent's bounds never grow because somebody lost a line."""
    manage.prints("apply", manage.file("records.toml", FILE))
    shorter = manage.file("records.toml", '[[agents]]\nclient_id = "helper"\nowner = "Shopping"\n')
    shown = manage.json("apply", shorter, "--json")
    assert shown["changes"][0]["members"] == {"owner": {"from": None, "to": "Shopping"}}
    (agent,) = manage.json("agents", "list", "--json")
    assert agent["actions"] == ["catalog.search", "payment.finalize"]


def test_a_resource_server_can_go_over_to_a_key_and_back_to_a_new_secret(manage: Manage) -> None:
    key = ECKey.generate_key("P-256").as_dict(private=False)
    manage.file("keys.json", {"keys": [key]})
    start = '[[resource_servers]]\nidentifier = "https://shop.example/api"\n'
    first = manage.json("apply", manage.file("a.toml", start), "--json")["created"][0]
    with_key = manage.file("b.toml", start + 'auth = "private_key_jwt"\njwks_file = "keys.json"\n')
    assert manage.json("apply", with_key, "--json")["created"] == []
    back = manage.file("c.toml", start + 'auth = "client_secret_basic"\n')
    second = manage.json("apply", back, "--json")["created"][0]
    assert second["id"] == first["id"]
    assert second["client_secret"] != first["client_secret"]


def test_a_disabled_agent_stays_disabled(sqlite_manage: Manage) -> None:
    file = sqlite_manage.file("records.toml", FILE)
    sqlite_manage.prints("apply", file)
    sqlite_manage.prints("agents", "disable", "helper")
    assert sqlite_manage.prints("apply", file) == "nothing differs\n"
    assert "disabled_at" in sqlite_manage.json("agents", "list", "--json")[0]


def test_several_files_are_one(sqlite_manage: Manage) -> None:
    one = sqlite_manage.file("one.toml", FILE)
    two = sqlite_manage.file("two.toml", '[[users]]\nusername = "bob"\n')
    assert len(sqlite_manage.json("apply", one, two, "--json")["changes"]) == 4
    assert sqlite_manage.fails("apply", one, one) == f"{one}: agent helper is in {one} already"


BAD = [
    ('[[agents]]\nname = "a"', "each agent takes a client_id"),
    ('[[agents]]\nclient_id = "a"', "agent a: trust_domain is missing"),
    (
        FILE.replace("agent/helper", "../helper"),
        "agent helper: subject must be a SPIFFE ID of its trust domain",
    ),
    (
        FILE.replace('"catalog.search"', '"catalog.destroy"'),
        "agent helper: actions must be actions of the catalogue",
    ),
    (FILE + "admin = true\n", "user ada: 'admin' is no member of this record"),
    (FILE + 'password = "correct horse battery"\n', "user ada: a password is not for a file"),
    (FILE + "[[roles]]\n", "roles: takes [[agents]], [[resource_servers]] and [[users]]"),
    ("agents = 1", "agents: takes [[agents]], [[resource_servers]] and [[users]]"),
    ("[[agents", "Expected ']]'"),
    ('[[agents]]\nclient_id = "a"\njwks_file = "nowhere.json"', "nowhere.json: No such file or directory"),
]


@pytest.mark.parametrize(("content", "reason"), BAD)
def test_a_file_that_cannot_be_applied_changes_nothing(
    sqlite_manage: Manage, content: str, reason: str
) -> None:
    assert reason in sqlite_manage.fails("apply", sqlite_manage.file("bad.toml", content))
    assert records(sqlite_manage) == [[], [], []]


def test_an_agent_is_not_moved_to_another_workload(manage: Manage) -> None:
    """Users allowed one workload what they allowed."""
    manage.prints("apply", manage.file("records.toml", FILE))
    moved = manage.file("records.toml", FILE.replace("agent/helper", "agent/other"))
    assert "agent helper: subject cannot change; register another" in manage.fails("apply", moved)


def test_all_is_done_or_nothing(manage: Manage) -> None:
    """The second agent's workload is taken, which only the database can say."""
    manage.prints("apply", manage.file("records.toml", FILE))
    before = records(manage)
    second = '[[users]]\nusername = "bob"\n[[agents]]\nclient_id = "b"\ntrust_domain = "example.org"\n'
    file = manage.file("more.toml", second + 'subject = "spiffe://example.org/agent/helper"\n')
    result = manage.run("apply", file)
    assert (result.exit_code, result.stderr) == (1, "agent b: its subject or its name is taken\n")
    assert records(manage) == before


def test_a_file_that_is_not_there_is_named(sqlite_manage: Manage) -> None:
    assert sqlite_manage.fails("apply", "/nowhere.toml") == "/nowhere.toml: No such file or directory"
    assert Path("/nowhere.toml").exists() is False
