"""Every page of the console at 390 and at 1280 pixels, light and dark; the pictures are in tests/screenshots/."""

from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.pages.admin.scene import Company, pages_of
from tests.pages.browser import signed_in_page
from tests.pages.test_screens import LOOKS, SIZES, looks_right
from tests.world import World


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_every_page_can_be_read_by_everybody(
    browser: Browser, company: tuple[World, Company], size: str, scheme: Any
) -> None:
    world, made = company
    options: dict[str, Any] = {"viewport": SIZES[size], "color_scheme": scheme}
    # One of the looks is in Dutch, with its longer words.
    options["locale"] = "nl-NL" if (size, scheme) == ("narrow", "dark") else "en-GB"
    with signed_in_page(browser, world, "owner", **options) as page:
        for name, path in pages_of(world, made).items():
            answer = page.goto(path)
            assert answer is not None
            assert answer.status == 200, path
            looks_right(page, f"admin-{name}", f"{size}-{scheme}")
