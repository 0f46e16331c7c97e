"""An administrator who is woken at night, at a real browser; and the console without JavaScript."""

import json
import re
import time
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from authserver.schema import Agent, ResourceServer, User
from tests.attacks.making import change
from tests.pages.admin.scene import Company, a_company, pages_of
from tests.pages.browser import signed_in_page
from tests.settling import redeem, token_of
from tests.world import World


@pytest.fixture
def night(sqlite_world: World) -> tuple[World, Company]:
    """A company, of which everything may end."""
    return sqlite_world, a_company(sqlite_world)


def test_S18_woken_at_night_one_finds_the_agent_and_ends_all_that_it_holds(
    browser: Browser, night: tuple[World, Company]
) -> None:
    world, company = night
    grant = company.life.groceries.grant
    token = token_of(world, grant, "5.00")
    with signed_in_page(browser, world, "revoker") as page:
        page.get_by_role("link", name="Administration").click()
        page.get_by_role("searchbox").fill("basket")
        page.get_by_role("searchbox").press("Enter")
        page.get_by_role("link", name="basket-helper", exact=True).click()
        # What it did, with why it was refused.
        expect(page.get_by_text("limits.per_action").first).to_be_visible()
        expect(page.get_by_text("asked 500.00").first).to_be_visible()
        page.get_by_role("button", name="Revoke everything it holds…").click()
        expect(page.get_by_role("heading", name="Revoke all that agent basket-helper holds?")).to_be_visible()
        expect(page.locator(".tiles li").first).to_contain_text("3")
        assert world.introspect(token)["active"] is True
        page.get_by_label("Why").fill("it buys melons all night")
        page.get_by_role("button", name="Revoke now").click()
        page.get_by_role("status").wait_for()
        pressed = time.monotonic()
        refused = world.exchange(grant)
        assert refused.status_code == 400
        assert refused.json()["error_description"] == "the delegation was revoked"
        assert redeem(world, token).status_code == 409
        assert time.monotonic() - pressed < 1
        page.get_by_role("button", name="Go on").click()
        expect(page.locator(".tiles li").first).to_contain_text("0")
        page.goto(f"/admin/delegations/{company.life.groceries.grant_id}")
        expect(page.get_by_text("it buys melons all night").first).to_be_visible()


def test_decisions_come_in_by_themselves_until_they_are_paused(
    browser: Browser, night: tuple[World, Company]
) -> None:
    world, company = night
    with signed_in_page(browser, world, "viewer") as page:
        page.goto("/admin/decisions?outcome=refused")
        rows = page.locator("#live tbody tr")
        expect(rows).to_have_count(3)
        _refuse(world, company)
        expect(rows).to_have_count(4)  # without a reload
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("button", name="Go live")).to_be_visible()
        page.wait_for_load_state()  # with its images, which are asked for last
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        _refuse(world, company)
        page.wait_for_timeout(2_300)  # longer than it looks again
        assert asked == []
        page.get_by_role("button", name="Go live").click()
        expect(rows).to_have_count(5)


def _refuse(world: World, company: Company) -> None:
    action = world.action(amount={"currency": "EUR", "value": "700.00"})
    assert world.exchange(company.life.groceries.grant, action=action).status_code == 400


def test_everything_works_without_javascript_and_by_keyboard(
    browser: Browser, night: tuple[World, Company]
) -> None:
    world, company = night
    with signed_in_page(browser, world, "owner", java_script_enabled=False) as page:
        page.goto("/admin/search?q=basket")
        _press_until(page, "basket-helper")
        page.wait_for_url(re.compile("/admin/agents/"))
        _press_until(page, "Revoke everything it holds…")
        page.wait_for_url(re.compile("/admin/revoke"))
        page.get_by_label("Why").fill("by keyboard")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_be_visible()
    assert world.exchange(company.life.groceries.grant).status_code == 400


def _press_until(page: Page, name: str) -> None:
    """Go from link to link by keyboard until the one of that name has the focus, and press it."""
    link = page.get_by_text(name, exact=True).first
    for _ in range(60):
        page.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            page.keyboard.press("Enter")
            return
    raise AssertionError(name)


SCRIPT = "'\"><img src=x onerror=alert(1)><svg onload=alert(1)>"


def test_A116_no_field_of_the_console_runs_anything(browser: Browser, company: tuple[World, Company]) -> None:
    world, made = company
    change(world, Agent, {"client_id": "basket-helper"}, name=SCRIPT, owner=SCRIPT)
    change(world, User, {"username": "ada"}, name=SCRIPT, groups=json.dumps([SCRIPT]))
    change(world, ResourceServer, {"id": "rs_shop"}, name=SCRIPT)
    ran: list[str] = []
    with signed_in_page(browser, world, "owner") as page:
        page.on("dialog", lambda dialog: (ran.append(dialog.message), dialog.dismiss()))
        page.on("console", lambda message: ran.append(message.text))
        paths = list(pages_of(world, made).values())
        paths += [f"/admin/search?q={quote(SCRIPT)}", f"/admin/decisions?agent={quote(SCRIPT)}"]
        paths += [f"/admin/delegations?user={quote(SCRIPT)}", f"/admin/decisions?reason={quote(SCRIPT)}"]
        for path in paths:
            page.goto(path)
            assert page.locator("img[src=x], svg[onload]").count() == 0, path
        page.goto("/admin/agents")
        expect(page.get_by_text(SCRIPT).first).to_be_visible()
        page.goto(f"/admin/revoke?kind=delegation&target={made.waiting}")
        page.get_by_label("Why").fill(SCRIPT)
        page.get_by_role("button", name="Revoke now").click()
        page.goto(f"/admin/delegations/{made.waiting}")
        expect(page.get_by_text(SCRIPT).first).to_be_visible()
    assert ran == []
