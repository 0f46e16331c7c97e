"""What the console shows and does, by plain HTTP; on both databases where SQL has a part in it."""

import re
from datetime import timedelta
from typing import Any

import pytest

from authserver.administration import decisions, figures
from authserver.administration.windows import window_since
from authserver.audit.events import Record
from authserver.delegations.standing import Kind
from authserver.revoke import Target, revoke
from authserver.seal import seal
from tests.attacks.making import change, handed_on, named
from tests.pages.admin.scene import a_company
from tests.pages.browser import add_user, signed_in
from tests.pages.scene import a_life, refused
from tests.settling import budget_of, eur, redeem, redeemed, settle, the_ledger_is_right, token_of
from tests.world import PRICE_SCOUT, World

KINDS: tuple[Kind, ...] = ("delegation", "agent", "user", "trust_domain", "task", "all")


# --- revoking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_S18_an_administrator_revokes_at_each_level_after_seeing_what_it_ends(
    world: World, kind: Kind
) -> None:
    night = add_user(world, "night", role="revoker")
    granted = world.granted()
    token = world.exchange(granted.grant, task_id="t-1").json()["access_token"]
    below = handed_on(world, granted)
    target = {
        "delegation": granted.grant_id,
        "agent": "basket-helper",
        "user": next(e["data"]["user"] for e in world.events() if e["event"] == "delegation.created"),
        "trust_domain": "example.org",
        "task": "t-1",
        "all": "",
    }[kind]
    with signed_in(world, "night") as visit:
        asked = visit.get("/admin/revoke", params={"kind": kind, "target": target})
        assert asked.status_code == 200
        assert "<strong>1</strong> live token<" in asked.text
        assert world.introspect(token)["active"] is True  # to look ends nothing
        form = {"kind": kind, "target": target, "reason": "it bought 400 melons"}
        if kind == "all":
            form["confirmation"] = "revoke everything"
        done = visit.post("/admin/revoke", **form)
        assert done.status_code == 200, done.text
        assert "<strong>1</strong> live token<" in done.text
        # What is ended is not counted twice.
        again = visit.get("/admin/revoke", params={"kind": kind, "target": target})
        assert "<strong>0</strong> delegations<" in again.text
        assert "<strong>0</strong> live tokens<" in again.text
    assert redeem(world, token).status_code == 409
    assert budget_of(world, granted.grant_id).reserved == 0
    task = {"task_id": "t-1"} if kind == "task" else {}
    assert world.exchange(granted.grant, **task).status_code == 400
    if kind != "task":
        assert world.exchange(below.grant, actor_token=world.assertion(PRICE_SCOUT)).status_code == 400
    (event,) = (e for e in world.events() if e["event"] == "revocation")
    said = {"kind": kind, "target": target, "reason": "it bought 400 melons", "by": f"user:{night}"}
    assert event["data"] == said
    the_ledger_is_right(world)


@pytest.mark.parametrize(
    "form",
    named(
        {
            "no reason": {"reason": None},
            "a blank reason": {"reason": "   "},
            "a long reason": {"reason": "x" * 501},
            "letters that reorder others": {"reason": "by eve\u202emada yb"},
            "no confirmation": {"confirmation": None},
            "another confirmation": {"confirmation": "Revoke Everything"},
            "a delegation's confirmation": {"confirmation": "yes"},
        }
    ),
)
def test_everything_ends_only_with_a_reason_and_the_words_typed(sqlite_world: World, form: Any) -> None:
    add_user(sqlite_world, "night", role="revoker")
    granted = sqlite_world.granted()
    whole = {"kind": "all", "reason": "a test", "confirmation": "revoke everything"}
    with signed_in(sqlite_world, "night") as visit:
        answer = visit.post("/admin/revoke", **(whole | form))
        assert answer.status_code == 400
        assert 'role="alert"' in answer.text
    assert sqlite_world.exchange(granted.grant).status_code == 200
    assert "revocation" not in [e["event"] for e in sqlite_world.events()]


