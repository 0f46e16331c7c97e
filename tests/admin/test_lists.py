"""Lists: pages that nothing disturbs, filters that mean what they say, on both databases."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from authserver.administration import lists
from authserver.administration.roles import Role
from tests.admin.scene import Client, agent, client_of, is_problem
from tests.approving import asked_above_fifty, waits
from tests.attacks.making import handed_on
from tests.settling import redeemed, settle, token_of
from tests.world import BASKET_HELPER, World

Clients = Callable[[Role], Client]


@pytest.fixture
def owner(world: World) -> Client:
    return client_of(world, Role.OWNER)


def all_of(client: Client, path: str, limit: int, **filters: str | int) -> list[dict[str, Any]]:
    """A whole list, page by page."""
    items, cursor = list[dict[str, Any]](), {}
    while True:
        page = client.get(path, limit=limit, **filters, **cursor)
        assert len(page["items"]) <= limit
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}


def test_a_list_in_pages_has_everything_once_whatever_is_added_meanwhile(owner: Client) -> None:
    for number in (1, 3, 5, 7):
        owner.post("/agents", agent(f"c-{number}"), status=201)
    first = owner.get("/agents", limit=4)
    seen = [one["client_id"] for one in first["items"]]
    assert seen == ["basket-helper", "c-1", "c-3", "c-5"]
    owner.post("/agents", agent("a-0"), status=201)  # before the place of the cursor
    owner.post("/agents", agent("c-6"), status=201)  # after it
    page = owner.get("/agents", limit=10, cursor=first["next_cursor"])
    rest = [one["client_id"] for one in page["items"]]
    assert rest == ["c-6", "c-7", "price-scout"]
    assert page["next_cursor"] is None


def test_delegations_actions_redemptions_and_events_come_in_pages_the_newest_first(
    world: World, owner: Client
) -> None:
    granted = [world.granted() for _ in range(3)]
    below = handed_on(world, granted[0], details=world.delegation(limits=None, actions=["catalog.search"]))
    found = all_of(owner, "/delegations", 2)
    assert {one["grant_id"] for one in found} == {one.grant_id for one in (*granted, below)}
    assert len(found) == 4
    assert [one["parent"] for one in found if "parent" in one] == [granted[0].grant_id]
    tokens = list[str]()
    for number in range(5):
        world.clock.advance(seconds=1)
        tokens.append(token_of(world, granted[0].grant, f"1{number}.00"))
    actions = all_of(owner, "/actions", 2, delegation_id=granted[0].grant_id)
    assert [one["amount"]["value"] for one in actions] == ["14.00", "13.00", "12.00", "11.00", "10.00"]
    assert [one["id"] for one in all_of(owner, "/actions", 2)] == [one["id"] for one in actions]
    redemption = redeemed(world, tokens[3], capture=False)
    assert settle(world, f"{redemption}/capture", {}).status_code == 200
    (used,) = owner.get("/redemptions")["items"]
    assert (used["id"], used["state"]) == (redemption.partition("/")[2], "captured")
    assert used["captured"] == {"currency": "EUR", "value": "13.00"}
    assert [move["kind"] for move in used["transfers"]][-1] == "capture"
    assert owner.get(f"/redemptions/{used['id']}") == used
    is_problem(owner.ask("GET", f"/redemptions/{actions[0]['id']}"), 404)
    events = all_of(owner, "/audit-events", 3)
    assert [one["id"] for one in events] == sorted((one["id"] for one in events), reverse=True)
    assert all_of(owner, "/audit-events", 2, event="exchange.permitted", delegation_id=granted[0].grant_id)


@pytest.mark.parametrize(
    ("path", "name"), [("/catalogue", "name"), ("/policies", "set"), ("/trust-domains", "name")]
)
def test_what_stands_in_files_comes_in_pages_like_every_list(clients: Clients, path: str, name: str) -> None:
    viewer = clients(Role.VIEWER)
    everything = viewer.get(path)
    assert everything["items"]
    assert everything["next_cursor"] is None
    assert all_of(viewer, path, 1) == all_of(viewer, path, 2) == everything["items"]
    assert viewer.get(path, limit=1)["items"][0][name]
    for cursor in ("none", "WzFd", "WyJub25lIl0", "W1siYSJdXQ"):  # the last two: ["none"] and [["a"]]
        is_problem(viewer.ask("GET", path, params={"cursor": cursor}), 422)


@pytest.mark.parametrize(
    ("path", "filters"),
    [
        ("/agents", {"q": "c-1"}),
        ("/actions", {"client_id": "basket-helper"}),
        ("/actions", {"state": "voided"}),
        ("/audit-events", {"q": "is nowhere"}),
        ("/audit-events", {"event": "exchange.permitted"}),
    ],
)
def test_a_page_looks_through_so_many_rows_and_the_list_goes_on(
    world: World, owner: Client, monkeypatch: pytest.MonkeyPatch, path: str, filters: dict[str, str]
) -> None:
    """Whatever somebody asks for, one request costs no more; and all of them together find everything."""
    for number in (1, 3, 5, 7):
        owner.post("/agents", agent(f"c-{number}"), status=201)
    granted = world.granted()
    for _ in range(5):
        assert world.exchange(granted.grant).status_code == 200
    found = all_of(owner, path, 100, **filters)
    monkeypatch.setattr(lists, "MOST_LOOKED_THROUGH", 2)
    page = owner.get(path, limit=100, **filters)
    assert len(page["items"]) <= 2
    assert page["next_cursor"] is not None
    assert all_of(owner, path, 100, **filters) == found
    assert all_of(owner, path, 1, **filters) == found


def test_events_are_found_by_when_they_were_written(world: World, owner: Client) -> None:
    before = owner.get("/audit-events", limit=1)["items"][0]
    world.clock.advance(hours=1)
    bound = world.clock.now().isoformat().replace("+00:00", "Z")
    owner.post("/agents", agent("later"), status=201)
    assert [one["event"] for one in owner.get("/audit-events", since=bound)["items"]] == ["agent.created"]
    assert owner.get("/audit-events", until=bound)["items"][0] == before
    is_problem(owner.ask("GET", "/audit-events", params={"since": "2026-02-30T00:00:00Z"}), 422)


def test_an_approval_shows_how_it_stands_now(world: World, owner: Client) -> None:
    waits(world, asked_above_fifty(world).grant)
    (waiting,) = owner.get("/approvals", state="waiting")["items"]
    assert waiting["answers"] == []
    assert owner.get(f"/approvals/{waiting['id']}") == waiting
    world.clock.advance(hours=2)
    assert owner.get("/approvals", state="waiting")["items"] == []
    (expired,) = owner.get("/approvals", state="expired")["items"]
    assert (expired["id"], expired["state"]) == (waiting["id"], "expired")


WILD = ("%", "_", "a%", "b_sket", "%' OR '1'='1", "\\", "ada'; DROP TABLE users; --", '"', "*", "?", "[a-z]")


@pytest.mark.parametrize("path", ["/agents", "/users", "/resource-servers", "/audit-events"])
def test_A123_a_search_takes_every_character_as_it_is(owner: Client, path: str) -> None:
    everything = owner.get(path)["items"]
    assert everything
    for text in WILD:
        found = owner.get(path, q=text)["items"]
        assert all(text in json.dumps(one, ensure_ascii=False) for one in found), text
    assert owner.get("/users")["items"]


def test_A123_a_wildcard_is_found_where_it_really_is(owner: Client) -> None:
    owner.post("/agents", agent("odd", name="100% off_peak"), status=201)
    owner.post("/agents", agent("even", name="100 offxpeak"), status=201)
    for text in ("100%", "off_peak", "OFF_PEAK"):
        assert [one["client_id"] for one in owner.get("/agents", q=text)["items"]] == ["odd"]


def test_A123_a_search_finds_the_letters_of_every_alphabet(world: World, owner: Client) -> None:
    names = {"emile": "Émile Straße", "zoe": "ZOË Q", "quoted": 'Bob "the \\ Builder"'}
    for client_id, name in names.items():
        owner.post("/agents", agent(client_id, name=name), status=201)
        for text in (name, name[1:]):
            assert [one["client_id"] for one in owner.get("/agents", q=text)["items"]] == [client_id], text
            found = owner.get("/audit-events", q=text)["items"]
            assert [one["client_id"] for one in found] == [client_id], text
    if not world.services.database.is_sqlite:
        assert [one["client_id"] for one in owner.get("/agents", q="zoë q")["items"]] == ["zoe"]


def test_A123_a_filter_compares_text_and_nothing_else(world: World, owner: Client) -> None:
    granted = world.granted()
    token_of(world, granted.grant)
    for text in WILD:
        for path, name in (("/delegations", "user"), ("/actions", "reference"), ("/users", "group")):
            assert owner.get(path, **{name: text})["items"] == []
    assert owner.get("/delegations", user="ada")["items"]
    assert owner.get("/agents", trust_domain="example.org", disabled="false")["items"]
    assert owner.get("/agents", disabled="true")["items"] == []


def test_a_group_is_found_by_its_whole_name(owner: Client) -> None:
    for name, groups in (("bo", ["finance"]), ("cy", ["finance-duty"])):
        owner.post("/users", {"username": name, "groups": groups}, status=201)
    assert [one["username"] for one in owner.get("/users", group="finance")["items"]] == ["bo"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "1e1"},
        {"limit": " 1"},
        {"cursor": "none"},
        {"cursor": "WzFd"},
        {"cursor": "WyJhIiwiYiJd"},
        {"q": "\x00"},
        {"nothing": "x"},
        [("q", "a"), ("q", "b")],
    ],
)
def test_a_query_that_does_not_fit_is_refused(sqlite_world: World, parameters: Any) -> None:
    answer = client_of(sqlite_world, Role.VIEWER).ask("GET", "/agents", params=parameters)
    assert answer.status_code in (400, 422), answer.text
    is_problem(answer, answer.status_code)


def test_one_record_is_what_its_list_says(owner: Client) -> None:
    for path, key in (
        ("/agents", "client_id"),
        ("/users", "user_id"),
        ("/keys", "kid"),
        ("/catalogue", "name"),
    ):
        for item in owner.get(path)["items"]:
            assert owner.get(f"{path}/{item[key]}") == item
    assert owner.get("/agents/basket-helper")["subject"] == BASKET_HELPER
    (domain,) = owner.get("/trust-domains")["items"]
    assert (domain["name"], domain["state"]) == ("example.org", "fresh")
