"""My agents by plain HTTP: pausing, lowering, stopping and taking along; on both databases."""

import csv
import io
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from authserver.delegations.standing import agent_party
from authserver.revoke import Target, revoke
from authserver.schema import BudgetWindow, table_of
from tests.approving import answers, asked_above_fifty, asks, waits
from tests.approving import person as make_user
from tests.asking import form_of
from tests.attacks.making import change, handed_on
from tests.handing_over import hand_on, parent, token, use
from tests.pages.browser import Visit, signed_in
from tests.pages.scene import a_life
from tests.settling import at_once, budget_of, eur, redeem, redeemed, the_ledger_is_right, token_of
from tests.world import MARKET, PRICE_SCOUT, SHOP, World

PERIODS = {
    "currency": "EUR",
    "per_action": "80.00",
    "total": "300.00",
    "per_period": [{"amount": "150.00", "period": "P7D"}],
}


def lower(visit: Visit, grant_id: str, **form: Any) -> httpx.Response:
    """Send the form that allows less, as the page has it; what is not said stays as it is."""
    page = visit.get(f"/delegations/{grant_id}")
    kept = form_of(page)
    del kept["decision"]
    return visit.post(f"/delegations/{grant_id}/lower", **(kept | form))


def test_a_paused_agent_does_nothing_until_it_may_go_on(world: World) -> None:
    granted = world.granted()
    token = token_of(world, granted.grant)
    with signed_in(world) as visit:
        answer = visit.post(f"/delegations/{granted.grant_id}/pause")
        assert (answer.status_code, answer.headers["location"]) == (
            303,
            f"/delegations/{granted.grant_id}?done=paused",
        )
        assert "Paused. It can do nothing" in visit.get(answer.headers["location"]).text
        assert world.exchange(granted.grant).json()["error_description"] == "the delegation is paused"
        assert redeem(world, token).status_code == 409
        assert visit.post(f"/delegations/{granted.grant_id}/pause").status_code == 303
        assert visit.post(f"/delegations/{granted.grant_id}/resume").status_code == 303
    assert world.exchange(granted.grant).status_code == 200
    events = [e["event"] for e in world.events()]
    assert events.count("delegation.paused") == events.count("delegation.resumed") == 1


def test_S18_one_press_stops_an_agent_and_all_below_it(world: World) -> None:
    life = a_life(world)
    with signed_in(world) as visit:
        assert visit.post(f"/delegations/{life.groceries.grant_id}/revoke").status_code == 303
        page = visit.get(f"/delegations/{life.groceries.grant_id}?done=stopped")
        assert "Stopped for good. Nothing that it holds works any more." in page.text
        assert "Allow less" not in page.text
        # There is no undo, and nothing else to be done with it.
        for verb in ("resume", "pause"):
            assert visit.post(f"/delegations/{life.groceries.grant_id}/{verb}").status_code == 409
        assert lower(visit, life.groceries.grant_id, total="10").status_code == 409
    assert world.exchange(life.groceries.grant).status_code == 400
    below = world.exchange(life.below.grant, actor_token=world.assertion(PRICE_SCOUT))
    assert below.json()["error_description"] == "the delegation was revoked"
    assert budget_of(world, life.groceries.grant_id).reserved == 0
    the_ledger_is_right(world)


def test_S10_lowered_limits_hold_from_the_next_request_on(world: World) -> None:
    granted = world.granted(limits=PERIODS)
    redeemed(world, token_of(world, granted.grant, "40.00"))
    with signed_in(world) as visit:
        answer = lower(
            visit,
            granted.grant_id,
            per_action="30,50",
            total="100.00",
            ask_above="20",
            **{"per_period.0": "60.00"},
        )
        assert answer.status_code == 303, answer.text
    for value, constraint, left in (
        ("30.51", "limits.per_action", None),
        ("25.00", "limits.per_period", "20.00"),
    ):
        body = world.refuses(
            world.exchange(granted.grant, action=world.action(amount=eur(value))),
            "invalid_authorization_details",
            constraint=constraint,
        )
        if left:
            assert {"constraint": constraint, "requested": value, "allowed": left} in body["violations"]
    assert world.exchange(granted.grant, action=world.action(amount=eur("20.00"))).status_code == 200
    assert budget_of(world, granted.grant_id).total_limit == 100_00
    the_ledger_is_right(world)
    event = next(e for e in world.events() if e["event"] == "delegation.lowered")
    assert event["data"]["details"]["limits"]["total"] == "100.00"