@pytest.mark.parametrize(
    "form",
    named(
        {
            "kind": {"kind": "everything"},
            "none": {"kind": None},
            "target": {"target": "nobody"},
            "no target": {"target": None},
            "two targets": {"target": ["basket-helper", "price-scout"]},
            "all with a name": {"kind": "all", "confirmation": "revoke everything"},
        }
    ),
)
def test_A120_a_form_that_names_nothing_ends_nothing(sqlite_world: World, form: Any) -> None:
    add_user(sqlite_world, "night", role="owner")
    granted = sqlite_world.granted()
    whole = {"kind": "agent", "target": "basket-helper", "reason": "a test"}
    with signed_in(sqlite_world, "night") as visit:
        assert visit.post("/admin/revoke", **(whole | form)).status_code in (400, 404)
    assert sqlite_world.exchange(granted.grant).status_code == 200


def test_A83_the_audits_own_text_shows_what_hides_or_reorders_letters(sqlite_world: World) -> None:
    world, granted = sqlite_world, sqlite_world.granted()
    add_user(world, "night", role="viewer")
    target = Target("delegation", granted.grant_id)
    reason = "approved \u202eadA yb\u2066 caf\u00e9"  # as whoever types into a terminal may write it
    revoke(world.services, target, reason=reason, by="operator:eve", now=world.clock.now())
    number = len(world.events())
    with signed_in(world, "night") as visit:
        page = visit.get(f"/admin/decisions/{number}").text
    written = page.partition("As it is written in the audit")[2]
    assert "approved \\u202eadA yb\\u2066 caf\u00e9" in written
    assert "\u202e" not in page
    assert "\u2066" not in page


# --- searching ------------------------------------------------------------------------------------------------------


def test_one_box_finds_agents_users_delegations_actions_and_tasks(world: World) -> None:
    company = a_company(world)
    action = next(e["action_id"] for e in world.events() if e["event"] == "redemption.permitted")
    wanted = {
        "BASKET": ("/admin/agents/basket-helper",),
        "agent/price": ("/admin/agents/price-scout",),
        "owner vos": ("Owner Vos",),
        "market": ("/admin/resource-servers/rs_market",),
        company.waiting: (f"/admin/delegations/{company.waiting}",),
        action: (f"/admin/actions/{action}",),
        "basket-7": ("/admin/tasks/basket-7",),
    }
    with signed_in(world, "viewer") as visit:
        for text, found in wanted.items():
            answer = visit.get("/admin/search", params={"q": f"  {text} "})
            assert answer.status_code == 200
            for said in found:
                assert said in answer.text, text


WILD = ("%", "_", "basket_helper", "bas%er", "' OR 1=1 --", "\\", "a'; DROP TABLE agents; --", "[a-z]*")


def test_A123_what_is_looked_for_stands_for_itself(world: World) -> None:
    add_user(world, "viewer", role="viewer")
    granted = world.granted()
    assert world.exchange(granted.grant).status_code == 200
    with signed_in(world, "viewer") as visit:
        for text in WILD:
            assert "/admin/agents/basket-helper" not in visit.get("/admin/search", params={"q": text}).text
            for name in ("agent", "action", "reason"):
                page = visit.get("/admin/decisions", params={name: text})
                assert "There is nothing of that kind" in page.text, (name, text)
            page = visit.get("/admin/delegations", params={"agent": text, "user": text})
            assert granted.grant_id not in page.text
        for text in WILD:
            change(world, _agent_row(), {"client_id": "basket-helper"}, name=f"x{text}y")
            assert "/admin/agents/basket-helper" in visit.get("/admin/search", params={"q": text}).text, text


def _agent_row() -> Any:
    from authserver.schema import Agent

    return Agent


# --- decisions ------------------------------------------------------------------------------------------------------


