"""Every page of the console at 390 and at 1280 pixels, light and dark; two of the looks are in tests/screenshots/."""

from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page

from tests.pages.admin.scene import Company, pages_of
from tests.pages.browser import SCREENSHOTS, signed_in_page
from tests.pages.test_screens import RULES, SIZES, fits_everybody
from tests.world import World

COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
SHAPES = {**RULES, "rules": {"color-contrast": {"enabled": False}}}
Look = tuple[str, Literal["light", "dark"]]


def see(page: Page, look: Look) -> None:
    """Look at the page that is open at that size, in that scheme."""
    size, scheme = look
    page.set_viewport_size(SIZES[size])  # type: ignore[arg-type]
    page.emulate_media(color_scheme=scheme)
    # With the scheme only colours change, with the width everything else.
    fits_everybody(page, COLOURS if scheme == "dark" else SHAPES if size == "narrow" else RULES)


@pytest.mark.parametrize(
    ("locale", "looks"),
    [
        ("en-GB", [("wide", "light"), ("wide", "dark"), ("narrow", "light")]),
        ("nl-NL", [("narrow", "dark")]),  # with its longer words
    ],
)
def test_every_page_can_be_read_by_everybody(
    browser: Browser, company: tuple[World, Company], locale: str, looks: list[Look]
) -> None:
    world, made = company
    SCREENSHOTS.mkdir(exist_ok=True)
    # Without motion: a link that is still changing its colour is no link of either scheme.
    options: dict[str, Any] = {
        "reduced_motion": "reduce",
        "locale": locale,
        "viewport": SIZES[looks[0][0]],
        "color_scheme": looks[0][1],
    }
    with signed_in_page(browser, world, "owner", **options) as page:
        for name, path in pages_of(world, made).items():
            page.set_viewport_size(options["viewport"])
            page.emulate_media(color_scheme=options["color_scheme"])
            answer = page.goto(path)
            assert answer is not None
            assert answer.status == 200, path
            page.screenshot(path=SCREENSHOTS / f"admin-{name}-{'-'.join(looks[0])}.png", full_page=True)
            for look in looks:
                see(page, look)
