"""People consent in a real browser: by link, by device, to less than was asked, on a narrow screen, twice, too late."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.asking import (
    CALLBACK,
    LOOPBACK,
    ask_by_device,
    claim,
    parameters_of,
    poll,
    pushed,
    register_redirect_uris,
)
from tests.listening import listening
from tests.pages.browser import PASSWORD, add_user, person, sign_in, signed_in_page
from tests.pages.test_screens import LOOKS, SIZES, looks_right
from tests.world import World, running_world

EVERYTHING: dict[str, Any] = {
    "actions": [
        "catalog.search",
        "order.checkout",
        "payment.finalize",
        "profile.read",
        "personal_data.export",
    ],
    "limits": {
        "currency": "EUR",
        "per_action": "80.00",
        "total": "300.00",
        "per_period": [
            {"amount": "150.00", "period": "P7D"},
            {"amount": "40.00", "period": "P1D", "categories": ["5811-5814"]},
        ],
        "count": 20,
    },
    "merchants": {
        "categories": ["5411", "5811-5814"],
        "countries": ["NL", "EU"],
        "ids": ["m_123"],
        "except": {"categories": ["5813"], "countries": ["FR"], "ids": []},
    },
    "datatypes": ["shipping_address", "contact"],
    "approval": {"above": "50.00", "actions": ["personal_data.export"]},
    "redelegation": {"depth": 1},
}


class Callback:
    """An agent that listens on a loopback port for its answer."""

    def __init__(self) -> None:
        answers: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/callback"):
                    answers.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(b"<title>agent</title><h1>Thank you</h1>")

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.answers, self.server = answers, ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}/callback"


@pytest.fixture(scope="module")
def callback() -> Iterator[Callback]:
    made = Callback()
    with listening(made.server):
        yield made


@pytest.fixture(scope="module")
def world(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One server for all of these; it stands on SQLite, since pages know of no database."""
    folder = tmp_path_factory.mktemp("consent")
    settings: dict[str, Any] = {"authorization": {"user_code_tries": 100}}
    with running_world(module_database, folder / "world", **settings) as running:
        register_redirect_uris(running, CALLBACK, LOOPBACK)
        add_user(running, "ada")
        yield running


def link(world: World, callback: Callback | None = None, **changes: Any) -> str:
    """Where an agent sends the browser."""
    if callback is not None:
        changes["redirect_uri"] = callback.uri
    return f"/oauth/authorize?client_id=basket-helper&request_uri={pushed(world, **changes)}"


def arrived(page: Page, callback: Callback) -> dict[str, str]:
    """What the agent was told, once the browser is there."""
    page.wait_for_url(f"{callback.uri}*")
    return parameters_of(callback.answers[-1])


def claimed(world: World, callback: Callback, code: str) -> dict[str, Any]:
    """The grant for a code."""
    answer = claim(world, code, redirect_uri=callback.uri)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_from_the_agents_link_by_the_sign_in_to_a_payment(
    browser: Browser, world: World, callback: Callback
) -> None:
    with person(browser, world) as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(link(world, callback))
        sign_in(page, "ada")
        assert page.get_by_role("heading", level=1).inner_text() == "May basket-helper do this for you?"
        sentence = page.locator(".lead").inner_text()
        assert "up to €80 at a time and €300 in all" in sentence
        assert "grocery stores and supermarkets" in sentence
        assert "spiffe://example.org/agent/basket-helper" in page.locator("dl.facts").inner_text()
        page.get_by_role("button", name="Allow this").click()
        told = arrived(page, callback)
        assert page.get_by_role("heading").inner_text() == "Thank you"
    assert (told["state"], told["iss"]) == ("a state of the agent's", world.issuer)
    grant = claimed(world, callback, told["code"])
    assert grant["authorization_details"][0]["approval"] == {"above": "40.00"}  # balanced, unless one chooses
    assert (
        world.exchange(grant["access_token"], action=world.action(amount=_euros("39.00"))).status_code == 200
    )
    assert complaints == []


def _euros(value: str) -> dict[str, str]:
    return {"currency": "EUR", "value": value}


def test_a_person_allows_less_with_the_keyboard_alone(
    browser: Browser, world: World, callback: Callback
) -> None:
    with signed_in_page(browser, world) as page:
        page.goto(link(world, callback, details=world.delegation(**EVERYTHING)))
        page.get_by_role("checkbox", name="Export personal data").focus()
        page.keyboard.press("Space")
        page.get_by_label("The European Union").focus()
        page.keyboard.press("Space")
        page.get_by_label("Strict").focus()
        page.keyboard.press("Space")
        each = page.get_by_label("At most at a time")
        each.focus()
        page.keyboard.press("Control+A")
        page.keyboard.type("25.50")
        page.get_by_role("button", name="Allow this").focus()
        page.keyboard.press("Enter")
        told = arrived(page, callback)
    [granted] = claimed(world, callback, told["code"])["authorization_details"]
    assert "personal_data.export" not in granted["actions"]
    assert granted["merchants"]["countries"] == ["NL"]
    assert granted["limits"]["per_action"] == "25.50"
    assert granted["approval"] == {
        "above": "50.00",
        "actions": ["order.checkout", "payment.finalize", "profile.read"],
    }