def test_decisions_are_filtered_and_shown_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    a_company(world)
    monkeypatch.setattr("authserver.pages.admin.decisions._MOST", 3)
    with signed_in(world, "viewer") as visit:

        def shown(query: str) -> str:
            answer = visit.get(f"/admin/decisions?{query}")
            assert answer.status_code == 200
            return answer.text.partition('id="live"')[2]

        assert "Refused: Pay" not in shown("outcome=permitted")
        assert "badge good" not in shown("outcome=refused")
        assert "Awaiting approval: Pay" in shown("outcome=awaiting")
        assert "basket-helper" not in shown("agent=price-scout")
        assert "Pay" not in shown("action=catalog.search")
        by_country = shown("reason=merchants.countries")
        assert by_country.count('<tr role="row">') == 2
        assert "asked FR" in by_country
        assert "allowed NL, BE" in by_country
        seen, path = [], "/admin/decisions?outcome=permitted"
        while path:
            text = visit.get(path).text.partition('id="live"')[2].partition("</section>")[0]
            seen += [part.partition('"')[0] for part in text.split('href="/admin/decisions/')[1:]]
            _, there, rest = text.partition("before=")
            path = f"/admin/decisions?outcome=permitted&before={rest.partition(chr(34))[0]}" if there else ""
        permitted = [e for e in world.events() if decisions.outcome_of(e["event"]) == "permitted"]
        assert len(seen) == len(set(seen)) == len(permitted)


def test_a_search_for_a_rare_decision_is_bounded_and_can_go_on(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "MOST_LOOKED_THROUGH", 5)
    add_user(sqlite_world, "viewer", role="viewer")
    granted = sqlite_world.granted()
    refused(sqlite_world, granted, amount=eur("500.00"))
    for _ in range(8):
        assert (
            sqlite_world.exchange(granted.grant, action=sqlite_world.action(amount=eur("1.00"))).status_code
            == 200
        )
    with signed_in(sqlite_world, "viewer") as visit:
        first = visit.get("/admin/decisions?outcome=refused").text
        assert "Nothing among the newest events" in first
        before = first.partition("before=")[2].partition('"')[0]
        assert "Refused: Pay" in visit.get(f"/admin/decisions?outcome=refused&before={before}").text


def test_the_live_view_answers_nothing_where_nothing_happened_and_ends_with_the_session(
    sqlite_world: World,
) -> None:
    add_user(sqlite_world, "viewer", role="viewer")
    granted = sqlite_world.granted()
    with signed_in(sqlite_world, "viewer") as visit:
        page = visit.get("/admin/decisions?outcome=refused").text
        path = page.partition('hx-get="')[2].partition('"')[0].replace("&amp;", "&")
        htmx = {"HX-Request": "true"}
        assert visit.get(path, headers=htmx).status_code == 204
        assert sqlite_world.exchange(granted.grant).status_code == 200
        assert visit.get(path, headers=htmx).status_code == 204  # of another outcome
        refused(sqlite_world, granted, amount=eur("500.00"))
        assert "Refused: Pay" in visit.get(path, headers=htmx).text
        assert "hx-get" not in visit.get("/admin/decisions?live=off").text
        for _ in range(4):
            sqlite_world.clock.advance(seconds=500)
            answer = visit.get(path, headers=htmx)
        assert answer.status_code == 286  # nobody is there any more


def test_S03_one_decision_tells_which_policy_decided_and_what_it_knew(sqlite_world: World) -> None:
    company = a_company(sqlite_world)
    number = [e["event"] for e in sqlite_world.events()].index("exchange.refused") + 1
    with signed_in(sqlite_world, "viewer") as visit:
        text = visit.get(f"/admin/decisions/{number}").text
        life = visit.get(f"/admin/delegations/{company.life.groceries.grant_id}").text
    for said in (
        "limits.per_action",
        "asked 92.00",
        "allowed 80.00",
        "permit (",
        "chain_depth",
        "9200",
        "exchange.refused",
    ):
        assert said in text, said
    assert "#policy-catalogue" in life


def test_a_delegation_shows_its_whole_life(world: World) -> None:
    company = a_company(world)
    life = company.life
    redemption = redeemed(world, token_of(world, life.groceries.grant, "9.00"))
    assert settle(world, f"{redemption}/refund", {"amount": eur("4.00")}).status_code == 200
    with signed_in(world, "owner") as visit:
        reason = "it bought 400 melons"
        visit.post("/admin/revoke", kind="agent", target="basket-helper", reason=reason)
        text = visit.get(f"/admin/delegations/{life.groceries.grant_id}").text
        below = visit.get(f"/admin/delegations/{life.below.grant_id}").text
    for said in (
        "Stopped",
        reason,
        "€83.50 of €300",
        "price-scout",
        "Refunded",
        "cart-889",
        "Paid",
        ">operator<",
    ):
        assert said in text, said
    # What ended one above has ended this one.
    assert reason in below
    assert "Stopped" in below
    assert "/admin/revoke?kind" not in below


