"""Changes through the API: done once, on what the caller saw, and told to the audit with what was before."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Connection, select

from authserver import move_policies
from authserver.actors import agents
from authserver.administration.roles import Role
from authserver.db import unavailable
from authserver.errors import Refusal
from authserver.ledger import idempotency
from authserver.policies.files import PolicyFile, read_files
from authserver.schema import IdempotencyKey, table_of
from tests.admin.scene import Client, agent, client_of, is_problem
from tests.policies import forbid, write
from tests.settling import redeem, token_of
from tests.world import World, make_agent, running_world


@pytest.fixture
def owner(world: World) -> Client:
    return client_of(world, Role.OWNER)


def last(world: World, event: str) -> dict[str, Any]:
    """The newest event of that name: what it says."""
    data: dict[str, Any] = next(one for one in reversed(world.events()) if one["event"] == event)["data"]
    return data


# --- what changes, and what the audit says of it --------------------------------------------------------------------


def test_an_agent_is_registered_changed_and_read_and_the_audit_has_before_and_after(
    world: World, owner: Client
) -> None:
    made = owner.ask("POST", "/agents", json=agent("buyer", name="Buyer", owner="shopping"))
    assert made.status_code == 201
    assert made.headers["location"] == f"{world.issuer}/api/v1/agents/buyer"
    assert last(world, "agent.created")["by"] == owner.by
    changed = owner.patch(
        "/agents/buyer", {"name": "Buyer 2", "owner": None, "actions": ["payment.finalize"]}
    )
    assert changed.status_code == 200, changed.text
    assert changed.json() == owner.get("/agents/buyer")
    said = last(world, "agent.changed")
    assert said["before"] == agent("buyer", name="Buyer", owner="shopping", redirect_uris=[])
    assert said["agent"] == agent("buyer", name="Buyer 2", actions=["payment.finalize"], redirect_uris=[])
    assert said["by"] == owner.by


def test_a_user_is_made_changed_and_disabled(world: World, owner: Client) -> None:
    made = owner.post("/users", {"username": "bo", "role": "viewer", "groups": ["finance"]}, status=201)
    assert made["enrolment_url"].startswith(f"{world.issuer}/enrol/")
    path = f"/users/{made['user_id']}"
    assert owner.patch(path, {"role": "revoker", "groups": []}).json()["role"] == "revoker"
    said = last(world, "user.changed")
    assert (said["before"]["role"], said["user"]["role"]) == ("viewer", "revoker")
    assert (said["before"]["groups"], said["user"]["groups"]) == (["finance"], [])
    granted = world.granted(user="bo")
    token = token_of(world, granted.grant)
    assert "disabled_at" in owner.post(f"{path}/disable", {"reason": "left the company"})
    assert redeem(world, token).status_code == 409
    assert world.exchange(granted.grant).status_code == 400
    assert world.client.get(made["enrolment_url"].removeprefix(world.issuer)).status_code in (403, 404, 410)
    assert last(world, "user.disabled") == {"by": owner.by, "user_id": made["user_id"]}
    assert last(world, "revocation")["reason"] == "left the company"


def test_a_user_name_that_is_somebodys_id_is_taken(world: World, owner: Client) -> None:
    """Otherwise a revocation of that id would end what the wrong one granted."""
    ada = owner.get("/users", q="ada")["items"][0]["user_id"]
    bo = owner.post("/users", {"username": "bo"}, status=201)["user_id"]
    for user_id in (ada, bo):
        if user_id[0] != "_":  # no user name begins so
            is_problem(owner.ask("POST", "/users", json={"username": user_id}), 409)


def test_an_agent_that_is_enabled_again_has_nothing_of_what_it_held(world: World, owner: Client) -> None:
    granted = world.granted()
    assert "disabled_at" in owner.post("/agents/basket-helper/disable", {"reason": "misbehaved"})
    assert world.exchange(granted.grant).status_code in (400, 401)
    assert "disabled_at" not in owner.post("/agents/basket-helper/enable")
    world.refuses(world.exchange(granted.grant), "invalid_request")
    assert world.exchange(world.granted().grant).status_code == 200
    assert last(world, "agent.enabled")["by"] == owner.by


def test_a_resource_server_has_its_secret_once_and_is_disabled(world: World, owner: Client) -> None:
    made = owner.post("/resource-servers", {"identifier": "https://new.example/api"}, status=201)
    credentials = (made["id"], made["client_secret"])
    asked = world.client.post("/oauth/introspect", data={"token": "x"}, auth=credentials)
    assert asked.status_code == 200
    assert "client_secret" not in owner.get(f"/resource-servers/{made['id']}")
    assert "disabled_at" in owner.post(f"/resource-servers/{made['id']}/disable")
    assert world.client.post("/oauth/introspect", data={"token": "x"}, auth=credentials).status_code == 401
    assert last(world, "resource_server.disabled") == {"by": owner.by, "id": made["id"]}


def test_a_delegation_is_made_paused_resumed_and_revoked(world: World, owner: Client) -> None:
    body = {"user": "ada", "agent": "basket-helper", "authorization_details": [world.delegation()]}
    made = owner.post("/delegations", body, status=201)
    path = f"/delegations/{made['grant_id']}"
    assert world.exchange(made["grant"]).status_code == 200
    assert owner.post(f"{path}/pause")["state"] == "paused"
    world.refuses(world.exchange(made["grant"]), "invalid_request")
    assert owner.post(f"{path}/resume")["state"] == "active"
    assert owner.post(f"{path}/revoke", {"reason": "a test"})["state"] == "revoked"
    world.refuses(world.exchange(made["grant"]), "invalid_request")
    for event in ("delegation.created", "delegation.paused", "delegation.resumed", "revocation"):
        assert last(world, event)["by"] == owner.by
    is_problem(owner.ask("POST", f"{path}/pause", json={}), 409)
    is_problem(owner.ask("POST", "/delegations/none/pause", json={}), 404)


def test_a_key_is_rotated_by_its_owner(world: World, owner: Client) -> None:
    made = owner.post("/keys/rotate", status=201)
    assert made["state"] == "pending"
    assert made["kid"] in {key["kid"] for key in world.client.get("/oauth/jwks").json()["keys"]}
    assert last(world, "key.created")["by"] == owner.by


# --- revocation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["delegation", "agent", "user", "trust_domain", "task", "all"])
def test_a_dry_run_counts_what_a_revocation_then_ends(sqlite_world: World, kind: str) -> None:
    world, revoker = sqlite_world, client_of(sqlite_world, Role.REVOKER)
    granted = world.granted()
    token = world.exchange(granted.grant, task_id="trip-7").json()["access_token"]
    named: dict[str, Any] = {
        "delegation": granted.grant_id,
        "agent": "basket-helper",
        "user": "ada",
        "trust_domain": "example.org",
        "task": "trip-7",
        "all": True,
    }
    body = {kind: named[kind], "reason": "woken at night"}
    counted = revoker.post("/revocations", {**body, "dry_run": True})
    assert (counted["kind"], counted["tokens"], counted["dry_run"]) == (kind, 1, True)
    assert world.introspect(token)["active"]
    assert revoker.post("/revocations", body) == {**counted, "dry_run": False}
    assert not world.introspect(token)["active"]
    said = last(world, "revocation")
    assert (said["by"], said["reason"], said["kind"]) == (revoker.by, "woken at night", kind)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"reason": "x"}, 422),
        ({"agent": "basket-helper", "user": "ada", "reason": "x"}, 422),
        ({"all": False, "reason": "x"}, 400),
        ({"all": "true", "reason": "x"}, 400),
        ({"agent": None, "reason": "x"}, 400),
        ({"agent": "", "reason": "x"}, 400),
        ({"agent": "basket-helper"}, 400),
        ({"agent": "basket-helper", "reason": ""}, 400),
        ({"agent": "nobody", "reason": "x"}, 404),
        ({"user": "nobody", "reason": "x"}, 404),
        ({"trust_domain": "nowhere", "reason": "x"}, 404),
        ({"delegation": "none", "reason": "x"}, 404),
    ],
)
def test_a_revocation_of_nothing_or_of_two_things_ends_nothing(
    sqlite_world: World, body: dict[str, object], status: int
) -> None:
    owner, granted = client_of(sqlite_world, Role.OWNER), sqlite_world.granted()
    with sqlite_world.nothing_happens(event="administration.refused"):
        is_problem(owner.ask("POST", "/revocations", json=body), status)
    assert sqlite_world.exchange(granted.grant).status_code == 200


# --- ETags ----------------------------------------------------------------------------------------------------------


def test_a_change_of_what_somebody_else_changed_meanwhile_is_refused(world: World, owner: Client) -> None:
    seen = owner.ask("GET", "/agents/price-scout").headers["ETag"]
    assert owner.patch("/agents/price-scout", {"name": "First"}).status_code == 200
    late = owner.ask("PATCH", "/agents/price-scout", json={"name": "Second"}, headers={"If-Match": seen})
    is_problem(late, 412)
    is_problem(owner.ask("PATCH", "/agents/price-scout", json={"name": "Third"}), 428)
    weak = f"W/{owner.ask('GET', '/agents/price-scout').headers['ETag']}"
    is_problem(owner.ask("PATCH", "/agents/price-scout", json={"name": "x"}, headers={"If-Match": weak}), 412)
    assert owner.get("/agents/price-scout")["name"] == "First"
    assert last(world, "administration.refused")["operation"] == "agents.change"


def test_of_many_changes_at_once_of_one_version_one_is_made(world: World, owner: Client) -> None:
    etag = owner.ask("GET", "/agents/price-scout").headers["ETag"]

    def change(number: int) -> int:
        headers = {"If-Match": etag}
        return owner.ask(
            "PATCH", "/agents/price-scout", json={"name": f"n{number}"}, headers=headers
        ).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(change, range(4))) == [200, 412, 412, 412]


# --- Idempotency-Key ------------------------------------------------------------------------------------------------


def test_a_request_that_is_sent_again_gets_the_first_answer_and_does_nothing(
    world: World, owner: Client
) -> None:
    body = {"identifier": "https://once.example/api"}
    first = owner.post("/resource-servers", body, status=201, Idempotency_Key="k-1")
    rows, events = world.rows(), len(world.events())
    again = owner.ask("POST", "/resource-servers", json=body, headers={"Idempotency-Key": "k-1"})
    assert (again.status_code, again.json()) == (201, first)
    assert again.headers["location"].endswith(first["id"])
    assert (world.rows(), len(world.events())) == (rows, events)
    other = {"identifier": "https://twice.example/api"}
    reused = owner.ask("POST", "/resource-servers", json=other, headers={"Idempotency-Key": "k-1"})
    assert is_problem(reused, 422)["type"].endswith("idempotency_key_reused")
    elsewhere = owner.ask("POST", "/users", json={"username": "bo"}, headers={"Idempotency-Key": "k-1"})
    is_problem(elsewhere, 422)
    somebody = client_of(world, Role.OPERATOR)
    is_problem(somebody.ask("POST", "/resource-servers", json=body, headers={"Idempotency-Key": "k-1"}), 409)


def test_an_answer_with_a_secret_is_kept_sealed(world: World, owner: Client) -> None:
    body = {"identifier": "https://sealed.example/api"}
    made = owner.post("/resource-servers", body, status=201, Idempotency_Key="k-2")
    keys = table_of(IdempotencyKey)
    kept = world.services.database.read(lambda connection: connection.scalars(select(keys.c.answer)).all())
    assert len(kept) == 1
    assert made["client_secret"] not in str(kept)
    assert made["id"] not in str(kept)


def test_a_refused_request_leaves_its_key_free(owner: Client) -> None:
    wrong = agent("keyed") | {"trust_domain": "nowhere"}
    is_problem(owner.ask("POST", "/agents", json=wrong, headers={"Idempotency-Key": "k-3"}), 422)
    owner.post("/agents", agent("keyed"), status=201, Idempotency_Key="k-3")


def test_a_key_whose_request_was_cut_short_is_not_done_again(world: World, owner: Client) -> None:
    owner.post("/agents", agent("cut"), status=201, Idempotency_Key="k-4")
    caller = f"api:{owner.by}"
    keys = table_of(IdempotencyKey)
    unanswered = keys.update().where(keys.c.caller == caller, keys.c.key == "k-4").values(answer=None)
    world.services.database.write(lambda connection: connection.execute(unanswered))
    is_problem(owner.ask("POST", "/agents", json=agent("cut"), headers={"Idempotency-Key": "k-4"}), 409)
    world.clock.advance(days=2)
    world.services.database.write(lambda c: idempotency.prune(c, world.clock.now(), 100))
    is_problem(owner.ask("POST", "/agents", json=agent("cut"), headers={"Idempotency-Key": "k-4"}), 409)


@pytest.fixture
def lost(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the answer to one commit be lost: of the transaction that writes an audit event of that name."""
    write, due = world.services.database.write, set[str]()

    def write_and_lose(work: Callable[[Connection], Any]) -> Any:
        before = len(world.events())
        result = write(work)
        if due & {event["event"] for event in world.events()[before:]}:
            due.clear()
            raise unavailable()
        return result

    monkeypatch.setattr(world.services.database, "write", write_and_lose)
    return due.add


