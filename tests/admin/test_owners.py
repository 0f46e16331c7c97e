"""Somebody stays who is an owner, whoever ends whom at the same moment."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from authserver import disable, register, sign_in
from authserver.accounts import users
from authserver.accounts.sessions import Visitor
from authserver.administration.roles import Role
from authserver.pages import cookies
from tests.admin.scene import BASE, Client, client_of, is_problem
from tests.pages.browser import PASSWORD, add_user
from tests.world import World


def passing(world: World) -> Client:
    """An owner by a token that ends."""
    return client_of(world, Role.OWNER, expires_at=world.clock.now() + timedelta(days=1))


def id_of(client: Client, username: str) -> str:
    found: str = next(
        one["user_id"] for one in client.get("/users", q=username)["items"] if one["username"] == username
    )
    return found


def test_A120_the_last_owner_is_neither_disabled_nor_given_another_role(world: World) -> None:
    caller = passing(world)
    path = f"/users/{caller.post('/users', {'username': 'olga', 'role': 'owner'}, status=201)['user_id']}"
    assert is_problem(caller.ask("POST", f"{path}/disable", json={}), 409)["detail"]
    is_problem(caller.patch(path, {"role": "operator"}), 409)
    assert caller.get(path)["role"] == "owner"
    assert "disabled_at" not in caller.get(path)
    assert caller.patch(path, {"name": "Olga"}).status_code == 200
    caller.post("/users", {"username": "otto", "role": "owner"}, status=201)
    assert caller.patch(path, {"role": "operator"}).status_code == 200


def test_a_token_without_an_end_is_an_owner_that_stays(sqlite_world: World) -> None:
    caller = client_of(sqlite_world, Role.OWNER)
    made = caller.post("/users", {"username": "olga", "role": "owner"}, status=201)
    assert "disabled_at" in caller.post(f"/users/{made['user_id']}/disable")


def test_A120_two_owners_who_disable_each_other_at_once_leave_one(world: World) -> None:
    sent: dict[str, dict[str, Any]] = {}
    for name in ("olga", "otto"):
        add_user(world, name, role="owner")
        begun = sign_in.by_password(
            world.services, name, PASSWORD, Visitor("127.0.0.1", "a browser"), world.clock.now()
        )
        secret = begun.secret
        sent[name] = {"Cookie": f"session={secret}", "X-CSRF-Token": cookies.csrf_of(secret)}
    viewer = client_of(world, Role.VIEWER)

    def end(by: str, whom: str) -> int:
        path = f"{BASE}/users/{id_of(viewer, whom)}/disable"
        return world.client.post(path, json={}, headers=sent[by]).status_code

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(end, ("olga", "otto"), ("otto", "olga")))
    assert ended.count(200) == 1, ended
    assert sum("disabled_at" not in one for one in viewer.get("/users", role="owner")["items"]) == 1


def test_A120_somebody_who_is_being_made_an_owner_is_not_an_operators_to_disable(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_of(sqlite_world, Role.OWNER)
    operator = client_of(sqlite_world, Role.OPERATOR)
    made = operator.post("/users", {"username": "mia"}, status=201)["user_id"]
    disabled: Callable[..., None] = disable.disable_user

    def meanwhile(*said: Any, **named: Any) -> None:
        def promote(connection: Connection) -> None:
            before = users.by_id(connection, made)
            assert before is not None
            wanted = register.parse_user({"username": "mia", "role": "owner"})
            register.change_user(connection, wanted, before, "operator:tests", sqlite_world.clock.now())

        sqlite_world.services.database.write(promote)
        disabled(*said, **named)

    monkeypatch.setattr(disable, "disable_user", meanwhile)
    is_problem(operator.ask("POST", f"/users/{made}/disable", json={}), 403)