def test_a_window_that_has_spent_more_than_its_new_limit_has_nothing_left(world: World) -> None:
    granted = world.granted(limits=PERIODS)
    redeemed(world, token_of(world, granted.grant, "70.00"))
    with signed_in(world) as visit:
        assert lower(visit, granted.grant_id, **{"per_period.0": "50.00"}).status_code == 303
        assert "€0 is left" in visit.get(f"/delegations/{granted.grant_id}").text
    refused = world.exchange(granted.grant, action=world.action(amount=eur("0.01")))
    world.refuses(refused, "invalid_authorization_details", constraint="limits.per_period")
    windows = table_of(BudgetWindow)
    row = world.services.database.read(lambda c: c.execute(select(windows)).one())
    assert (row.spent, row.spend_limit) == (70_00, 70_00)
    world.clock.advance(days=7)
    assert world.exchange(granted.grant, action=world.action(amount=eur("50.00"))).status_code == 200
    the_ledger_is_right(world)


def test_the_total_stays_above_what_is_spent_or_authorized(world: World) -> None:
    granted = world.granted()
    redeemed(world, token_of(world, granted.grant, "40.00"))
    redeemed(world, token_of(world, granted.grant, "10.00"), capture=False)
    with signed_in(world) as visit:
        answer = lower(visit, granted.grant_id, total="49.99")
        assert answer.status_code == 409
        assert "More is spent or held already" in answer.text
        assert budget_of(world, granted.grant_id).total_limit == 300_00
        assert "delegation.lowered" not in [e["event"] for e in world.events()]
        assert lower(visit, granted.grant_id, total="50.00").status_code == 303
    refused = world.exchange(granted.grant, action=world.action(amount=eur("0.01")))
    world.refuses(refused, "invalid_authorization_details", constraint="limits.total")


@pytest.mark.parametrize(
    "form",
    [
        {"per_action": "80.01"},
        {"total": "300.01"},
        {"ask_above": "60.01"},
        {"actions": ["catalog.search", "refund.initiate"]},
        {"actions": []},
        {"datatypes": ["shipping_address", "profile"]},
        {"datatypes": ["any"]},
        {"total": "1e2"},
        {"total": "-5"},
        {"total": "0"},
        {"total": "12.345"},
        {"per_action": "٤٢"},
        {"categories": ["5411", "5811-5814", "7995"]},
        {"categories": ["any"]},
        {"categories": []},
        {"countries": ["NL", "BE", "FR"]},
        {"countries": ["EU"]},
        {"countries": []},
        {"locations": [SHOP, MARKET, "https://evil.example"]},
        {"locations": []},
        {"ids": ["m_123"]},
        {"count": "5"},
        {"per_period.0": "5.00"},
        {"expires": "2099-01-01"},
        {"expires": "2001-01-01"},
        {"expires": "tomorrow"},
    ],
)
def test_A119_here_one_can_only_allow_less(sqlite_world: World, form: dict[str, Any]) -> None:
    granted = sqlite_world.granted(approval={"above": "60.00"})
    with signed_in(sqlite_world) as visit:
        assert lower(visit, granted.grant_id, **form).status_code == 400
        page = visit.get(f"/delegations/{granted.grant_id}/export.json").json()
    assert page["authorization_details"] == [granted.details.to_json()]
    assert "delegation.lowered" not in [e["event"] for e in sqlite_world.events()]


