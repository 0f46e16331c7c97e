"""Fixtures of the pages' tests: one Chromium for those of a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.pages.browser import running_browser
from tests.world import World, running_world


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium; each test has a context of its own.

    It goes with its file: while Playwright runs, no other test of the process can run an event loop.
    """
    with running_browser() as browser:
        yield browser


@pytest.fixture
def named_world(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    """A server that goes by a name, as passkeys need: `localhost`."""
    with running_world(sqlite_url, tmp_path / "world", host="localhost") as running:
        yield running
