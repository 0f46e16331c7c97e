"""Fixtures of the pages' tests: one Chromium for all of them."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.pages.browser import running_browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium; each test has a context of its own."""
    with running_browser() as browser:
        yield browser
