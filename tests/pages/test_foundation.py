"""The frame of all pages: who gets in, what is refused, and what every answer says to the browser."""

import httpx
import pytest
from playwright.sync_api import Browser

from tests.pages.browser import PASSWORD, add_user, csrf_of, signed_in, signed_in_page, visitor
from tests.world import World


def test_signing_in_leads_to_where_one_wanted_to_be(sqlite_world: World) -> None:
    add_user(sqlite_world, "ada")
    with visitor(sqlite_world) as client:
        first = client.get("/account")
        assert (first.status_code, first.headers["location"]) == (303, "/sign-in?next=%2Faccount")
        page = client.get(first.headers["location"])
        form = {"csrf": csrf_of(page), "username": "ada", "password": PASSWORD, "next": "/account"}
        answer = client.post("/sign-in", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/account")
        assert client.get("/account").status_code == 200


@pytest.mark.parametrize("path", ["/", "/account"])
def test_every_page_has_a_strict_policy(sqlite_world: World, path: str) -> None:
    with signed_in(sqlite_world) as visit:
        page = visit.get(path)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "form-action 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"


def test_a_browser_shows_the_page_with_its_styles_and_without_complaints(
    browser: Browser, sqlite_world: World
) -> None:
    with signed_in_page(browser, sqlite_world) as page:
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto("/account")
        assert page.get_by_role("heading", name="Account").is_visible()
        assert page.evaluate("getComputedStyle(document.querySelector('.card')).borderRadius") != "0px"
        assert page.evaluate("typeof htmx") == "object"
    assert complaints == []


def test_what_is_not_there_is_a_page_to_a_browser_and_json_to_a_program(sqlite_world: World) -> None:
    with visitor(sqlite_world) as client:
        page = client.get("/nowhere")
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    answer = httpx.get(f"{sqlite_world.url}/nowhere")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
