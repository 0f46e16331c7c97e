"""Signing in with an upstream OpenID provider, a real one over HTTP; and what a forged answer comes to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.pages.browser import Visit, add_user, csrf_of, person, visitor
from tests.pages.openid import Provider, running_provider
from tests.world import World, running_world


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """One provider for all tests of this module; each begins with an honest one."""
    with running_provider() as provider:
        yield provider


@pytest.fixture
def upstream(provider: Provider, sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    """A server that trusts it."""
    provider.wrong, provider.answer, provider.stranger = {}, {}, False
    provider.claims = {"sub": "u-1", "email": "ada", "email_verified": True, "name": "Ada L."}
    settings = provider.settings(groups_claim="groups", create_users=True)
    with running_world(sqlite_url, tmp_path / "world", upstream=settings) as world:
        provider.now = world.clock.now
        yield world


def go(client: httpx.Client, path: str = "/sign-in/upstream?next=/account") -> httpx.Response:
    """To the provider and back; the answer to what the browser brings back."""
    client.get("/sign-in")
    there = client.get(path)
    assert there.status_code == 303, there.text
    back = httpx.get(there.headers["location"])
    return client.get(back.headers["location"])


def is_refused(world: World, answer: httpx.Response, rule: str) -> None:
    assert answer.status_code == 403, answer.text
    assert "session" not in answer.cookies
    assert (world.events()[-1]["event"], world.events()[-1]["rule"]) == ("sign_in.refused", rule)


def test_S17_somebody_signs_in_with_the_provider(
    browser: Browser, upstream: World, provider: Provider
) -> None:
    with person(browser, upstream) as context:
        page = context.new_page()
        page.goto("/account")
        page.get_by_role("button", name="Sign in with Example Login").click()
        page.wait_for_url("**/account")
        expect(page.get_by_text("Signed in as Ada", exact=True)).to_be_visible()
    asked = provider.asked[-1]
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert upstream.events()[-1]["data"]["amr"] == ["otp"]


def test_from_the_second_time_on_it_is_the_subject_that_counts(upstream: World, provider: Provider) -> None:
    for claims in ({}, {"email": "renamed"}, {"email_verified": False}):
        provider.claims |= claims
        with visitor(upstream) as client:
            assert go(client).headers["location"] == "/account"
            assert "Signed in as Ada<" in client.get("/account").text
    # Who gets that name at the provider afterwards is somebody else.
    provider.claims = {"sub": "u-2", "email": "ada", "email_verified": True}
    with visitor(upstream) as client:
        is_refused(upstream, go(client), "upstream.linked")


def test_a_new_person_becomes_a_user_and_groups_follow_the_provider(
    upstream: World, provider: Provider
) -> None:
    provider.claims = {"sub": "u-9", "email": "grace@example.org", "email_verified": True, "name": "Grace"}
    for groups in (["payments-duty", "Not A Group"], []):
        provider.claims["groups"] = groups
        with visitor(upstream) as client:
            assert go(client).status_code == 303
            assert "Signed in as Grace" in client.get("/account").text
    changes = [e["data"] for e in upstream.events() if e["event"] == "user.changed"]
    assert [data["user"]["groups"] for data in changes] == [["payments-duty"], []]


def test_to_prove_it_again_the_provider_asks_anew(upstream: World, provider: Provider) -> None:
    path = "/sign-in/upstream?next=/account&again=1"
    with visitor(upstream) as client:
        assert go(client, path).status_code == 303
        assert (provider.asked[-1]["prompt"], provider.asked[-1]["max_age"]) == ("login", "0")
    for auth_time in (None, int(upstream.clock.now().timestamp()) - 3600):
        provider.wrong = {"auth_time": auth_time}
        with visitor(upstream) as client:
            is_refused(upstream, go(client, path), "upstream.auth_time")


def test_a_sign_in_of_an_hour_ago_at_the_provider_is_not_a_recent_one(
    upstream: World, provider: Provider
) -> None:
    provider.wrong = {"auth_time": int(upstream.clock.now().timestamp()) - 3600}
    with visitor(upstream) as client:
        assert go(client).status_code == 303
        visit = Visit(client, csrf_of(client.get("/account")))
        answer = visit.post("/account/password", password="x" * 12, repeated="x" * 12)
        assert answer.headers["location"].endswith("&again=1")


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "nonce": ({"nonce": "another"}, "upstream.nonce"),
    "no nonce": ({"nonce": None}, "upstream.nonce"),
    "audience": ({"aud": "another"}, "upstream.id_token_assertion.audience"),
    "issuer": ({"iss": "https://evil.example"}, "upstream.id_token_assertion.unknown_issuer"),
    "expired": ({"exp": 1}, "upstream.id_token_assertion.expired"),
    "party": ({"azp": "another"}, "upstream.azp"),
    "subject": ({"sub": None}, "upstream.id_token_assertion.subject"),
    "not verified": ({"email_verified": False}, "upstream.username"),
    "verified as a text": ({"email_verified": "true"}, "upstream.username"),
    "name": ({"email": "<script>"}, "upstream.username"),
}


@pytest.mark.parametrize(("wrong", "rule"), LIES.values(), ids=LIES.keys())
def test_A114_an_id_token_that_is_not_for_this_is_refused(
    upstream: World, provider: Provider, wrong: dict[str, Any], rule: str
) -> None:
    provider.wrong = wrong
    with visitor(upstream) as client:
        is_refused(upstream, go(client), rule)


def test_A114_an_id_token_of_another_key_is_refused(upstream: World, provider: Provider) -> None:
    provider.stranger = True
    with visitor(upstream) as client:
        is_refused(upstream, go(client), "upstream.id_token_jws.signature")


def test_A112_an_answer_of_another_server_is_refused(upstream: World, provider: Provider) -> None:
    provider.answer = {"iss": "https://evil.example"}
    with visitor(upstream) as client:
        is_refused(upstream, go(client), "upstream.iss")


def test_A114_a_state_is_taken_once_and_from_the_browser_that_began(upstream: World) -> None:
    with visitor(upstream) as attacker, visitor(upstream) as victim:
        for one in (attacker, victim):
            one.get("/sign-in")
        there = attacker.get("/sign-in/upstream").headers["location"]
        back = httpx.get(there).headers["location"]
        # Login CSRF: the attacker's answer in the victim's browser.
        is_refused(upstream, victim.get(back), "upstream.state")
        assert attacker.get(back).status_code == 303
        is_refused(upstream, attacker.get(back), "upstream.state")


@pytest.mark.parametrize(
    "query", ["", "state=x", "state=%00&code=1", "state=é&code=x", "error=access_denied"]
)
def test_an_answer_to_nothing_is_refused(upstream: World, query: str) -> None:
    with visitor(upstream) as client:
        client.get("/sign-in")
        is_refused(upstream, client.get(f"/sign-in/upstream/callback?{query}"), "upstream.state")


def test_who_says_no_at_the_provider_is_told_so(upstream: World, provider: Provider) -> None:
    provider.answer = {"error": "access_denied"}
    with visitor(upstream) as client:
        answer = go(client)
        is_refused(upstream, answer, "upstream.denied")
        assert "Example Login did not sign you in." in answer.text


def test_a_disabled_user_does_not_get_in(upstream: World, provider: Provider) -> None:
    from authserver.schema import User
    from tests.attacks.making import change

    add_user(upstream, "ada")
    change(upstream, User, {"username": "ada"}, disabled_at=upstream.clock.now())
    with visitor(upstream) as client:
        is_refused(upstream, go(client), "upstream.no_user")


def test_where_the_provider_is_away_the_page_says_so(sqlite_url: str, tmp_path: Path) -> None:
    settings = {
        "issuer": "http://127.0.0.1:9",
        "client_id": "c",
        "client_secret": "s",
        "allow_private_network": True,
    }
    with running_world(sqlite_url, tmp_path / "world", upstream=settings) as world, visitor(world) as client:
        client.get("/sign-in")
        answer = client.get("/sign-in/upstream")
        assert answer.status_code == 502
        assert "did not work. Try again." in answer.text


def test_without_a_provider_there_is_no_such_page(sqlite_world: World) -> None:
    with visitor(sqlite_world) as client:
        assert "upstream" not in client.get("/sign-in").text
        assert client.get("/sign-in/upstream").status_code == 404
