"""Approvals as people see them: what is shown, what can be chosen, and the page that follows what happens."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from authserver.errors import Refusal
from authserver.schema import Approval
from tests.approving import answers, asked_above_fifty, asks, person, polls, record, waits
from tests.attacks.making import change
from tests.pages.browser import SCREENSHOTS, Visit, add_user, sign_in, signed_in, signed_in_page
from tests.settling import eur
from tests.world import SHOP, World, running_world


def text_of(response: httpx.Response) -> str:
    """What a page says, without its marks."""
    assert response.status_code == 200, response.text
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.text.partition("<main")[2]))


def facts(visit: Visit, approval: str) -> str:
    """The page of one approval."""
    return text_of(visit.get(f"/approvals/{approval}"))


# --- what is shown --------------------------------------------------------------------------------------------------


def test_the_page_says_exactly_what_would_happen(sqlite_world: World) -> None:
    granted = asked_above_fifty(sqlite_world)
    action = sqlite_world.action(amount=eur("62.10"), locations=[SHOP])
    told = waits(sqlite_world, granted.grant, action=action)
    with signed_in(sqlite_world) as visit:
        said = facts(visit, told.approval)
        assert "Pay €62.10 to Example Foods, grocery stores and supermarkets, the Netherlands" in said
        assert "basket-helper spiffe://example.org/agent/basket-helper" in said
        assert "€300 · €237.90 after this" in said
        assert f"Shop {SHOP}" in said
        assert "Pay €62.10 to Example Foods" in text_of(visit.get("/approvals"))


def test_the_page_speaks_dutch(sqlite_world: World) -> None:
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    with signed_in(sqlite_world, **{"Accept-Language": "nl"}) as visit:
        said = facts(visit, told.approval)
    assert "Betaal € 62,10 aan verkoper m_123 op Market" in said.replace("\u00a0", " ")
    assert "Weigeren Goedkeuren" in said


def test_data_and_references_are_shown_as_facts(sqlite_world: World) -> None:
    granted = sqlite_world.granted(
        actions=["order.change_address"], limits=None, merchants=None, datatypes=["shipping_address"]
    )
    action = {
        "type": "agent_action",
        "actions": ["order.change_address"],
        "locations": [SHOP],
        "datatypes": ["shipping_address"],
        "reference": "order-7",
    }
    told = waits(sqlite_world, granted.grant, action=action)
    with signed_in(sqlite_world) as visit:
        said = facts(visit, told.approval)
    assert "Change an order's address at Shop: your delivery address" in said.replace("&#39;", "'")
    assert "Reference order-7" in said


def test_what_is_over_says_so_and_asks_nothing(sqlite_world: World) -> None:
    granted = asked_above_fifty(sqlite_world)
    told = [waits(sqlite_world, granted.grant) for _ in range(4)]
    answers(sqlite_world, told[0].approval)
    polls(sqlite_world, told[0].code)
    answers(sqlite_world, told[1].approval, "refuse")
    answers(sqlite_world, told[2].approval)
    sqlite_world.clock.advance(seconds=10)
    with signed_in(sqlite_world) as visit:
        said = [facts(visit, one.approval) for one in told]
        assert "Approved and used" in said[0]
        assert "Refused" in said[1]
        assert "Approved, not used yet" in said[2]
        assert "Refuse Approve" in said[3]
        assert not any("Refuse Approve" in one for one in said[:3])
        sqlite_world.clock.advance(seconds=1790)
    with signed_in(sqlite_world) as visit:
        assert "Nobody answered in time" in facts(visit, told[3].approval)


def test_an_approver_of_a_group_sees_for_whom_it_is(sqlite_world: World) -> None:
    person(sqlite_world, "grace", "payments-duty")
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    with signed_in(sqlite_world, "grace") as visit:
        assert "Nothing waits for you" in text_of(visit.get("/approvals"))
        sqlite_world.clock.advance(minutes=10)
        assert "Pay €62.10" in text_of(visit.get("/approvals"))
    with signed_in(sqlite_world, "grace") as visit:
        assert "For whom Ada" in facts(visit, told.approval)
        assert "Do not ask me about this again" not in facts(visit, told.approval)
        assert visit.post(f"/approvals/{told.approval}", answer="approve").status_code == 303
    assert record(sqlite_world, told.approval).state == "approved"


LOOKS = {"HX-Request": "true"}


def looks_again(visit: Visit, path: str) -> str:
    """Where that page looks again."""
    (again,) = re.findall(r'hx-get="([^"]+)"', visit.get(path).text)
    return str(again.replace("&amp;", "&"))


def test_a_page_that_looks_again_gets_nothing_where_nothing_changed(sqlite_world: World) -> None:
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    with signed_in(sqlite_world) as visit:
        for page in ("/approvals", f"/approvals/{told.approval}"):
            again = looks_again(visit, page)
            assert visit.get(again, headers=LOOKS).status_code == 204
        answers(sqlite_world, told.approval)
        changed = visit.get(again, headers=LOOKS)
        assert (changed.status_code, "Approved, not used yet" in changed.text) == (200, True)


def test_a_page_that_was_left_open_does_not_keep_its_session_alive(sqlite_world: World) -> None:
    with signed_in(sqlite_world) as visit:
        again = looks_again(visit, "/approvals")
        got = []
        for _ in range(4):
            sqlite_world.clock.advance(seconds=600)
            got.append(visit.get(again, headers=LOOKS).status_code)
        assert got == [204, 204, 204, 286]  # of htmx: ask no more


# --- rules ----------------------------------------------------------------------------------------------------------


def ruled(world: World, up_to: str = "70.00", **changes: Any) -> str:
    """A grant with the rule that its user is not asked again for the market's seller m_123."""
    granted = asked_above_fifty(world, **changes)
    told = waits(world, granted.grant)
    answers(world, told.approval, rule_up_to=up_to)
    polls(world, told.code)
    return granted.grant


