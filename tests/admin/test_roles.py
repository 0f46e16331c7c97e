"""Who may do what: every operation by every role, by nobody, and by whoever tries to get around it (threats A120)."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from authserver import api_tokens
from authserver.admin.operations import Operation
from authserver.admin.resources import ALL
from authserver.administration.roles import Role
from tests.admin.scene import BASE, Client, client_of, is_problem
from tests.world import World, running_world

Clients = Callable[[Role], Client]

# The least role for each operation, written down once more, by hand: whoever opens one to more people changes this too.
LEAST = {
    Role.VIEWER: """
        agents.list agents.read resource_servers.list resource_servers.read users.list users.read delegations.list
        delegations.read actions.list actions.read redemptions.list redemptions.read approvals.list approvals.read
        trust_domains.list trust_domains.read catalogue.list catalogue.read policies.list policies.check
        policies.simulate keys.list keys.read audit_events.list audit_events.read audit_events.export
        audit_events.verify
    """,
    Role.REVOKER: "delegations.pause delegations.revoke revocations.create",
    Role.OPERATOR: """
        agents.create agents.change agents.disable agents.enable resource_servers.create resource_servers.disable
        users.create users.change users.disable users.enable users.enrolment delegations.create delegations.resume
        policies.move
    """,
    Role.OWNER: "keys.rotate",
}
LEAST_ROLE = {name: role for role, names in LEAST.items() for name in names.split()}
ORDER = list(Role)
BY_NAME = {operation.name: operation for operation in ALL}


def path_of(operation: Operation) -> str:
    """Its path, for something that is not there."""
    parts = operation.path.split("/")
    return "/".join("nothing-of-this-name" if part.startswith("{") else part for part in parts)


def arguments(operation: Operation) -> dict[str, Any]:
    """A request that fits well enough to be asked for a role, and that does nothing."""
    return {"json": {"unknown": True}} if operation.body is not None else {}


def test_A120_the_table_has_every_operation() -> None:
    assert sorted(LEAST_ROLE) == sorted(BY_NAME)


@pytest.mark.parametrize("role", Role)
def test_A120_each_role_may_do_what_its_table_says_and_nothing_else(clients: Clients, role: Role) -> None:
    client, refused = clients(role), {"administration.refused"}
    for operation in ALL:
        newest = client.world._newest_event()
        answer = client.ask(operation.method, path_of(operation), **arguments(operation))
        if ORDER.index(role) >= ORDER.index(LEAST_ROLE[operation.name]):
            assert answer.status_code in (200, 400, 404), (operation.name, answer.text)
            continue
        assert is_problem(answer, 403)["detail"] == "the role does not allow this", operation.name
        events = client.world.events(after=newest)
        assert {event["event"] for event in events} == refused, operation.name
        assert events[0]["data"]["by"] == client.by
        assert events[0]["data"]["operation"] == operation.name


@pytest.mark.parametrize("operation", ALL, ids=lambda operation: operation.name)
def test_A120_nobody_may_do_anything_without_credentials(shared_world: World, operation: Operation) -> None:
    newest = shared_world._newest_event()
    for header in (None, "Bearer", "Bearer asapi_wrong", "Basic cnM6c2VjcmV0", "Bearer a.b.c", "Bearer \xe9"):
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        answer = shared_world.client.request(
            operation.method, BASE + path_of(operation), headers=headers, **arguments(operation)
        )
        is_problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith('Bearer realm="')
    assert shared_world.events(after=newest) == []  # or anybody could fill the audit


def test_A120_a_token_that_has_expired_or_was_revoked_opens_nothing(sqlite_world: World) -> None:
    now = sqlite_world.clock.now()
    short = client_of(sqlite_world, Role.OWNER, expires_at=now + timedelta(seconds=1))
    ended = client_of(sqlite_world, Role.OWNER)
    assert short.get("/agents")["items"]
    api_tokens.revoke(sqlite_world.services, ended.id, by="operator:tests", now=now)
    is_problem(ended.ask("GET", "/agents"), 401)
    sqlite_world.clock.advance(seconds=1)
    answer = short.ask("GET", "/agents")
    is_problem(answer, 401)
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_A120_another_method_is_none_of_the_operation(clients: Clients) -> None:
    for method in ("PUT", "DELETE", "TRACE", "OPTIONS", "PATCH"):
        answer = clients(Role.OWNER).ask(method, "/agents")
        is_problem(answer, 405)
        assert answer.headers["allow"] == "GET, HEAD, POST"


def test_A120_a_method_in_a_header_or_a_parameter_counts_for_nothing(clients: Clients) -> None:
    viewer = clients(Role.VIEWER)
    for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        assert viewer.ask("GET", "/agents", headers={header: "POST"}).status_code == 200
        is_problem(viewer.ask("POST", "/keys/rotate", headers={header: "GET"}, json={}), 403)
    is_problem(viewer.ask("GET", "/agents", params={"_method": "POST"}), 400)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/users", {"username": "eve", "password": "correct horse battery staple"}),
        ("/users", {"username": "eve", "user_id": "1"}),
        ("/users", {"username": "eve", "disabled_at": None}),
        (
            "/agents",
            {"client_id": "eve", "trust_domain": "example.org", "subject": "x", "created_at": "2020"},
        ),
        ("/resource-servers", {"identifier": "https://eve.example", "secret_hash": "00"}),
        ("/resource-servers", {"identifier": "https://eve.example", "id": "rs_shop"}),
        (
            "/delegations",
            {"user": "ada", "agent": "basket-helper", "authorization_details": [{}], "by": "user"},
        ),
        ("/revocations", {"all": True, "reason": "x", "revoked_by": "somebody else"}),
    ],
)
def test_A120_members_that_are_not_the_callers_to_say_are_refused(
    clients: Clients, path: str, body: dict[str, object]
) -> None:
    rows = clients(Role.OWNER).world.rows()
    problem = is_problem(clients(Role.OWNER).ask("POST", path, json=body), 400)
    assert problem["errors"][0]["detail"] == "Extra inputs are not permitted"
    assert clients(Role.OWNER).world.rows() == rows


@pytest.mark.parametrize(
    "body",
    [b'{"reason": "a", "reason": "b", "all": true}', b"[]", b"{", b'{"reason": NaN}', b"\xff", b'"all"'],
)
def test_A120_a_body_that_two_readers_could_read_differently_is_refused(
    clients: Clients, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    is_problem(clients(Role.OWNER).ask("POST", "/revocations", content=body, headers=headers), 400)


def test_A120_a_form_is_no_body(clients: Clients) -> None:
    is_problem(clients(Role.OWNER).ask("POST", "/revocations", data={"all": "true", "reason": "x"}), 415)


def test_A120_nobody_gives_a_role_above_their_own(clients: Clients) -> None:
    operator = clients(Role.OPERATOR)
    is_problem(operator.ask("POST", "/users", json={"username": "mallory", "role": "owner"}), 403)
    made = operator.post("/users", {"username": "mallory", "role": "operator"}, status=201)
    is_problem(operator.patch(f"/users/{made['user_id']}", {"role": "owner"}), 403)
    assert operator.patch(f"/users/{made['user_id']}", {"role": None}).status_code == 200


def test_A120_nobody_changes_somebody_above_them(clients: Clients) -> None:
    owner = clients(Role.OWNER).post("/users", {"username": "olga", "role": "owner"}, status=201)
    operator, path = clients(Role.OPERATOR), f"/users/{owner['user_id']}"
    is_problem(operator.patch(path, {"role": None}), 403)
    is_problem(operator.patch(path, {"groups": ["finance"]}), 403)
    is_problem(operator.ask("POST", f"{path}/disable", json={}), 403)


def test_A120_an_operator_makes_nobody_who_approves(clients: Clients) -> None:
    operator, path = clients(Role.OPERATOR), "/users"
    is_problem(operator.ask("POST", path, json={"username": "sam", "groups": ["finance"]}), 403)
    made = operator.post(path, {"username": "sam"}, status=201)
    is_problem(operator.patch(f"/users/{made['user_id']}", {"groups": ["finance"]}), 403)
    owner = clients(Role.OWNER)
    assert owner.patch(f"/users/{made['user_id']}", {"groups": ["finance"]}).status_code == 200
    assert operator.patch(f"/users/{made['user_id']}", {"name": "Sam"}).json()["groups"] == ["finance"]
    assert operator.patch(f"/users/{made['user_id']}", {"groups": None}).json()["groups"] == []


def test_A120_an_operator_makes_nobody_whom_the_configuration_lets_approve(
    sqlite_url: str, tmp_path: Path
) -> None:
    with running_world(sqlite_url, tmp_path / "world", groups={"finance": ["tess"]}) as world:
        is_problem(client_of(world, Role.OPERATOR).ask("POST", "/users", json={"username": "tess"}), 403)
        client_of(world, Role.OWNER).post("/users", {"username": "tess"}, status=201)


def test_A120_to_enforce_a_policy_or_to_take_one_out_of_force_is_an_owners(clients: Clients) -> None:
    for name, state in (("small-payments", "enforce"), ("base", "draft")):
        sets = {one["set"] for one in clients(Role.VIEWER).get("/policies")["items"]}
        chosen = name if name in sets else sorted(sets - {"base"})[0]
        is_problem(
            clients(Role.OPERATOR).ask("POST", f"/policies/{chosen}/state", json={"state": state}), 403
        )


def test_A120_what_is_not_there_is_not_told_from_what_never_was(clients: Clients) -> None:
    viewer = clients(Role.VIEWER)
    for path in (
        "/agents/x",
        "/users/x",
        "/actions/%00",
        "/users/%0a",
        "/audit-events/x",
        "/audit-events/99999",
    ):
        is_problem(viewer.ask("GET", path), 404)
    is_problem(viewer.ask("GET", "/audit-events/99999999999999999999"), 404)
    is_problem(viewer.ask("GET", "/nothing"), 404)
    is_problem(viewer.ask("GET", "/agents/"), 404)
    is_problem(viewer.ask("GET", ""), 404)


def test_A122_no_secret_is_in_any_answer_that_reads_nor_in_the_audit(clients: Clients) -> None:
    owner, world = clients(Role.OWNER), clients(Role.OWNER).world
    asked = {"user": "ada", "agent": "basket-helper", "authorization_details": [world.delegation()]}
    grant = owner.post("/delegations", asked, status=201, Idempotency_Key="g-1")["grant"]
    made = owner.post("/resource-servers", {"identifier": "https://secret.example/api"}, status=201)
    user = owner.post("/users", {"username": "grace"}, status=201)
    texts = [httpx.Response.read(owner.ask("GET", path)).decode() for path in READS]
    everything = json.dumps(texts)
    for secret in (made["client_secret"], user["enrolment_url"].rsplit("/", 1)[-1], grant, owner.token):
        assert secret not in everything


READS = [one.path for one in ALL if one.method == "GET" and "{" not in one.path]