def test_what_was_made_although_the_answer_says_503_is_not_made_again(
    world: World, owner: Client, lost: Callable[[str], None]
) -> None:
    keys = len(owner.get("/keys")["items"])
    lost("key.created")
    is_problem(owner.ask("POST", "/keys/rotate", json={}, headers={"Idempotency-Key": "k-6"}), 503)
    is_problem(owner.ask("POST", "/keys/rotate", json={}, headers={"Idempotency-Key": "k-6"}), 409)
    assert len(owner.get("/keys")["items"]) == keys + 1


def test_what_ends_something_can_be_sent_again_after_a_503(
    world: World, owner: Client, lost: Callable[[str], None]
) -> None:
    granted, body = world.granted(), {"agent": "basket-helper", "reason": "woken at night"}
    lost("revocation")
    is_problem(owner.ask("POST", "/revocations", json=body, headers={"Idempotency-Key": "k-7"}), 503)
    assert owner.post("/revocations", body, Idempotency_Key="k-7")["kind"] == "agent"
    world.refuses(world.exchange(granted.grant), "invalid_request")


def test_many_at_once_with_one_key_make_one_delegation(world: World, owner: Client) -> None:
    body = {"user": "ada", "agent": "basket-helper", "authorization_details": [world.delegation()]}

    def make(_number: int) -> int:
        return owner.ask("POST", "/delegations", json=body, headers={"Idempotency-Key": "k-5"}).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = set(pool.map(make, range(4)))
    assert statuses <= {201, 409}
    assert len(owner.get("/delegations")["items"]) == 1


