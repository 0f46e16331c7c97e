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


# --- accounts that are opened again -------------------------------------------------------------------------------


def test_a_user_who_is_enabled_again_has_nothing_of_what_they_granted(world: World) -> None:
    owner = client_of(world, Role.OWNER)
    made = owner.post("/users", {"username": "bo"}, status=201)
    path = f"/users/{made['user_id']}"
    granted = world.granted(user="bo")
    owner.post(f"{path}/disable")
    is_problem(owner.ask("POST", f"{path}/enrolment", json={}), 409)
    assert "disabled_at" not in owner.post(f"{path}/enable")
    assert world.events()[-1]["event"] == "user.enabled"
    assert world.exchange(granted.grant).status_code == 400
    world.clock.advance(seconds=2)
    again = world.granted(user="bo")
    owner.post(f"{path}/enable")  # who is enabled already loses nothing by it
    assert world.exchange(again.grant).status_code == 200


def test_a_new_link_ends_the_one_before_and_what_they_sign_in_with_where_asked(sqlite_world: World) -> None:
    operator = client_of(sqlite_world, Role.OPERATOR)
    made = operator.post("/users", {"username": "bo"}, status=201)
    link = operator.post(f"/users/{made['user_id']}/enrolment", status=201)["enrolment_url"]
    old, new = (
        sqlite_world.client.get(url.removeprefix(sqlite_world.issuer)).status_code
        for url in (made["enrolment_url"], link)
    )
    assert (old >= 400, new) == (True, 200)
    add_user(sqlite_world, "ann", role="viewer")
    path = f"/users/{id_of(operator, 'ann')}/enrolment"
    operator.post(path, {"forget": True}, status=201)
    assert sqlite_world.events()[-1]["data"]["user"]["passkeys_removed"] == 0


def test_A120_an_operator_opens_no_account_above_them_nor_one_that_approves(sqlite_world: World) -> None:
    owner, operator = client_of(sqlite_world, Role.OWNER), client_of(sqlite_world, Role.OPERATOR)
    for username, more in (("olga", {"role": "owner"}), ("fin", {"groups": ["finance"]})):
        path = f"/users/{owner.post('/users', {'username': username, **more}, status=201)['user_id']}"
        is_problem(operator.ask("POST", f"{path}/enrolment", json={}), 403)
        owner.post(f"{path}/enrolment", status=201)
        owner.post(f"{path}/disable")
        is_problem(operator.ask("POST", f"{path}/enable", json={}), 403)
        owner.post(f"{path}/enable")
    is_problem(owner.ask("POST", "/users/nobody/enrolment", json={}), 404)