def test_unticked_actions_and_data_are_refused_from_then_on(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    token = token_of(sqlite_world, granted.grant)
    with signed_in(sqlite_world) as visit:
        assert lower(visit, granted.grant_id, actions=["catalog.search"], datatypes=[]).status_code == 303
    refused = sqlite_world.exchange(granted.grant)
    sqlite_world.refuses(refused, "invalid_authorization_details", constraint="actions")
    assert redeem(sqlite_world, token).status_code == 409


def test_kinds_of_shops_countries_places_and_the_end_can_be_lowered(world: World) -> None:
    merchants = {"categories": ["5411", "5811-5814"], "countries": ["EU", "NL"], "ids": ["m_123", "m_124"]}
    granted = world.granted(merchants=merchants, redelegation={"depth": 1})
    below = handed_on(world, granted)
    ends = world.clock.now() + timedelta(days=2)
    less: dict[str, Any] = {
        "categories": ["5811-5814"],
        "without_categories": ["5813"],
        "countries": ["EU"],
        "ids": ["m_123"],
        "locations": [MARKET],
        "expires": f"{ends:%Y-%m-%d}",
        "hand_on": [],
    }
    with signed_in(world) as visit:
        assert lower(visit, granted.grant_id, **less).status_code == 303
        text = visit.get(f"/delegations/{granted.grant_id}").text
        assert "Never: bars and pubs and the Netherlands." in text
    for shop, constraint in (
        ({"category": "5411", "country": "BE"}, "merchants.categories"),
        ({"category": "5813", "country": "BE"}, "merchants.except.categories"),
        ({"category": "5812", "country": "NL"}, "merchants.except.countries"),
        ({"category": "5812", "country": "BE", "id": "m_124"}, "merchants.ids"),
    ):
        answer = world.exchange(granted.grant, action=world.action(merchant={"id": "m_123"} | shop))
        world.refuses(answer, "invalid_authorization_details", constraint=constraint)
    good = world.action(merchant={"id": "m_123", "category": "5812", "country": "BE"})
    assert world.exchange(granted.grant, action=good).status_code == 200
    world.clock.advance(days=2)
    for grant, who in ((granted.grant, {}), (below.grant, {"actor_token": world.assertion(PRICE_SCOUT)})):
        answer = world.exchange(grant, action=good, **who)
        assert world.refuses(answer, "invalid_request")["error_description"] == "the delegation has expired"
    the_ledger_is_right(world)


def test_A81_lowering_amid_exchanges_leaves_no_token_of_before(world: World) -> None:
    granted = world.granted()
    with signed_in(world) as visit:
        form = form_of(visit.get(f"/delegations/{granted.grant_id}")) | {
            "csrf": visit.csrf,
            "per_action": "10",
        }

        def send(number: int) -> httpx.Response:
            if number == 3:
                return visit.client.post(f"/delegations/{granted.grant_id}/lower", data=form)
            return world.exchange(granted.grant, action=world.action(amount=eur("20.00")))

        got = at_once(8, send)
    assert got[3].status_code == 303
    tokens = [answer.json()["access_token"] for answer in got if answer.status_code == 200]
    assert [redeem(world, token).status_code for token in tokens] == [409] * len(tokens)
    assert budget_of(world, granted.grant_id).reserved == 0
    the_ledger_is_right(world)


def test_the_number_of_payments_can_be_lowered_to_those_that_were_made(world: World) -> None:
    granted = world.granted(limits=PERIODS | {"count": 9})
    for _ in range(2):
        redeemed(world, token_of(world, granted.grant, "1.00"))
    with signed_in(world) as visit:
        refused = lower(visit, granted.grant_id, count="1")
        assert refused.status_code == 409
        assert "More than this was spent or is held already." in refused.text
        assert lower(visit, granted.grant_id, count="2").status_code == 303
    answer = world.exchange(granted.grant, action=world.action(amount=eur("1.00")))
    world.refuses(answer, "invalid_authorization_details", constraint="limits.count")


def test_what_was_typed_is_kept_and_marked_where_it_cannot_stand(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    with signed_in(sqlite_world) as visit:
        page = lower(visit, granted.grant_id, total="999", countries=["NL"])
        assert "You can lower this, not raise it." in page.text
        assert form_of(page) | {"countries": ["NL"], "total": ["999"]} == form_of(page)
        assert '<details class="card" open>' in page.text


@pytest.mark.parametrize("verb", ["pause", "resume", "lower"])
def test_what_comes_too_late_is_said_so_and_shows_what_is(sqlite_world: World, verb: str) -> None:
    granted = sqlite_world.granted()
    with signed_in(sqlite_world) as visit:
        form = form_of(visit.get(f"/delegations/{granted.grant_id}")) | {"csrf": visit.csrf}
        visit.post(f"/delegations/{granted.grant_id}/revoke")  # in another tab
        page = visit.client.post(f"/delegations/{granted.grant_id}/{verb}", data=form)
    assert page.status_code == 409
    assert "It was too late for that: this has ended meanwhile." in page.text
    assert "Stopped" in page.text


def test_an_address_says_nothing_was_done_that_was_not(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    with signed_in(sqlite_world) as visit:
        for word in ("stopped", "paused", "lowered"):
            for path in ("/", f"/delegations/{granted.grant_id}"):
                assert 'class="notice good"' not in visit.get(f"{path}?done={word}").text


def test_who_wants_to_be_asked_from_less_on_is_asked_again_where_a_rule_had_lifted_it(
    sqlite_world: World,
) -> None:
    granted = asked_above_fifty(sqlite_world)
    answers(sqlite_world, waits(sqlite_world, granted.grant).approval, rule_up_to="70.00")
    assert asks(sqlite_world, granted.grant, "60.00").status_code == 200
    with signed_in(sqlite_world) as visit:
        assert lower(visit, granted.grant_id, per_action="75").status_code == 303
        assert asks(sqlite_world, granted.grant, "60.00").status_code == 200  # of that nothing was said
        assert lower(visit, granted.grant_id, ask_above="40").status_code == 303
    waits(sqlite_world, granted.grant, "60.00")


def test_what_was_not_used_yet_ends_here_and_below(world: World) -> None:
    granted = world.granted()
    below = handed_on(world, granted)
    mine = token_of(world, granted.grant, "50.00")
    theirs = world.exchange(below.grant, actor_token=world.assertion(PRICE_SCOUT)).json()["access_token"]
    with signed_in(world) as visit:
        assert lower(visit, granted.grant_id, total="60.00").status_code == 303
    assert [redeem(world, token).status_code for token in (mine, theirs)] == [409, 409]
    assert budget_of(world, granted.grant_id).reserved == 0
    assert budget_of(world, below.grant_id).reserved == 0
    assert world.exchange(granted.grant, action=world.action(amount=eur("60.00"))).status_code == 200
    the_ledger_is_right(world)


def test_to_be_asked_above_an_amount_does_not_end_what_the_catalogue_asks_for(sqlite_world: World) -> None:
    granted = sqlite_world.granted(actions=["payment.finalize", "order.change_address"])
    with signed_in(sqlite_world) as visit:
        actions = ["payment.finalize", "order.change_address"]
        assert lower(visit, granted.grant_id, actions=actions, ask_above="50").status_code == 303
        page = visit.get(f"/delegations/{granted.grant_id}/export.json").json()
    expected = {"above": "50.00", "actions": ["order.change_address"]}
    assert page["authorization_details"][0]["approval"] == expected


def test_lowering_one_above_holds_for_those_below(world: World) -> None:
    granted = world.granted()
    below = handed_on(world, granted)
    with signed_in(world) as visit:
        assert lower(visit, granted.grant_id, per_action="10.00").status_code == 303
    answer = world.exchange(below.grant, actor_token=world.assertion(PRICE_SCOUT))
    world.refuses(answer, "invalid_authorization_details", constraint="limits.per_action")


def test_nobody_sees_or_stops_what_is_anothers(sqlite_world: World) -> None:
    life = a_life(sqlite_world)
    path = f"/delegations/{life.groceries.grant_id}"
    with signed_in(sqlite_world, "eve") as eve:
        for asked in (path, f"{path}/export.csv", f"{path}/export.json", "/delegations/none"):
            answer = eve.get(asked)
            assert answer.status_code == 404
            assert "basket-helper" not in answer.text
        for verb in ("pause", "resume", "revoke", "lower"):
            assert eve.post(f"{path}/{verb}", action="catalog.search").status_code == 404
        assert "No agent may act for you" in eve.get("/").text
    assert sqlite_world.exchange(life.groceries.grant).status_code == 200


@pytest.mark.parametrize("verb", ["pause", "resume", "revoke", "lower"])
def test_A84_nothing_is_changed_without_the_pages_own_token(sqlite_world: World, verb: str) -> None:
    granted = sqlite_world.granted()
    path = f"/delegations/{granted.grant_id}/{verb}"
    with signed_in(sqlite_world) as visit, signed_in(sqlite_world, "eve") as eve:
        assert visit.client.get(path).status_code == 405
        for csrf in (None, "", "x", eve.csrf):
            assert visit.post(path, csrf=csrf).status_code == 403
        form = {"csrf": visit.csrf}
        for origin in ("https://evil.example", "null", "http://127.0.0.1"):
            assert visit.client.post(path, data=form, headers={"Origin": origin}).status_code == 403
        assert visit.client.post(f"{path}?csrf={visit.csrf}").status_code in (400, 403)
    assert sqlite_world.exchange(granted.grant).status_code == 200


# --- what is shown --------------------------------------------------------------------------------------------------


def test_the_page_tells_what_was_done_and_refused_and_why(sqlite_world: World) -> None:
    life = a_life(sqlite_world)
    with signed_in(sqlite_world) as visit:
        text = visit.get(f"/delegations/{life.groceries.grant_id}").text
    for said in (
        "€90.50 of €300",
        "€59.50 is left",
        "Refused: Pay",
        "at most €80 at a time",
        "another country than you allowed",
        "Grocery stores and supermarkets",
        "your delivery address",
        "at Market",
        "cart-889",
        "The shop calls itself “Example Foods”",
        "price-scout",
    ):
        assert said in text, said


def test_A83_A116_names_show_neither_markup_nor_tricks(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    for name in ("Refund to you", "Ехample Fооds"):
        merchant = {"category": "5411", "country": "NL", "name": name}
        token_of(sqlite_world, granted.grant, "1.00", merchant=merchant)
    from authserver.schema import Agent

    change(sqlite_world, Agent, {"client_id": "basket-helper"}, name="<script>alert(1)</script>\u202egnp.exe")
    with signed_in(sqlite_world) as visit:
        for path in ("/", f"/delegations/{granted.grant_id}"):
            text = visit.get(path).text
            assert "<script>alert" not in text
            assert "&lt;script&gt;alert(1)&lt;/script&gt;gnp.exe" in text
            assert "\u202e" not in text
            assert "had hidden characters in it" in text
        # The checked facts come first, and the name is told as what the shop calls itself.
        assert "The shop calls itself “Refund to you”" in text
        assert "has letters that look like others (Cyrillic)" in text
        assert text.index("Grocery stores") < text.index("Refund to you")


def test_A116_cells_of_an_export_are_no_formulas(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    for name in ("=1+1", "+1", "-1", "@SUM(A1)", 'a","b', "=HYPERLINK(1)", "＝1+1"):
        merchant = {"category": "5411", "country": "NL", "name": name}
        token_of(sqlite_world, granted.grant, "1.00", merchant=merchant)
    with signed_in(sqlite_world) as visit:
        answer = visit.get(f"/delegations/{granted.grant_id}/export.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="basket-helper.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    names = {row["merchant"] for row in rows if row["merchant"]}
    assert names == {"'=1+1", "'+1", "'-1", "'@SUM(A1)", 'a","b', "'=HYPERLINK(1)", "'＝1+1"}
    assert not any(
        cell[:1] in ("=", "+", "-", "@", "\t", "\r") for row in rows for cell in row.values() if cell
    )


def test_an_export_has_all_that_the_page_shows(sqlite_world: World) -> None:
    life = a_life(sqlite_world)
    with signed_in(sqlite_world) as visit:
        answer = visit.get(f"/delegations/{life.groceries.grant_id}/export.json")
        body = json.loads(answer.text)
    assert body["agent"]["client_id"] == "basket-helper"
    assert [one["datatype"] for one in body["personal_data"]] == ["shipping_address"]
    assert {event["event"] for event in body["events"]} >= {"exchange.permitted", "exchange.refused"}
    assert body["limits"][0]["used"] == {"currency": "EUR", "value": "90.50"}
    assert life.groceries.grant not in answer.text


def test_a_long_history_is_shown_in_pages(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    search = {
        "type": "agent_action",
        "actions": ["catalog.search"],
        "locations": ["https://shop.example/api"],
    }
    for _ in range(30):
        assert sqlite_world.exchange(granted.grant, action=search).status_code == 200
    with signed_in(sqlite_world) as visit:
        first = visit.get(f"/delegations/{granted.grant_id}").text
        earlier = first.partition("?before=")[2].partition('"')[0]
        second = visit.get(f"/delegations/{granted.grant_id}?before={earlier}").text
    assert (first.count("Allowed: Search"), second.count("Allowed: Search")) == (25, 5)
    for odd in ("x", "-1", "9" * 30, "%00", "1%27"):
        with signed_in(sqlite_world) as visit:
            assert visit.get(f"/delegations/{granted.grant_id}?before={odd}").status_code == 200


@pytest.mark.parametrize(
    "path", ["/delegations/%00", "/delegations/" + "x" * 3000, "/delegations/%ff", "/enrol/%00"]
)
def test_odd_addresses_are_never_a_fault(world: World, path: str) -> None:
    with signed_in(world) as visit:
        assert visit.get(path).status_code in (404, 400)


def test_what_was_handed_on_for_a_task_that_ended_is_shown_as_ended(sqlite_world: World) -> None:
    world = sqlite_world
    above = parent(world)
    child = hand_on(world, above, task_id="dinner")
    stays = hand_on(world, above)
    target = Target("task", "dinner", agent_party("basket-helper"))
    with signed_in(world) as visit:
        assert "Task over" not in visit.get(f"/delegations/{above.grant_id}").text
        revoke(world.services, target, reason="done", by="agent:basket-helper", now=world.clock.now())
        page = visit.get(f"/delegations/{above.grant_id}").text
        assert page.count("Task over") == 1
        assert f"/delegations/{child.grant_id}/pause" not in page
        assert f"/delegations/{stays.grant_id}/pause" in page
        assert visit.post(f"/delegations/{child.grant_id}/pause").status_code == 409


def test_a_person_stops_a_job_by_its_name_and_only_that_job(world: World) -> None:
    """Two agents and a hand-over; the job is named on the page, with everybody who works on it."""
    above = parent(world)
    child = hand_on(world, above, task_id="job-7")
    mine = token(world, above.grant, "basket-helper", task_id="job-7")
    theirs = token(world, child.grant, "price-scout")
    other = token(world, above.grant, "basket-helper", task_id="job-8")
    path = f"/delegations/{above.grant_id}"
    with signed_in(world) as visit:
        page = visit.get(path).text
        assert "Jobs it is at" in page
        assert '<strong class="code">job-7</strong>' in page
        assert '<strong class="code">job-8</strong>' in page
        assert '<strong class="code">job-7</strong>' in visit.get(f"/delegations/{child.grant_id}").text
        for _ in range(2):
            answer = visit.post(f"{path}/stop-job", job="job-7")
            assert (answer.status_code, answer.headers["location"]) == (303, f"{path}?done=job-stopped")
        page = visit.get(answer.headers["location"]).text
        assert "The job is stopped." in page
        assert '<strong class="code">job-7</strong>' not in page
        assert '<strong class="code">job-8</strong>' in page
    assert [world.introspect(one)["active"] for one in (mine, theirs, other)] == [False, False, True]
    assert use(world, above.grant, "basket-helper", task_id="job-7").status_code == 400
    assert use(world, child.grant, "price-scout").status_code == 400
    assert use(world, above.grant, "basket-helper", task_id="job-8").status_code == 200
    assert [e["event"] for e in world.events()].count("revocation") == 1
    the_ledger_is_right(world)


def test_nobody_stops_a_job_of_another_person_or_one_that_is_none(sqlite_world: World) -> None:
    world = sqlite_world
    mine = world.granted()
    out = token(world, mine.grant, "basket-helper", task_id="job-7")
    make_user(world, "bo")
    bos = world.granted(user="bo")
    before = len(world.events())
    with signed_in(world) as visit:
        assert visit.post(f"/delegations/{bos.grant_id}/stop-job", job="job-7").status_code == 404
        assert visit.post(f"/delegations/{mine.grant_id}/stop-job", job="no such job").status_code == 400
        assert visit.post(f"/delegations/{mine.grant_id}/stop-job").status_code == 400
        assert visit.post(f"/delegations/{mine.grant_id}/stop-job", job="job-9").status_code == 303
        forged = visit.post(f"/delegations/{mine.grant_id}/stop-job", job="job-7", csrf="x")
        assert forged.status_code == 403
    assert world.introspect(out)["active"]
    assert "revocation" not in [e["event"] for e in world.events()[before:]]