# --- policies -------------------------------------------------------------------------------------------------------


def test_policies_are_checked_as_they_are_and_as_somebody_writes_them(sqlite_world: World) -> None:
    viewer = client_of(sqlite_world, Role.VIEWER)
    assert viewer.post("/policies/check")["ok"]
    draft = {"set": "mine", "text": forbid("no-wine")}
    assert viewer.post("/policies/check", {"draft": draft})["ok"]
    broken = viewer.post("/policies/check", {"draft": {"set": "mine", "text": "permit (;"}})
    assert not broken["ok"]
    assert broken["problems"][0]["file"] == "mine.cedar"


def test_a_simulation_says_what_a_draft_would_have_decided(sqlite_world: World) -> None:
    viewer, granted = client_of(sqlite_world, Role.VIEWER), sqlite_world.granted()
    token_of(sqlite_world, granted.grant)
    sqlite_world.clock.advance(minutes=1)
    draft = {"set": "mine", "text": forbid("no-food")}
    found = viewer.post("/policies/simulate", {"draft": draft})
    assert (found["decisions"], found["changed"], found["whole"]) == (1, 1, True)
    assert found["changes"] == [{"before": "permit", "after": "forbid", "count": 1}]
    assert found["examples"][0]["client_id"] == "basket-helper"
    is_problem(viewer.ask("POST", "/policies/simulate", json={"states": {"none": "enforce"}}), 404)
    assert viewer.post("/policies/simulate", {"until": "0001-01-01T00:00:00Z"})["decisions"] == 0


