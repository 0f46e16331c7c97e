"""Passkeys: made by a link or on the account page, used to sign in, and all that must not work (threats A118)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from authserver import register
from authserver.register import parse_user
from tests.pages.authenticator import Forger, VirtualAuthenticator
from tests.pages.browser import Visit, add_user, csrf_of, person, signed_in, signed_in_page, visitor
from tests.world import World


def enrolment_of(world: World, username: str) -> str:
    """The link that `users create` prints."""
    new, now = parse_user({"username": username}), world.clock.now()
    return world.services.database.write(
        lambda connection: register.create_user(connection, new, world.issuer, "operator", now)
    ).enrolment_url


def test_S17_a_link_makes_a_passkey_and_the_passkey_signs_in(browser: Browser, named_world: World) -> None:
    with person(browser, named_world) as context:
        page = context.new_page()
        authenticator = VirtualAuthenticator.of(page)
        link = enrolment_of(named_world, "grace")
        page.goto(link)
        page.get_by_role("button", name="Make a passkey").click()
        page.wait_for_url("**/")
        assert len(authenticator.credentials()) == 1
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/sign-in")
        page.get_by_role("button", name="Sign in with a passkey").click()
        page.wait_for_url("**/")
        expect(page.get_by_text("Signed in as grace")).to_be_visible()
        assert page.goto(link).status == 404  # type: ignore[union-attr]
    assert [e["event"] for e in named_world.events()][-4:] == [
        "passkey.added",
        "sign_in.permitted",
        "session.ended",
        "sign_in.permitted",
    ]


def test_a_passkey_is_added_and_removed_on_the_account_page(browser: Browser, named_world: World) -> None:
    with signed_in_page(browser, named_world) as page:
        VirtualAuthenticator.of(page)
        page.goto("/account")
        page.get_by_role("button", name="Add a passkey").click()
        expect(page.get_by_text("never used")).to_be_visible()
        page.get_by_role("button", name="Remove").click()
        expect(page.get_by_text("never used")).to_have_count(0)


def test_who_is_not_verified_by_the_device_does_not_get_in(browser: Browser, named_world: World) -> None:
    with person(browser, named_world) as context:
        page = context.new_page()
        authenticator = VirtualAuthenticator.of(page)
        page.goto(enrolment_of(named_world, "grace"))
        page.get_by_role("button", name="Make a passkey").click()
        page.wait_for_url("**/")
        page.get_by_role("button", name="Sign out").click()
        authenticator.is_there(False)
        page.get_by_role("button", name="Sign in with a passkey").click()
        expect(page.get_by_role("alert")).to_have_text(
            "No passkey was used. Try again, or use your password."
        )


def test_there_are_no_passkeys_at_a_bare_address(sqlite_world: World) -> None:
    with visitor(sqlite_world) as client:
        page = client.get("/sign-in")
        assert "passkey" not in page.text
        answer = client.post("/sign-in/passkey/options", data={"csrf": csrf_of(page)})
        assert answer.status_code == 404


# --- what no browser would send -------------------------------------------------------------------------------------


@contextmanager
def with_a_passkey(world: World) -> Iterator[Forger]:
    """A software authenticator whose key Ada has on record with counter 0."""
    forger = Forger(world.issuer, "localhost", user_handle=add_user(world, "ada").encode())
    with signed_in(world) as visit:
        challenge = visit.post("/account/passkeys/options").json()["challenge"]
        assert visit.post("/account/passkeys", answer=forger.made(challenge)).status_code == 303
    yield forger


def attempt(client: httpx.Client, answer: Callable[[str], str]) -> httpx.Response:
    """Sign in with what `answer` makes of the challenge."""
    csrf = csrf_of(client.get("/sign-in"))
    challenge = client.post("/sign-in/passkey/options", data={"csrf": csrf}).json()["challenge"]
    return client.post("/sign-in/passkey", data={"csrf": csrf, "answer": answer(challenge)})


def is_refused(world: World, answer: httpx.Response, rule: str) -> None:
    assert answer.status_code == 403, answer.text
    assert "session" not in answer.cookies
    assert "That passkey was not accepted" in answer.text
    assert world.events()[-1]["event"] == "sign_in.refused"
    assert world.events()[-1]["rule"] == rule


def test_the_software_authenticator_signs_in_when_it_says_the_truth(named_world: World) -> None:
    with with_a_passkey(named_world) as forger, visitor(named_world) as client:
        assert attempt(client, lambda challenge: forger.signed(challenge, 1)).status_code == 303
        assert client.get("/account").status_code == 200


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"origin": "https://evil.example"}, "passkey.assertion"),
        ({"origin": "http://localhost.evil.example"}, "passkey.assertion"),
        ({"rp_id": "evil.example"}, "passkey.assertion"),
        ({"flags": 0x01}, "passkey.assertion"),
        ({"flags": 0x04}, "passkey.assertion"),
        ({"user_handle": b"somebody else"}, "passkey.user_handle"),
        ({"credential_id": b"x" * 32}, "passkey.unknown"),
        ({"key": Forger("", "").key}, "passkey.assertion"),
    ],
)
def test_A118_another_origin_user_or_key_is_refused(
    named_world: World, changes: dict[str, Any], rule: str
) -> None:
    with with_a_passkey(named_world) as forger, visitor(named_world) as client:
        liar = replace(forger, **changes)
        is_refused(named_world, attempt(client, lambda challenge: liar.signed(challenge, 1)), rule)


def test_A118_a_challenge_is_taken_once_and_from_one_browser(named_world: World) -> None:
    with with_a_passkey(named_world) as forger, visitor(named_world) as client, visitor(named_world) as other:
        sent: list[str] = []

        def answer(challenge: str) -> str:
            sent.append(forger.signed(challenge, 1))
            return sent[0]

        assert attempt(client, answer).status_code == 303
        again = client.post(
            "/sign-in/passkey", data={"csrf": csrf_of(other.get("/sign-in")), "answer": sent[0]}
        )
        assert again.status_code == 403
        csrf = csrf_of(other.get("/sign-in"))
        replayed = other.post("/sign-in/passkey", data={"csrf": csrf, "answer": sent[0]})
        is_refused(named_world, replayed, "passkey.challenge")
        stolen = visitor(named_world)
        theirs = csrf_of(stolen.get("/sign-in"))
        challenge = stolen.post("/sign-in/passkey/options", data={"csrf": theirs}).json()["challenge"]
        answered = other.post("/sign-in/passkey", data={"csrf": csrf, "answer": forger.signed(challenge, 2)})
        is_refused(named_world, answered, "passkey.challenge")
        stolen.close()


def test_A118_a_challenge_is_too_old_after_ten_minutes(named_world: World) -> None:
    with with_a_passkey(named_world) as forger, visitor(named_world) as client:

        def late(challenge: str) -> str:
            named_world.clock.advance(minutes=11)
            return forger.signed(challenge, 1)

        is_refused(named_world, attempt(client, late), "passkey.challenge")


def test_A118_a_failed_try_uses_its_challenge_up(named_world: World) -> None:
    with with_a_passkey(named_world) as forger, visitor(named_world) as client:
        csrf = csrf_of(client.get("/sign-in"))
        challenge = client.post("/sign-in/passkey/options", data={"csrf": csrf}).json()["challenge"]
        liar = replace(forger, origin="https://evil.example")
        for answer, rule in ((liar, "passkey.assertion"), (forger, "passkey.challenge")):
            form = {"csrf": csrf, "answer": answer.signed(challenge, 1)}
            is_refused(named_world, client.post("/sign-in/passkey", data=form), rule)


def test_A118_a_counter_that_goes_back_is_refused(named_world: World) -> None:
    with with_a_passkey(named_world) as forger, visitor(named_world) as client:
        assert attempt(client, lambda challenge: forger.signed(challenge, 7)).status_code == 303
    for counter in (7, 6, 0):
        with visitor(named_world) as client:
            answer = attempt(client, lambda challenge, counter=counter: forger.signed(challenge, counter))  # type: ignore[misc]
            is_refused(named_world, answer, "passkey.assertion")


@pytest.mark.parametrize(
    "answer",
    ["", "{}", "[]", "null", "x", '{"id":"a","rawId":"a","type":"public-key","response":{}}', "9" * 5000],
)
def test_what_is_no_answer_is_refused_and_never_a_fault(named_world: World, answer: str) -> None:
    add_user(named_world, "ada")
    with visitor(named_world) as client:
        is_refused(named_world, attempt(client, lambda challenge: answer), "passkey.malformed")
    with signed_in(named_world) as visit:
        assert visit.post("/account/passkeys", answer=answer).status_code == 400


def test_A118_a_passkey_of_another_origin_is_not_kept(named_world: World) -> None:
    add_user(named_world, "ada")
    with signed_in(named_world) as visit:
        for changes in ({"origin": "https://evil.example"}, {"rp_id": "evil.example"}, {"flags": 0x01}):
            challenge = visit.post("/account/passkeys/options").json()["challenge"]
            liar = replace(Forger(named_world.issuer, "localhost"), **changes)  # type: ignore[arg-type]
            assert visit.post("/account/passkeys", answer=liar.made(challenge)).status_code == 400
        assert "never used" not in visit.get("/account").text


def test_a_passkey_is_one_persons(named_world: World) -> None:
    with with_a_passkey(named_world) as forger, signed_in(named_world, "eve") as eve:
        challenge = eve.post("/account/passkeys/options").json()["challenge"]
        assert eve.post("/account/passkeys", answer=forger.made(challenge)).status_code == 409


def test_the_only_way_to_sign_in_is_not_removed(named_world: World) -> None:
    with visitor(named_world) as client:
        link = enrolment_of(named_world, "grace").removeprefix(named_world.issuer)
        csrf = csrf_of(client.get(link))
        challenge = client.post(f"{link}/passkey/options", data={"csrf": csrf}).json()["challenge"]
        forger = Forger(named_world.issuer, "localhost")
        form = {"csrf": csrf, "answer": forger.made(challenge)}
        assert client.post(f"{link}/passkey", data=form).status_code == 303
        account = client.get("/account")
        visit = Visit(client, csrf_of(account))
        path = account.text.partition('action="/account/passkeys/')[2].partition('"')[0]
        last = visit.post(f"/account/passkeys/{path}")
        assert last.status_code == 409
        assert "It is your only way to sign in" in last.text
        assert "never used" in client.get("/account").text
