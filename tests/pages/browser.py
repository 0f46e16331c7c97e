"""People at their browsers: a real Chromium by Playwright, or plain HTTP where no script has a part.

`conftest.py` has the fixtures. Chromium may be missing on a developer's machine, and then what needs it is skipped; not
where CI=true.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from authserver.accounts import users
from tests.world import World

PASSWORD = "correct horse battery"
SCREENSHOTS = Path(__file__).parent.parent / "screenshots"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


@contextmanager
def running_browser() -> Iterator[Browser]:
    """One Chromium; skips where there is none."""
    if not Path(CHROMIUM).exists():
        reason = "no Chromium (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def add_user(world: World, username: str, name: str | None = None, **fields: Any) -> str:
    """A user of the world who signs in with `PASSWORD`; gives the user's id. Does nothing for one who is there."""

    def write(connection: Any) -> str:
        found = users.find(connection, username)
        if found is None:
            new = users.NewUser(username, name or username.title(), **fields)
            found = users.by_id(connection, users.create(connection, new, world.clock.now())[0])
        assert found is not None
        users.set_password(connection, found.user_id, _password_hash())
        return found.user_id

    return world.services.database.write(write)


def _password_hash() -> str:
    # Hashing takes long on purpose; once is enough.
    if not _KEPT:
        from authserver.accounts import passwords

        _KEPT.append(passwords.hash_of(PASSWORD))
    return _KEPT[0]


_KEPT: list[str] = []


@contextmanager
def person(browser: Browser, world: World, **options: Any) -> Iterator[BrowserContext]:
    """A browser of one person, with no cookie yet: for instance `viewport`, `locale`, `color_scheme`."""
    options = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB"} | options
    context = browser.new_context(base_url=world.services.issuer, **options)
    context.set_default_timeout(10_000)
    try:
        yield context
    finally:
        context.close()


def sign_in(page: Page, username: str, password: str = PASSWORD) -> None:
    """Fill in the page of `/sign-in` that is open, and wait for what comes next."""
    name = page.get_by_label(re.compile("User name|Gebruikersnaam"))
    if name.is_editable():
        name.fill(username)
    page.get_by_label(re.compile("Password|Wachtwoord")).fill(password)
    page.locator("form[action$='/sign-in'] button").first.click()
    page.wait_for_url(lambda url: "/sign-in" not in url)


@contextmanager
def signed_in_page(browser: Browser, world: World, username: str = "ada", **options: Any) -> Iterator[Page]:
    """A page of somebody who has just signed in with `PASSWORD`, at `/`; the user is made where there is none."""
    add_user(world, username)
    with person(browser, world, **options) as context:
        page = context.new_page()
        page.goto(f"{world.services.issuer}/sign-in")
        sign_in(page, username)
        yield page


# --- without a browser ----------------------------------------------------------------------------------------------


@dataclass
class Visit:
    """Somebody who is signed in, by plain HTTP. `csrf` is the token that every form of theirs carries."""

    client: httpx.Client = field(repr=False)
    csrf: str = field(repr=False)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Look at a page."""
        return self.client.get(path, **options)

    def post(self, path: str, **form: Any) -> httpx.Response:
        """Send a form with the token in it; `csrf=None` leaves that out."""
        data = {"csrf": self.csrf} | form
        return self.client.post(path, data={name: value for name, value in data.items() if value is not None})


def csrf_of(response: httpx.Response) -> str:
    """The token in the forms of a page."""
    found = re.search(r'name="csrf" value="([^"]+)"', response.text)
    assert found, response.text
    return found[1]


def visitor(world: World, **headers: str) -> httpx.Client:
    """A browser without a cookie, that says what browsers say; it follows no redirection."""
    said = {"Accept": "text/html", "Origin": world.url, "Accept-Language": "en-GB"} | headers
    return httpx.Client(base_url=world.services.issuer, headers=said, timeout=30)


@contextmanager
def signed_in(world: World, username: str = "ada", **headers: str) -> Iterator[Visit]:
    """Sign a user in by plain HTTP; the user is made where there is none."""
    add_user(world, username)
    with visitor(world, **headers) as client:
        form = {"csrf": csrf_of(client.get("/sign-in")), "username": username, "password": PASSWORD}
        answer = client.post("/sign-in", data=form)
        assert answer.status_code == 303, answer.text
        yield Visit(client, csrf_of(client.get("/account")))
