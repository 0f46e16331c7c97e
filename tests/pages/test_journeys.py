"""Ada at her browser: with the keyboard alone, going back, pressing twice, coming back too late, without scripts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.pages.browser import PASSWORD, add_user, person, sign_in, signed_in_page
from tests.pages.scene import Life, a_life
from tests.world import World, running_world


@pytest.fixture(scope="module")
def town(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One server for all journeys of this module; each has a person of its own."""
    directory = tmp_path_factory.mktemp("journeys")
    with running_world(module_database, directory / "world", host="localhost") as world:
        yield world


def resident(world: World, name: str) -> Life:
    """Somebody with agents."""
    return a_life(world, name)


def press(page: Page, name: str) -> None:
    """Go to a control by Tab alone, and press Enter."""
    wanted = page.get_by_role("button", name=name, exact=True).first
    wanted.wait_for()
    for _ in range(60):
        page.keyboard.press("Tab")
        if wanted.evaluate("control => control === document.activeElement"):
            assert page.evaluate("document.activeElement.matches(':focus-visible')")
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"{name} is not to be reached")


@pytest.mark.parametrize("width", [390, 1280])
def test_S18_with_the_keyboard_alone_an_agent_is_paused_resumed_and_stopped(
    browser: Browser, town: World, width: int
) -> None:
    name = f"kay{width}"
    life = resident(town, name)
    with person(browser, town, viewport={"width": width, "height": 850}) as context:
        page = context.new_page()
        page.goto("/")
        # The first field that Tab leads to after the skip link, the mark and the passkey button is the name.
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.name") == "username":
                break
        page.keyboard.type(name)
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/")
        for control, said in (
            ("Pause basket-helper", "Paused. It can do nothing until you let it go on."),
            ("Let basket-helper go on", "It can go on."),
            ("Stop basket-helper for good", "Stopped for good. Nothing that it holds works any more."),
        ):
            press(page, control)
            expect(page.get_by_role("status")).to_have_text(said)
        expect(page.get_by_role("button", name="Pause basket-helper")).to_have_count(0)
    assert town.exchange(life.groceries.grant).json()["error_description"] == "the delegation was revoked"


def test_allowing_less_in_the_browser(browser: Browser, town: World) -> None:
    life = resident(town, "lena")
    with signed_in_page(browser, town, "lena") as page:
        page.goto(f"/delegations/{life.groceries.grant_id}")
        page.get_by_text("Allow less", exact=True).click()
        page.get_by_label("At most at a time").fill("25")
        page.get_by_label("Place an order").uncheck()
        page.get_by_role("button", name="Allow only this").click()
        expect(page.get_by_role("status")).to_have_text("The new limits hold from now on.")
        expect(page.locator(".lead")).to_contain_text("up to €25 at a time")
        expect(page.locator(".lead")).not_to_contain_text("place an order")
        page.get_by_text("Allow less", exact=True).click()
        page.get_by_label("At most in all").fill("12")
        page.get_by_role("button", name="Allow only this").click()
        expect(page.get_by_role("alert")).to_contain_text("More is spent or held already")


def test_A84_a_double_press_and_going_back_do_nothing_twice(browser: Browser, town: World) -> None:
    life = resident(town, "dora")
    with signed_in_page(browser, town, "dora") as page:
        path = f"/delegations/{life.groceries.grant_id}"
        page.goto(path)
        page.get_by_role("button", name="Pause basket-helper").dblclick(no_wait_after=True)
        page.wait_for_url("**?done=paused")
        page.go_back()
        # Nothing of it is kept: the page is loaded anew, or shows what was, and its buttons do no harm.
        page.goto(path)
        expect(page.locator(".badge", has_text="Paused").first).to_be_visible()
        page.get_by_role("button", name="Let basket-helper go on").click()
        page.wait_for_url("**?done=resumed")
        page.reload()
        expect(page.locator(".badge", has_text="Active").first).to_be_visible()
    events = [e["event"] for e in town.events() if e["delegation_id"] == life.groceries.grant_id]
    assert (events.count("delegation.paused"), events.count("delegation.resumed")) == (1, 1)


def test_a_page_that_is_too_old_leads_to_signing_in_and_back(browser: Browser, town: World) -> None:
    life = resident(town, "olga")
    with signed_in_page(browser, town, "olga") as page:
        page.goto(f"/delegations/{life.groceries.grant_id}")
        page.context.clear_cookies()
        page.get_by_role("button", name="Stop basket-helper for good").click()
        page.wait_for_url(re.compile("/sign-in"))
        sign_in(page, "olga")
        page.wait_for_url(f"**/delegations/{life.groceries.grant_id}")
        expect(page.locator(".badge").first).to_have_text("Active")
    assert town.exchange(life.groceries.grant).status_code == 200


def test_after_signing_out_going_back_shows_nothing(browser: Browser, town: World) -> None:
    resident(town, "bela")
    with signed_in_page(browser, town, "bela") as page:
        page.goto("/account")
        page.get_by_role("button", name="Sign out", exact=True).click()
        page.wait_for_url("**/sign-in")
        page.go_back()
        page.wait_for_url(re.compile("/sign-in"))
        expect(page.get_by_text("Where you are signed in")).to_have_count(0)


def test_everything_but_passkeys_works_without_scripts(browser: Browser, town: World) -> None:
    life = resident(town, "nora")
    with signed_in_page(browser, town, "nora", java_script_enabled=False) as page:
        page.get_by_role("link", name="basket-helper").first.click()
        page.get_by_text("Allow less", exact=True).click()
        page.get_by_label("At most in all").fill("100")
        page.get_by_role("button", name="Allow only this").click()
        expect(page.get_by_role("status")).to_be_visible()
        page.get_by_role("button", name="Stop basket-helper for good").click()
        expect(page.get_by_role("status")).to_contain_text("Stopped for good")
        page.get_by_role("button", name="Nederlands").click()
        expect(page.get_by_role("status")).to_contain_text("Voorgoed gestopt")
    assert town.exchange(life.groceries.grant).status_code == 400


def test_a_file_is_taken_along(browser: Browser, town: World, tmp_path: Path) -> None:
    life = resident(town, "fay")
    with signed_in_page(browser, town, "fay") as page:
        page.goto(f"/delegations/{life.groceries.grant_id}")
        for kind in ("CSV", "JSON"):
            with page.expect_download() as download:
                page.get_by_role("link", name=kind, exact=True).click()
            assert download.value.suggested_filename == f"basket-helper.{kind.lower()}"


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>", "{{7*7}}", "javascript:alert(1)", "'\"><svg onload=alert(1)>"]
)
def test_A116_no_name_runs_anything_in_the_browser(browser: Browser, town: World, name: str) -> None:
    from authserver.schema import Agent, User
    from tests.attacks.making import change

    add_user(town, "mallory")
    granted = town.granted(user="mallory")
    change(town, Agent, {"client_id": "basket-helper"}, name=name, owner=name)
    change(town, User, {"username": "mallory"}, name=name)
    try:
        with signed_in_page(browser, town, "mallory") as page:
            ran: list[Any] = []
            page.on("dialog", lambda dialog: (ran.append(dialog.message), dialog.dismiss()))
            page.on("console", lambda message: ran.append(message.text))
            for path in ("/", f"/delegations/{granted.grant_id}", "/account"):
                page.goto(path)
                expect(page.get_by_text(name).first).to_be_visible()
            assert ran == []
    finally:
        change(town, Agent, {"client_id": "basket-helper"}, name="basket-helper", owner=None)