def test_the_enter_key_in_a_number_allows_nothing_and_shows_what_it_comes_to(
    browser: Browser, world: World, callback: Callback
) -> None:
    with signed_in_page(browser, world) as page:
        page.goto(link(world, callback, details=world.delegation(**EVERYTHING)))
        countries = page.locator("section", has=page.get_by_role("heading", name="Countries of the shops"))
        countries.get_by_text("Leave out some of these").click()
        countries.get_by_label("Malta", exact=True).check()
        page.get_by_label("At most in all").fill("99")
        page.get_by_label("At most in all").press("Enter")
        page.wait_for_function("document.querySelector('.lead').innerText.includes('99')")
        assert "up to €80 at a time and €99 in all" in page.locator(".lead").inner_text()
        assert "Never: bars and pubs, France and Malta." in page.locator("ul.facts").inner_text()
        assert countries.get_by_label("Malta", exact=True).is_checked()
        page.get_by_role("button", name="Allow this").click()
        told = arrived(page, callback)
    [granted] = claimed(world, callback, told["code"])["authorization_details"]
    assert granted["limits"]["total"] == "99.00"
    assert granted["merchants"]["except"]["countries"] == ["FR", "MT"]


def test_what_cannot_stand_is_marked_and_what_was_typed_is_kept(browser: Browser, world: World) -> None:
    with signed_in_page(browser, world) as page:
        page.goto(link(world))
        page.get_by_label("At most in all").fill("3000")
        page.get_by_label("Belgium").uncheck()
        page.get_by_role("button", name="Allow this").click()
        assert "Nothing was allowed yet" in page.get_by_role("alert").first.inner_text()
        assert page.get_by_label("At most in all").input_value() == "3000"
        assert page.get_by_label("At most in all").get_attribute("aria-invalid") == "true"
        assert "You can lower this, not raise it." in page.locator(".numbers").inner_text()
        assert not page.get_by_label("Belgium").is_checked()
        page.get_by_label("The Netherlands").uncheck()
        page.get_by_label("At most in all").fill("30")
        page.get_by_role("button", name="Allow this").click()
        assert "Leave at least one of these" in page.locator(".lists").inner_text()


def test_no_is_told_to_the_agent(browser: Browser, world: World, callback: Callback) -> None:
    with signed_in_page(browser, world) as page:
        page.goto(link(world, callback))
        page.get_by_label("At most in all").fill("")  # to say no, nothing has to be right
        page.get_by_role("button", name="Say no").click()
        assert arrived(page, callback)["error"] == "access_denied"


def test_the_back_button_shows_that_it_was_answered(
    browser: Browser, world: World, callback: Callback
) -> None:
    with signed_in_page(browser, world) as page:
        page.goto(link(world, callback))
        page.get_by_role("button", name="Allow this").click()
        arrived(page, callback)
        page.go_back()
        assert page.get_by_role("heading", level=1).inner_text() == "You have answered this"


def test_two_presses_are_one_grant(browser: Browser, world: World, callback: Callback) -> None:
    before = world._newest_event()
    with signed_in_page(browser, world) as page:
        page.goto(link(world, callback))
        page.get_by_role("button", name="Allow this").dblclick(no_wait_after=True)
        told = arrived(page, callback)
    assert claimed(world, callback, told["code"])["access_token"]
    created = [event for event in world.events(after=before) if event["event"] == "delegation.created"]
    assert len(created) == 1


def test_it_works_without_javascript(browser: Browser, world: World, callback: Callback) -> None:
    with person(browser, world, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(link(world, callback))
        page.get_by_label("User name").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)
        page.locator("form[action$='/sign-in'] button").first.click()
        page.get_by_role("button", name="Allow this").click()
        told = arrived(page, callback)
    assert claimed(world, callback, told["code"])["access_token"]


def test_an_attackers_link_shows_who_asks_and_the_attacker_gets_nothing_from_it(
    browser: Browser, world: World, callback: Callback
) -> None:
    """RFC 9700 §4.7: the code goes to the agent's own address, and only its verifier can use it."""
    lured = link(world, callback)
    add_user(world, "mallory")
    with signed_in_page(browser, world) as victim, person(browser, world) as attackers:
        victim.goto(lured)
        consent = victim.url
        attacker = attackers.new_page()
        attacker.goto("/sign-in")
        sign_in(attacker, "mallory")
        for there in (lured, consent):
            attacker.goto(there)
            assert attacker.get_by_role("button", name="Allow this").count() == 0
        victim.get_by_role("button", name="Say no").click()
        arrived(victim, callback)


