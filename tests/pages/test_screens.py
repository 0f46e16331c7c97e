"""Every page at 390 and at 1280 pixels, light and dark: nothing to complain about for axe-core, nothing cut off.

The pictures are in tests/screenshots/, to be looked at.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.pages.browser import SCREENSHOTS, person, signed_in_page
from tests.pages.scene import Life, a_life
from tests.pages.test_passkeys import enrolment_of
from tests.world import MARKET, World, running_world

SIZES = {"narrow": {"width": 390, "height": 844}, "wide": {"width": 1280, "height": 900}}
LOOKS = [("narrow", "light"), ("narrow", "dark"), ("wide", "light"), ("wide", "dark")]
RULES = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }
}


@pytest.fixture(scope="module")
def scene(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Life]]:
    """One world for all looks: they change nothing."""
    directory = tmp_path_factory.mktemp("screens")
    with running_world(module_database, directory / "world", host="localhost") as world:
        life = a_life(world)
        search = {"type": "agent_action", "actions": ["catalog.search"], "locations": [MARKET]}
        # A job whose name is as long as one can be, and has no place to be broken.
        assert world.exchange(life.groceries.grant, action=search, task_id="W" * 64).status_code == 200
        yield world, life


def looks_right(page: Page, name: str, look: str) -> None:
    """What axe-core finds, and whether anything sticks out to the side."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}-{look}.png", full_page=True)
    fits_everybody(page)


def fits_everybody(page: Page, rules: dict[str, Any] = RULES) -> None:
    """The same without a picture."""
    found: Any = Axe().run(page, options=rules)
    assert found.violations_count == 0, found.generate_report()
    # What is exactly as bright as its background is, to axe-core, something to look at.
    unsure = [one["nodes"] for one in found.response["incomplete"] if one["id"] == "color-contrast"]
    assert unsure == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_every_page_can_be_read_by_everybody(
    browser: Browser, scene: tuple[World, Life], size: str, scheme: Any
) -> None:
    world, life = scene
    look = f"{size}-{scheme}"
    options: dict[str, Any] = {"viewport": SIZES[size], "color_scheme": scheme}
    # One of the looks is in Dutch, with its longer words.
    options["locale"] = "nl-NL" if (size, scheme) == ("narrow", "dark") else "en-GB"
    link = enrolment_of(world, f"new-{look}")
    with person(browser, world, **options) as context:
        page = context.new_page()
        for name, path in (
            ("sign-in", "/sign-in"),
            ("enrol", link),
            ("not-found", "/nowhere"),
            ("error", "/errors/conflict"),
        ):
            page.goto(path)
            looks_right(page, name, look)
    with signed_in_page(browser, world, **options) as page:
        for name, path in (
            ("my-agents", "/"),
            ("delegation", f"/delegations/{life.groceries.grant_id}"),
            ("account", "/account"),
        ):
            page.goto(path)
            looks_right(page, name, look)
        page.goto(f"/delegations/{life.groceries.grant_id}")
        page.locator("details.card > summary").first.click()  # to allow less
        looks_right(page, "allow-less", look)
        page.goto("/sign-in?again=1")
        looks_right(page, "again", look)
