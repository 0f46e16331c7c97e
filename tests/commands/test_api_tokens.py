"""`api-tokens`: what programs call the administrators' API with."""

import json

from tests.commands.conftest import Manage


def test_a_token_is_made_listed_and_revoked(manage: Manage) -> None:
    made = manage.json(
        "api-tokens", "create", "--role", "viewer", "--name", "dashboards", "--expires", "P30D"
    )
    assert set(made) == {"id", "token"}
    (listed,) = manage.json("api-tokens", "list", "--json")
    assert (listed["id"], listed["name"], listed["role"]) == (made["id"], "dashboards", "viewer")
    assert listed["expires_at"] > listed["created_at"]
    assert made["token"] not in json.dumps(listed)
    assert "revoked_at" in manage.json("api-tokens", "revoke", made["id"])
    assert [event["event"] for event in events(manage)] == ["api_token.created", "api_token.revoked"]
    assert made["token"] not in manage.prints("audit", "export")


def test_what_no_token_can_be_made_of_is_said(sqlite_manage: Manage) -> None:
    create = ("api-tokens", "create", "--role", "owner", "--name", "x")
    for span in ("30", "P0D", "P99999999999D", "P1Y"):
        assert "P30D" in sqlite_manage.fails(*create, "--expires", span)
    assert "no such API token" in sqlite_manage.fails("api-tokens", "revoke", "none")
    assert sqlite_manage.run("api-tokens", "create", "--role", "root", "--name", "x").exit_code == 2


def events(manage: Manage) -> list[dict[str, object]]:
    """All audit events."""
    return [json.loads(line) for line in manage.prints("audit", "export").splitlines()]