def test_a_rule_lifts_what_the_user_was_asked_for_this_shop(world: World) -> None:
    grant = ruled(world)
    assert asks(world, grant, "70.00").status_code == 200
    assert world.events()[-1]["data"]["approval_rule"]
    world.refuses(asks(world, grant, "70.01"), "authorization_pending")
    other = world.action(amount=eur("60.00"), merchant={"id": "m_124", "category": "5411", "country": "NL"})
    world.refuses(asks(world, grant, action=other), "authorization_pending")
    elsewhere = world.action(amount=eur("60.00"), locations=[SHOP])
    world.refuses(asks(world, grant, action=elsewhere), "authorization_pending")
    checkout = world.action(amount=eur("60.00"), actions=["order.checkout"])
    world.refuses(asks(world, grant, action=checkout), "authorization_pending")


def test_a_rule_lifts_no_limit(sqlite_world: World) -> None:
    grant = ruled(
        sqlite_world, "100.00", limits={"currency": "EUR", "per_action": "80.00", "total": "130.00"}
    )
    sqlite_world.refuses(
        asks(sqlite_world, grant, "80.01"), "invalid_authorization_details", constraint="limits.per_action"
    )
    sqlite_world.refuses(
        asks(sqlite_world, grant, "70.00"), "invalid_authorization_details", constraint="limits.total"
    )


def test_a_rule_is_of_one_delegation(sqlite_world: World) -> None:
    ruled(sqlite_world)
    sqlite_world.refuses(asks(sqlite_world, asked_above_fifty(sqlite_world).grant), "authorization_pending")


@pytest.mark.parametrize("asked", ["catalogue.approval", "policy:x"])
def test_no_rule_lifts_what_somebody_else_asks(sqlite_world: World, asked: str) -> None:
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    change(sqlite_world, Approval, {"id": told.approval}, because=asked)
    with pytest.raises(Refusal) as raised:
        answers(sqlite_world, told.approval, rule_up_to="70.00")
    assert raised.value.status == 409
    assert record(sqlite_world, told.approval).state == "waiting"


def test_a_rule_is_chosen_signed_in_anew_and_can_be_taken_back(sqlite_world: World) -> None:
    granted = asked_above_fifty(sqlite_world)
    with signed_in(sqlite_world) as visit:
        sqlite_world.clock.advance(seconds=1)
        told = waits(sqlite_world, granted.grant)
        form = {"answer": "approve", "rule": "yes", "rule_up_to": "70,00"}
        again = visit.post(f"/approvals/{told.approval}", **form)
        assert (again.status_code, "again=1" in again.headers["location"]) == (303, True)
        assert record(sqlite_world, told.approval).state == "waiting"
    with signed_in(sqlite_world) as visit:
        for wrong in ("", "x", "-1", "70.001", "0"):
            bad = visit.post(f"/approvals/{told.approval}", **(form | {"rule_up_to": wrong}))
            assert (bad.status_code, "Write amounts like 42.50" in bad.text) == (400, True)
        assert visit.post(f"/approvals/{told.approval}", **form).status_code == 303
        assert asks(sqlite_world, granted.grant, "70.00").status_code == 200
        page = visit.get("/approvals")
        assert "Pay: up to €70 at a time, seller m_123 on Market basket-helper" in text_of(page)
        (end,) = re.findall(r'action="(/approval-rules/[^"]+)"', page.text)
        with signed_in(sqlite_world, "mallory") as other:
            assert other.post(end).status_code == 404
        assert asks(sqlite_world, granted.grant, "60.00").status_code == 200
        assert visit.post(end, csrf="x").status_code == 403
        assert visit.post(end).status_code == 303
        assert "not asked about" not in text_of(visit.get("/approvals"))
    sqlite_world.refuses(asks(sqlite_world, granted.grant, "70.00"), "authorization_pending")
    events = [event["event"] for event in sqlite_world.events()]
    assert events.count("approval_rule.taken_back") == 1