def test_A84_the_page_shows_in_no_frame(browser: Browser, world: World, callback: Callback) -> None:
    with signed_in_page(browser, world) as page:
        page.goto(link(world))
        consent = page.url
        page.goto(callback.uri.replace("/callback", "/attack"))
        page.set_content(f'<iframe src="{consent}" width="800" height="600"></iframe>')
        page.wait_for_timeout(300)
        assert all("Allow this" not in frame.content() for frame in page.frames)


@contextmanager
def kettle(world: World) -> Iterator[dict[str, Any]]:
    """A device that asks."""
    body: dict[str, Any] = ask_by_device(world, {"User-Agent": "Kettle/2.1"}).json()
    yield body


def test_a_device_on_a_narrow_screen(browser: Browser, world: World) -> None:
    with kettle(world) as asked, signed_in_page(browser, world, viewport=SIZES["narrow"]) as page:
        page.goto(asked["verification_uri_complete"])
        assert page.get_by_label("The code on your device").input_value() == asked["user_code"]
        page.get_by_role("button", name="Look what it asks").click()
        shown = page.get_by_role("region", name="The device that asks").inner_text()
        for fact in (
            asked["user_code"],
            "127.0.0.1",
            "Kettle/2.1",
            "Go on only if you started this yourself",
        ):
            assert fact in shown
        page.get_by_role("button", name="Allow this").click()
        assert page.get_by_role("heading", level=1).inner_text() == "Allowed"
        page.go_back()
        assert page.get_by_role("heading", level=1).inner_text() == "Allowed"
        assert poll(world, asked["device_code"]).status_code == 200


def test_an_unknown_code_is_said_so(browser: Browser, world: World) -> None:
    with signed_in_page(browser, world) as page:
        page.goto("/device")
        page.get_by_label("The code on your device").fill("bbbb bbbb")
        page.get_by_role("button", name="Look what it asks").click()
        assert "There is no such code" in page.get_by_role("alert").inner_text()


def test_an_expired_page_says_so(browser: Browser, sqlite_world: World) -> None:
    register_redirect_uris(sqlite_world, CALLBACK)
    with signed_in_page(browser, sqlite_world) as page:
        page.goto(link(sqlite_world))
        sqlite_world.clock.advance(seconds=300)
        page.get_by_role("button", name="Allow this").click()
        assert page.get_by_role("heading", level=1).inner_text() == "This request has expired"


def test_an_agents_name_with_look_alike_letters_is_marked(browser: Browser, sqlite_world: World) -> None:
    from authserver.schema import Agent, table_of

    agents = table_of(Agent)
    change = agents.update().where(agents.c.client_id == "basket-helper")
    named = change.values(name="Bаsket\u200b Helper", owner="Example Foods")
    sqlite_world.services.database.write(lambda connection: connection.execute(named))
    with signed_in_page(browser, sqlite_world) as page:
        page.goto(link(sqlite_world))
        assert "has letters that look like others (Cyrillic)" in page.locator("dl.facts").inner_text()
        assert "\u200b" not in page.content()
        assert "Example Foods" in page.locator("dl.facts").inner_text()


@pytest.mark.parametrize(("size", "scheme"), LOOKS)
def test_every_page_of_consent_can_be_read_by_everybody(
    browser: Browser, world: World, size: str, scheme: Any
) -> None:
    look = f"{size}-{scheme}"
    options: dict[str, Any] = {"viewport": SIZES[size], "color_scheme": scheme}
    options["locale"] = "nl-NL" if (size, scheme) == ("narrow", "dark") else "en-GB"
    with kettle(world) as asked, signed_in_page(browser, world, **options) as page:
        page.goto(link(world, details=world.delegation(**EVERYTHING)))
        looks_right(page, "consent", look)
        page.locator("input[name=total]").fill("3000")
        page.locator("button[value=allow]").click()
        looks_right(page, "consent-wrong", look)
        page.goto("/device?user_code=BBBB-BBBB")
        looks_right(page, "device", look)
        page.goto(asked["verification_uri_complete"])
        page.locator("main form button").click()
        looks_right(page, "consent-device", look)
        page.locator("button[value=allow]").click()
        looks_right(page, "answered", look)
        page.goto("/oauth/authorize?client_id=x&request_uri=y")
        looks_right(page, "no-request", look)
        page.goto(link(world, acr_values="of-nobody"))
        looks_right(page, "cannot-allow", look)