@pytest.mark.parametrize(
    "period",
    [
        {"until": "0001-01-01T00:00:00Z"},
        {"until": "0001-01-07T23:59:59Z"},
        {"since": "9999-12-31T23:59:59Z"},
        {"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
    ],
)
def test_a_simulation_of_a_time_without_decisions_has_none(
    clients: Callable[[Role], Client], period: dict[str, str]
) -> None:
    assert clients(Role.VIEWER).post("/policies/simulate", period)["decisions"] == 0


def test_separation_of_duties_asks_for_two_people_where_the_configuration_does(
    sqlite_url: str, tmp_path: Path
) -> None:
    directory = write(tmp_path / "policies", mine=forbid("no-wine"))
    policies = {"directory": directory, "two_people": True}
    with running_world(sqlite_url, tmp_path / "world", policies=policies) as world:
        ada, bo = client_of(world, Role.OWNER), client_of(world, Role.OWNER)
        assert ada.post("/policies/mine/state", {"state": "draft"})["before"] == "enforce"
        is_problem(ada.ask("POST", "/policies/mine/state", json={"state": "enforce"}), 403)
        is_problem(bo.ask("POST", "/policies/mine/state", json={"state": "enforce"}), 403)
        ada.post("/policies/mine/state", {"state": "observe"})
        is_problem(ada.ask("POST", "/policies/mine/state", json={"state": "enforce"}), 403)
        assert last(world, "administration.refused")["by"] == ada.by
        with pytest.raises(Refusal):  # whoever made a token has seen it
            move_policies.move(world.services, "mine", "enforce", by="operator:tests", now=world.clock.now())
        assert bo.post("/policies/mine/state", {"state": "enforce"})["before"] == "observe"
        assert last(world, "policies.moved")["by"] == bo.by


def test_who_is_no_owner_takes_out_of_force_nothing_that_an_owner_puts_in_force_at_that_moment(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write(tmp_path / "policies", mine=forbid("no-wine"))
    with running_world(sqlite_url, tmp_path / "world", policies={"directory": directory}) as world:
        owner, operator = client_of(world, Role.OWNER), client_of(world, Role.OPERATOR)
        owner.post("/policies/mine/state", {"state": "observe"})

        def meanwhile(directory: Path) -> tuple[PolicyFile, ...]:
            monkeypatch.undo()
            owner.post("/policies/mine/state", {"state": "enforce"})
            return read_files(directory)

        monkeypatch.setattr(move_policies, "read_files", meanwhile)
        is_problem(operator.ask("POST", "/policies/mine/state", json={"state": "draft"}), 403)
        (mine,) = (one for one in owner.get("/policies")["items"] if one["set"] == "mine")
        assert mine["state"] == "enforce"


# --- the audit ------------------------------------------------------------------------------------------------------


def test_the_audit_is_verified_and_exported(world: World, owner: Client) -> None:
    token_of(world, world.granted().grant)
    verified = owner.post("/audit-events/verify")
    assert (verified["ok"], verified["problems"]) == (True, [])
    answer = owner.ask("GET", "/audit-events/export")
    assert answer.headers["content-type"].startswith("application/jsonl")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["event"] for line in lines] == [event["event"] for event in world.events()]
    ocsf = owner.ask("GET", "/audit-events/export", params={"format": "ocsf"}).text.splitlines()
    assert len(ocsf) == len(lines)


# --- too often ------------------------------------------------------------------------------------------------------


def test_whoever_asks_too_often_waits_and_holds_up_nobody_else(sqlite_url: str, tmp_path: Path) -> None:
    with running_world(sqlite_url, tmp_path / "world", api={"requests_per_minute": 3}) as world:
        busy, other = client_of(world, Role.OWNER), client_of(world, Role.OWNER)
        for left in (2, 1, 0):
            answer = busy.ask("GET", "/agents")
            assert answer.headers["RateLimit-Policy"] == '"default";q=3;w=60'
            assert answer.headers["RateLimit"] == f'"default";r={left};t=60'
        events = len(world.events())
        world.clock.advance(seconds=20)
        answer = busy.ask("POST", "/keys/rotate", json={})
        is_problem(answer, 429)
        assert answer.headers["Retry-After"] == "40"
        assert answer.headers["RateLimit"] == '"default";r=0;t=40'
        assert len(world.events()) == events
        assert other.ask("GET", "/agents").status_code == 200
        world.clock.advance(seconds=40)
        assert busy.ask("GET", "/agents").status_code == 200


# --- agents with a document -----------------------------------------------------------------------------------------


def test_an_agent_whose_client_id_is_an_address_is_read_and_changed_by_it(sqlite_world: World) -> None:
    world, owner, address = sqlite_world, client_of(sqlite_world, Role.OWNER), "https://agent.example/client"
    now = world.clock.now()
    published = make_agent(
        address,
        "spiffe://example.org/agent/published",
        now,
        redirect_uris=("https://agent.example/back",),
        document_read_at=now,
    )
    world.services.database.write(lambda connection: agents.create(connection, published))
    path = f"/agents/{quote(address, safe='')}"
    assert owner.get(path)["redirect_uris"] == ["https://agent.example/back"]
    assert owner.patch(path, {"risk": "high"}).json()["risk"] == "high"
    assert owner.get(path)["redirect_uris"] == ["https://agent.example/back"]
    is_problem(owner.patch(path, {"redirect_uris": ["https://evil.example/"]}), 422)
    assert "disabled_at" in owner.post(f"{path}/disable")