def test_the_page_of_the_delegation_lists_its_rules_and_tells_what_was_answered(sqlite_world: World) -> None:
    granted = asked_above_fifty(sqlite_world)
    told = waits(sqlite_world, granted.grant)
    answers(sqlite_world, told.approval, rule_up_to="70.00")
    polls(sqlite_world, told.code)
    answers(sqlite_world, waits(sqlite_world, granted.grant, "75.00").approval, "refuse")
    with signed_in(sqlite_world) as visit:
        page = visit.get(f"/delegations/{granted.grant_id}")
        said = text_of(page)
        assert "What you are not asked about Pay: up to €70 at a time, seller m_123 on Market" in said
        for line in ("It asked for an approval", "Approved", "Allowed: Pay", "Refused"):
            assert line in said
        (end,) = re.findall(r'action="(/approval-rules/[^"]+)"', page.text)
        answer = visit.post(end, next=f"/delegations/{granted.grant_id}")
        assert answer.headers["location"] == f"/delegations/{granted.grant_id}"
        assert "What you are not asked about" not in text_of(visit.get(answer.headers["location"]))


_SOON = 15_000  # milliseconds: the page looks again every three seconds

# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ada(browser: Browser, sqlite_world: World) -> Iterator[Page]:
    """Ada's browser, where she is signed in."""
    with signed_in_page(browser, sqlite_world) as page:
        yield page


def test_a_request_comes_up_is_approved_and_used_without_reloading(ada: Page, sqlite_world: World) -> None:
    ada.goto("/approvals")
    expect(ada.get_by_text("Nothing waits for you.")).to_be_visible()
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    link = ada.get_by_role("link", name="Pay €62.10 to seller m_123 on Market")
    expect(link).to_be_visible(timeout=_SOON)
    link.click()
    _shot(ada, "approval")
    ada.get_by_role("button", name="Approve").click()
    expect(ada.get_by_role("status")).to_have_text("Approved, not used yet")
    assert polls(sqlite_world, told.code).status_code == 200
    expect(ada.get_by_role("status")).to_have_text("Approved and used", timeout=_SOON)
    ada.go_back()
    expect(ada.get_by_role("button", name="Approve")).to_have_count(0)


def test_the_page_works_without_scripts_by_keyboard_and_on_a_narrow_screen(
    browser: Browser, sqlite_world: World
) -> None:
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    options: dict[str, Any] = {"java_script_enabled": False, "viewport": {"width": 390, "height": 800}}
    with signed_in_page(browser, sqlite_world, **options) as page:
        page.goto(f"/approvals/{told.approval}")
        _shot(page, "approval-390")
        approve = page.get_by_role("button", name="Approve")
        box = approve.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        approve.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text("Approved, not used yet")
    assert record(sqlite_world, told.approval).state == "approved"


def test_after_a_while_the_browser_asks_who_it_is_and_comes_back(ada: Page, sqlite_world: World) -> None:
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    ada.goto(f"/approvals/{told.approval}")
    sqlite_world.clock.advance(seconds=301)
    ada.get_by_role("button", name="Approve").click()
    ada.wait_for_url("**/sign-in?**")
    assert record(sqlite_world, told.approval).state == "waiting"
    sign_in(ada, "ada")
    expect(ada.get_by_role("heading", name="Pay €62.10")).to_be_visible()
    assert record(sqlite_world, told.approval).state == "waiting"
    ada.get_by_role("button", name="Approve").click()
    expect(ada.get_by_role("status")).to_be_visible()
    assert record(sqlite_world, told.approval).state == "approved"


def test_a_frame_of_another_site_shows_no_approval(ada: Page, sqlite_world: World, tmp_path: Path) -> None:
    told = waits(sqlite_world, asked_above_fifty(sqlite_world).grant)
    here = f"{sqlite_world.url}/approvals/{told.approval}"
    ada.set_content(f'<iframe src="{here}"></iframe>')
    ada.wait_for_timeout(300)
    assert all(not frame.get_by_text("Pay €62.10").count() for frame in ada.frames)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_for_everybody(browser: Browser, sqlite_url: str, tmp_path: Path, scheme: str) -> None:
    ways = {"push_contact": "op@example.com", "smtp_host": "127.0.0.1", "mail_from": "a@example.com"}
    with running_world(sqlite_url, tmp_path / "world", notifications=ways) as world:
        add_user(world, "ada")
        granted = asked_above_fifty(world)
        told = [waits(world, granted.grant, value) for value in ("62.10", "62.11", "63.00")]
        answers(world, told[0].approval, rule_up_to="62.10")
        with signed_in_page(browser, world, color_scheme=scheme) as page:
            complaints: list[str] = []
            page.on("console", lambda message: complaints.append(message.text))
            for path in (f"/approvals/{told[1].approval}", f"/approvals/{told[0].approval}", "/approvals"):
                page.goto(path)
                found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]})
                assert found.violations_count == 0, found.generate_report()
                _shot(page, f"{path.strip('/').split('/')[0]}-{scheme}")
            page.goto("/notifications")
            found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]})
            assert found.violations_count == 0, found.generate_report()
            assert page.get_by_role("button", name="Tell me in this browser").is_visible()
            assert complaints == []


def _shot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