def test_an_action_shows_each_movement_of_its_money(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    path = redeemed(sqlite_world, token_of(sqlite_world, granted.grant, "9.00"), amount=eur("7.00"))
    add_user(sqlite_world, "viewer", role="viewer")
    with signed_in(sqlite_world, "viewer") as visit:
        text = visit.get(f"/admin/actions/{path.rpartition('/')[2]}").text
    for said in ("reserve", "settle", "release", "€7", "€2"):
        assert said in text, said


# --- figures --------------------------------------------------------------------------------------------------------


def test_figures_add_up_what_was_decided_spent_and_held(world: World) -> None:
    a_company(world)
    read, now = world.services.database.read, world.clock.now()
    day = read(lambda c: window_since(c, now - timedelta(days=1), figures.MOST_EVENTS))
    by = read(lambda c: figures.spending(c, day))
    assert [(one.currency, [(n, m.text) for n, m in one.entries]) for one in by["category"]] == [
        ("EUR", [("5411", "78.50"), ("5812", "12.50")])
    ]
    assert [[(n, m.text) for n, m in one.entries] for one in by["country"]] == [
        [("NL", "78.50"), ("BE", "12.50")]
    ]
    assert read(lambda c: figures.refusals(c, day)) == (("limits.per_action", 2), ("merchants.countries", 1))
    assert [money.text for money in read(figures.held)] == ["12.00"]
    assert [money.text for money in read(lambda c: figures.captured(c, day))] == ["91.00"]
    flow = read(lambda c: figures.flow(c, now, timedelta(hours=1), 60))
    assert [flow.total(outcome) for outcome in decisions.OUTCOMES] == [8, 3, 1]
    assert sum(slot.total for slot in flow.slots[-1:]) == 10
    assert read(lambda c: figures.awaiting(c, now)) == figures.Counted(1, False)
    assert read(lambda c: figures.live_delegations(c, now)).number == 4
    world.clock.advance(days=2)
    none = read(lambda c: figures.flow(c, world.clock.now(), timedelta(hours=1), 60))
    assert sum(slot.total for slot in none.slots) == 0


def test_how_long_approvals_waited_is_told(world: World) -> None:
    from authserver.schema import Approval

    a_company(world)
    now = world.clock.now()
    world.clock.advance(minutes=4)
    change(world, Approval, {"state": "waiting"}, state="approved", answered_at=world.clock.now())
    found = world.services.database.read(lambda c: figures.waiting(c, now))
    assert found.median == timedelta(minutes=4)
    assert [number for _, number in found.counts] == [0, 1, 0, 0, 0]
    with signed_in(world, "viewer") as visit:
        assert "1 answer; half of them within 4 min." in visit.get("/admin/figures?period=hour").text


def test_a_window_finds_its_first_event_without_looking_at_all(world: World) -> None:
    granted = world.granted()
    begun = world.clock.now()
    for _ in range(7):
        world.clock.advance(minutes=1)
        refused(world, granted, amount=eur("500.00"))
    newest = len(world.events())
    read = world.services.database.read
    for back in range(7):
        since = world.clock.now() - timedelta(minutes=back)
        window = read(lambda c, since=since: window_since(c, since, 100))
        assert (window.first, window.last, window.whole) == (newest - back, newest, True)
    cut = read(lambda c: window_since(c, begun, 3))
    assert (cut.first, cut.whole, cut.since) == (newest - 2, False, world.clock.now() - timedelta(minutes=2))
    later = read(lambda c: window_since(c, world.clock.now() + timedelta(days=1), 3))
    assert later.first == later.last + 1


# --- rules ----------------------------------------------------------------------------------------------------------


def test_S17_the_catalogue_shows_who_answers_and_who_is_missing(world: World) -> None:
    add_user(world, "viewer", role="viewer", groups=("payments", "payments-duty"))
    with signed_in(world, "viewer") as visit:
        before = visit.get("/admin/catalogue").text
        entry = world.services.vocabulary.catalogue.entries["payment.finalize"]
        assert "nobody is in the owner group" in before
        assert "1 member" in before
        groups = {
            group.removeprefix("group:")
            for one in world.services.vocabulary.catalogue.entries.values()
            for group in (one.owner, one.approver, *(step.to for step in one.escalation))
        }
        for number in range(5):
            add_user(world, f"member-{number}", groups=tuple(sorted(groups)))
        assert "Every action has people who answer for it." in visit.get("/admin/catalogue").text
    assert entry.owner == "payments"


def test_a_rotation_is_published_audited_and_shown(sqlite_world: World) -> None:
    owner = add_user(sqlite_world, "olga", role="owner")
    with signed_in(sqlite_world, "olga") as visit:
        answer = visit.post("/admin/keys/rotate")
        assert (answer.status_code, answer.headers["location"]) == (303, "/admin/keys?done=rotated")
        text = visit.get(answer.headers["location"]).text
    assert "A new key was published." in text
    assert "pending" in text
    (event,) = (e for e in sqlite_world.events() if e["event"] == "key.created")
    assert event["data"]["by"] == f"user:{owner}"
    assert event["data"]["kid"] in text


def test_S03_a_draft_is_tried_on_what_happened(sqlite_world: World) -> None:
    a_life(sqlite_world)
    sqlite_world.clock.advance(seconds=1)
    add_user(sqlite_world, "viewer", role="viewer")
    with signed_in(sqlite_world, "viewer") as visit:
        text = visit.get("/admin/policies/simulate?set=new-merchant&state=enforce&period=day").text
        nothing = visit.get("/admin/policies/simulate?set=base&state=enforce&period=day").text
        unknown = visit.get("/admin/policies/simulate?set=none").text
        broken = visit.get("/admin/policies/simulate?set=base&state=draft&period=day")
    assert "1 of 6 decisions would have been others" in text
    assert "allowed → <strong>" in text
    assert "personal-data" in text
    assert "0 of 6 decisions would have been others" in nothing
    assert "would have been others" not in unknown
    assert broken.status_code == 200
    assert "no policy that is enforced permits anything" in broken.text


def test_a_broken_policy_file_is_shown_where_policies_are(sqlite_world: World) -> None:
    add_user(sqlite_world, "viewer", role="viewer")
    with signed_in(sqlite_world, "viewer") as visit:
        sqlite_world.services.policies.problem = "base.cedar:3: no such attribute"
        try:
            overview, page = visit.get("/admin").text, visit.get("/admin/policies").text
        finally:
            sqlite_world.services.policies.problem = None
    assert "A change could not be taken over" in overview
    assert "The files cannot be used as they are." in page


def test_S18_an_agent_is_blocked_with_a_reason_and_let_in_again(world: World) -> None:
    operator = add_user(world, "vera", role="operator")
    granted = world.granted()
    with signed_in(world, "vera") as visit:
        blocking = {"client_id": "basket-helper", "switch": "disable"}
        for reason in (None, "  ", "x" * 501, "by eve\u202emada yb"):
            answer = visit.post("/admin/agents", **blocking, reason=reason)
            assert (answer.status_code, 'role="alert"' in answer.text) == (400, True)
        assert world.exchange(granted.grant).status_code == 200
        answer = visit.post("/admin/agents", **blocking, reason="it bought 400 melons")
        assert (answer.status_code, answer.headers["location"]) == (
            303,
            "/admin/agents/basket-helper?done=disabled",
        )
        page = visit.get(answer.headers["location"]).text
        assert "The agent is blocked" in page
        assert 'value="enable"' in page
        assert world.exchange(granted.grant).status_code in (400, 401)
        ended = next(e for e in reversed(world.events()) if e["event"] == "revocation")
        assert (ended["data"]["reason"], ended["data"]["by"]) == ("it bought 400 melons", f"user:{operator}")
        answer = visit.post("/admin/agents", client_id="basket-helper", switch="enable")
        assert "It is let in again." in visit.get(answer.headers["location"]).text
        # What it held stays ended.
        assert world.exchange(granted.grant).status_code == 400
        for wrong in ({"client_id": "none"}, {"client_id": None}, {"switch": "off"}, {"switch": None}):
            form = {"client_id": "basket-helper", "switch": "enable"} | wrong
            assert visit.post("/admin/agents", **form).status_code == 404


def test_S03_a_set_is_moved_from_draft_to_enforced_and_back(world: World) -> None:
    owner = add_user(world, "vera", role="owner")
    with signed_in(world, "vera") as visit:
        for before, state in (("draft", "observe"), ("observe", "enforce"), ("enforce", "draft")):
            answer = visit.post("/admin/policies/state", set="quiet-hours", state=state)
            assert (answer.status_code, answer.headers["location"]) == (303, "/admin/policies?done=moved")
            assert "The set was moved." in visit.get(answer.headers["location"]).text
            event = next(e for e in reversed(world.events()) if e["event"] == "policies.moved")
            said = {"by": f"user:{owner}", "set": "quiet-hours", "before": before, "state": state}
            assert event["data"] == said
        # What would leave nothing permitted is not taken over, and the page says so.
        broken = visit.post("/admin/policies/state", set="base", state="draft")
        assert broken.status_code == 400
        assert "no policy that is enforced permits anything" in broken.text
        for unknown in (
            {"set": "none", "state": "observe"},
            {"set": "base", "state": "off"},
            {"set": "base"},
        ):
            assert visit.post("/admin/policies/state", **unknown).status_code == 404
    assert len([e for e in world.events() if e["event"] == "policies.moved"]) == 3


def test_A85_two_people_are_needed_where_the_configuration_says_so(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = sqlite_world.services.settings.policies.model_copy(update={"two_people": True})
    monkeypatch.setitem(vars(sqlite_world.services.settings), "policies", two)
    for name in ("vera", "bo"):
        add_user(sqlite_world, name, role="owner")
    with signed_in(sqlite_world, "vera") as vera, signed_in(sqlite_world, "bo") as bo:
        assert vera.post("/admin/policies/state", set="quiet-hours", state="observe").status_code == 303
        alone = vera.post("/admin/policies/state", set="quiet-hours", state="enforce")
        assert (alone.status_code, "It takes two people" in alone.text) == (403, True)
        assert bo.post("/admin/policies/state", set="quiet-hours", state="enforce").status_code == 303


# --- the audit ------------------------------------------------------------------------------------------------------


def test_the_audit_shows_every_event_by_its_filters_and_how_it_is_sealed(world: World) -> None:
    add_user(world, "vera", role="viewer")
    granted = world.granted()
    refused(world, granted, amount=eur("500.00"))
    with signed_in(world, "vera") as visit:
        page = visit.get("/admin/audit").text
        assert "0 events are sealed; " in page
        assert ">nowhere<" in page
        for event in ("sign_in.permitted", "delegation.created", "exchange.refused"):
            assert f">{event}<" in page
        seal(world.services, world.clock.now())
        page = visit.get("/admin/audit").text
        assert f"{len(world.events())} events are sealed; 0 events are not sealed yet." in page
        for query, there in {
            "event=exchange.refused": True,
            "client_id=basket-helper&rule=limits.per_action": True,
            f"delegation_id={granted.grant_id}&event=exchange.refused": True,
            "event=exchange.refused&q=500.00": True,
            "event=exchange.refused&q=50_.00": False,
            "event=exchange": False,
            "client_id=price-scout": False,
            "action_id=none": False,
        }.items():
            assert (">exchange.refused<" in visit.get(f"/admin/audit?{query}").text) is there, query


def test_the_audit_leads_back_to_older_events(sqlite_world: World) -> None:
    add_user(sqlite_world, "vera", role="viewer")
    granted = sqlite_world.granted()
    for _ in range(60):
        sqlite_world.services.database.write(
            lambda connection: Record("made.up", delegation_id=granted.grant_id).changed(
                connection, sqlite_world.clock.now()
            )
        )
    with signed_in(sqlite_world, "vera") as visit:
        first = visit.get("/admin/audit?event=made.up").text
        assert first.count(">made.up<") == 50
        (onward,) = re.findall(r'href="(/admin/audit\?event=made.up&amp;before=\d+)"', first)
        second = visit.get(onward.replace("&amp;", "&")).text
        assert second.count(">made.up<") == 10
        assert "Earlier" not in second
