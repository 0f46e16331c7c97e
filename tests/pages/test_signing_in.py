"""Signing in with a password, sessions, and what ends them (threats A84, A114, A117)."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from authserver.pages.answers import local_path
from authserver.schema import Session, User, table_of
from tests.attacks.making import change
from tests.pages.browser import PASSWORD, Visit, add_user, csrf_of, signed_in, visitor
from tests.pages.test_passkeys import enrolment_of
from tests.world import World, running_world

NEW = "an entirely new password"


def attempt(client: httpx.Client, username: str, password: str, **form: str) -> httpx.Response:
    """Try a password."""
    csrf = csrf_of(client.get("/sign-in?again=1"))
    return client.post("/sign-in", data={"csrf": csrf, "username": username, "password": password} | form)


def rows(world: World) -> list[Any]:
    """The sessions that there are."""
    return world.services.database.read(lambda c: c.execute(select(table_of(Session))).all())


# --- passwords ------------------------------------------------------------------------------------------------------


def test_S17_a_link_sets_a_password_once_and_within_a_day(world: World) -> None:
    path = enrolment_of(world, "grace").removeprefix(world.issuer)
    with visitor(world) as client, visitor(world) as second:
        form = {"csrf": csrf_of(client.get(path)), "password": NEW, "repeated": NEW}
        other = {"csrf": csrf_of(second.get(path)), "password": NEW, "repeated": NEW}
        assert client.post(path, data=form | {"repeated": "another password"}).status_code == 400
        assert client.post(path, data=form | {"password": "short", "repeated": "short"}).status_code == 400
        assert client.post(path, data=form).status_code == 303
        assert client.get("/account").status_code == 200
        assert second.post(path, data=other).status_code == 404
        assert second.get(path).status_code == 404
        assert attempt(second, "grace", NEW).status_code == 303
        late = enrolment_of(world, "henry").removeprefix(world.issuer)
        world.clock.advance(days=1)
        assert second.get(late).status_code == 404


def test_of_two_who_use_a_link_at_once_one_gets_in(world: World) -> None:
    path = enrolment_of(world, "grace").removeprefix(world.issuer)
    together = threading.Barrier(4)

    def use(number: int) -> int:
        with visitor(world) as client:
            form = {
                "csrf": csrf_of(client.get(path)),
                "password": f"{NEW} {number}",
                "repeated": f"{NEW} {number}",
            }
            together.wait()
            return client.post(path, data=form).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(use, range(4))) == [303, 404, 404, 404]


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("ada", "wrong"),
        ("ada", ""),
        ("nobody", PASSWORD),
        ("", ""),
        ("ada'--", PASSWORD),
        ("ADA", PASSWORD),
        ("é" * 50, PASSWORD),
        ("ada", "x" * 5000),
    ],
)
def test_A117_whoever_fails_gets_one_answer(sqlite_world: World, username: str, password: str) -> None:
    add_user(sqlite_world, "ada")
    with visitor(sqlite_world) as client:
        answer = attempt(client, username, password)
        known = attempt(client, "ada", "wrong")
    assert answer.status_code == known.status_code == 403
    assert "The user name or the password is not right." in answer.text
    assert "session" not in answer.cookies
    assert sqlite_world.events()[-1]["event"] == "sign_in.refused"
    assert answer.headers.keys() == known.headers.keys()


def test_A117_it_takes_as_long_where_there_is_no_such_user(sqlite_world: World) -> None:
    add_user(sqlite_world, "ada")
    times: dict[str, list[float]] = {"ada": [], "nobody": []}
    with visitor(sqlite_world) as client:
        csrf = csrf_of(client.get("/sign-in"))
        for _ in range(6):
            for username, taken in times.items():
                begun = time.perf_counter()
                form = {"csrf": csrf, "username": username, "password": "wrong"}
                assert client.post("/sign-in", data=form).status_code == 403
                taken.append(time.perf_counter() - begun)
    # One hash is most of it: without one, an answer would take a tenth of the time.
    assert 0.4 < median(times["nobody"]) / median(times["ada"]) < 2.5


@pytest.fixture
def bounded(database_url: str, tmp_path: Path) -> Iterator[World]:
    """A server that lets nobody try more than three times, on each database."""
    with running_world(database_url, tmp_path / "world", pages={"tries_per_account": 3}) as world:
        add_user(world, "ada")
        yield world


def test_A117_tries_are_bounded_for_an_account_whoever_asks(bounded: World) -> None:
    for username in ("ada", "nobody"):
        for number in range(3):
            with visitor(bounded) as client:
                assert attempt(client, username, f"wrong {number}").status_code == 403
        with visitor(bounded) as client:
            for password in ("wrong", PASSWORD):
                answer = attempt(client, username, password)
                assert answer.status_code == 429
                assert int(answer.headers["retry-after"]) > 0
                assert "Too many tries" in answer.text
    assert bounded.events()[-1]["rule"] == "sign_in.too_many"
    bounded.clock.advance(minutes=15)
    with visitor(bounded) as client:
        # Whoever signs in begins anew with counting.
        for _ in range(2):
            assert [attempt(client, "ada", "wrong").status_code for _ in range(2)] == [403, 403]
            assert attempt(client, "ada", PASSWORD).status_code == 303


def test_A117_tries_at_once_are_counted_each(bounded: World) -> None:
    with visitor(bounded) as client:
        csrf = csrf_of(client.get("/sign-in"))
        cookies = dict(client.cookies)

    def one(number: int) -> int:
        form = {"csrf": csrf, "username": "ada", "password": f"wrong {number}"}
        return httpx.post(f"{bounded.url}/sign-in", data=form, cookies=cookies, timeout=60).status_code

    with ThreadPoolExecutor(6) as pool:
        codes = list(pool.map(one, range(8)))
    assert (codes.count(403), codes.count(429)) == (3, 5)


def test_A117_tries_are_bounded_for_an_address_whatever_the_account(sqlite_url: str, tmp_path: Any) -> None:
    pages = {"tries_per_address": 5, "proxies": 1}
    with running_world(sqlite_url, tmp_path / "world", pages=pages) as world:
        add_user(world, "ada")
        for number in range(5):
            with visitor(world, **{"X-Forwarded-For": f"9.9.9.9, 2001:db8::{number}"}) as client:
                assert attempt(client, f"user{number}", "wrong").status_code == 403
        # What stands before the proxy's own word is the client's, and changes nothing; a /64 is one household.
        with visitor(world, **{"X-Forwarded-For": "1.2.3.4, 2001:db8::ffff"}) as client:
            assert attempt(client, "ada", PASSWORD).status_code == 429
        with visitor(world, **{"X-Forwarded-For": "2001:db8:0:1::1"}) as client:
            assert attempt(client, "ada", PASSWORD).status_code == 303


def test_A117_nobody_who_is_not_signed_in_fills_the_database_with_challenges(
    sqlite_url: str, tmp_path: Any
) -> None:
    pages = {"tries_per_address": 3}
    with running_world(sqlite_url, tmp_path / "world", host="localhost", pages=pages) as world:
        got = []
        for _ in range(5):
            with visitor(world) as client:
                form = {"csrf": csrf_of(client.get("/sign-in"))}
                got.append(client.post("/sign-in/passkey/options", data=form).status_code)
    assert got == [200, 200, 200, 429, 429]


# --- sessions -------------------------------------------------------------------------------------------------------


def test_A114_a_session_has_a_new_secret_at_each_sign_in_and_only_its_hash_is_kept(
    sqlite_world: World,
) -> None:
    add_user(sqlite_world, "ada")
    with visitor(sqlite_world) as client:
        client.cookies.set("session", "chosen-by-an-attacker", domain="127.0.0.1")
        first = attempt(client, "ada", PASSWORD).cookies["session"]
        assert first != "chosen-by-an-attacker"
        second = attempt(client, "ada", PASSWORD, next="/account").cookies["session"]
        assert second != first
        (row,) = rows(sqlite_world)  # signing in anew takes the place of the session before
        assert second.encode() not in row.secret_hash
        assert len(row.secret_hash) == 32
    with visitor(sqlite_world) as thief:
        thief.cookies.set("session", first)
        assert thief.get("/account").status_code == 303


def test_A114_the_cookie_is_for_this_host_alone_and_out_of_reach_of_scripts(
    sqlite_url: str, tmp_path: Any
) -> None:
    settings = {"server": {"issuer": "https://auth.example"}}
    with running_world(sqlite_url, tmp_path / "world", **settings) as world:
        add_user(world, "ada")
        with httpx.Client(base_url=world.url, headers={"Origin": "https://auth.example"}) as client:
            page = client.get("/sign-in")
            visit = page.headers["set-cookie"]
            cookie = {"Cookie": visit.partition(";")[0]}
            form = {"csrf": csrf_of(page), "username": "ada", "password": PASSWORD}
            client.cookies.clear()
            answer = client.post("/sign-in", data=form, headers=cookie)
        for said, name in ((visit, "__Host-visitor"), (answer.headers["set-cookie"], "__Host-session")):
            assert said.startswith(f"{name}=")
            parts = [part.strip() for part in said.split(";")]
            assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(parts)
            assert not any(part.lower().startswith("domain") for part in parts)


def test_A114_two_cookies_of_one_name_are_none(sqlite_world: World) -> None:
    with signed_in(sqlite_world) as visit:
        secret = visit.client.cookies["session"]
        with visitor(sqlite_world) as client:
            headers = {"Cookie": f"session={secret}; session=another"}
            assert client.get("/account", headers=headers).status_code == 303


def test_A114_a_new_password_ends_every_session_but_the_one_that_set_it(world: World) -> None:
    with signed_in(world) as visit, signed_in(world) as elsewhere:
        before = visit.client.cookies["session"]
        assert visit.post("/account/password", password=NEW, repeated="another one").status_code == 400
        assert visit.post("/account/password", password=NEW, repeated=NEW).status_code == 303
        assert visit.client.cookies["session"] != before
        assert visit.get("/account").status_code == 200
        assert elsewhere.get("/account").status_code == 303
        with visitor(world) as client:
            assert attempt(client, "ada", PASSWORD).status_code == 403
            assert attempt(client, "ada", NEW).status_code == 303


def test_a_session_ends_when_nobody_uses_it_and_at_the_latest_after_twelve_hours(sqlite_world: World) -> None:
    with signed_in(sqlite_world) as visit:
        for _ in range(27):
            sqlite_world.clock.advance(minutes=26)
            assert visit.get("/account").status_code == 200
        sqlite_world.clock.advance(minutes=26)
        assert visit.get("/account").status_code == 303
    with signed_in(sqlite_world) as visit:
        sqlite_world.clock.advance(minutes=30)
        assert visit.get("/account").status_code == 303


def test_one_session_is_ended_from_another_and_never_anybody_elses(sqlite_world: World) -> None:
    with (
        signed_in(sqlite_world) as visit,
        signed_in(sqlite_world) as lost,
        signed_in(sqlite_world, "eve") as eve,
    ):
        page = visit.get("/account").text
        session_id = page.partition("/account/sessions/")[2].partition("/end")[0]
        assert eve.post(f"/account/sessions/{session_id}/end").status_code == 303
        assert lost.get("/account").status_code == 200
        assert visit.post(f"/account/sessions/{session_id}/end").status_code == 303
        assert lost.get("/account").status_code == 303
        assert visit.get("/account").status_code == 200


def test_a_disabled_user_is_signed_out_at_once(sqlite_world: World) -> None:
    with signed_in(sqlite_world) as visit:
        change(sqlite_world, User, {"username": "ada"}, disabled_at=sqlite_world.clock.now())
        assert visit.get("/account").status_code == 303
        assert attempt(visit.client, "ada", PASSWORD).status_code == 403


def test_what_is_grave_takes_a_recent_sign_in(sqlite_world: World) -> None:
    with signed_in(sqlite_world) as visit:
        sqlite_world.clock.advance(seconds=301)
        answer = visit.post("/account/password", password=NEW, repeated=NEW)
        assert answer.headers["location"].endswith("&again=1")
        page = visit.get(answer.headers["location"])
        assert "Is it you?" in page.text
        assert 'value="ada"' in page.text
        assert attempt(visit.client, "ada", PASSWORD).status_code == 303
        again = Visit(visit.client, csrf_of(visit.get("/account")))
        assert again.post("/account/password", password=NEW, repeated=NEW).status_code == 303


def test_signing_out_ends_the_session_itself(sqlite_world: World) -> None:
    with signed_in(sqlite_world) as visit:
        secret = visit.client.cookies["session"]
        assert visit.client.post("/sign-out", data={"csrf": "x"}).status_code == 403
        assert visit.post("/sign-out").headers["location"] == "/sign-in"
        assert "session" not in visit.client.cookies
        visit.client.cookies.set("session", secret)
        assert visit.get("/account").status_code == 303
    assert rows(sqlite_world) == []


# --- forged requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("csrf", [None, "", "x", "stolen"])
def test_A114_nobody_is_signed_in_by_a_form_of_another_browser(sqlite_world: World, csrf: str | None) -> None:
    add_user(sqlite_world, "eve")
    with visitor(sqlite_world) as attacker, visitor(sqlite_world) as victim:
        stolen = csrf_of(attacker.get("/sign-in"))
        victim.get("/sign-in")
        form = {"username": "eve", "password": PASSWORD, "csrf": stolen if csrf == "stolen" else csrf}
        sent = {name: value for name, value in form.items() if value is not None}
        answer = victim.post("/sign-in", data=sent)
        assert answer.status_code == 403
        assert "This page is out of date" in answer.text
        assert "session" not in answer.cookies
    assert sqlite_world.events()[-1]["rule"] == "page.csrf"


@pytest.mark.parametrize(
    ("unverified", "path"),
    [
        ("/account", "/account"),
        ("/delegations/x?before=5", "/delegations/x?before=5"),
        (None, "/"),
        ("", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/ok\r\nSet-Cookie: a=b", "/"),
        ("/\t/evil.example", "/"),
        ("/é", "/"),
        ("/" + "x" * 3000, "/"),
        ("account", "/"),
    ],
)
def test_A110_signing_in_leads_to_pages_of_this_server_only(unverified: str | None, path: str) -> None:
    assert local_path(unverified) == path


def test_A84_no_page_may_be_framed_and_no_get_changes_anything(sqlite_world: World) -> None:
    granted = sqlite_world.granted()
    with signed_in(sqlite_world) as visit:
        for path in ("/", "/account", f"/delegations/{granted.grant_id}", "/sign-in?again=1"):
            answer = visit.get(path)
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        for path in ("/sign-out", "/account/password", "/account/passkeys", "/language"):
            assert visit.get(path).status_code == 405


def test_the_language_is_the_browsers_until_somebody_chooses(sqlite_world: World) -> None:
    with visitor(sqlite_world, **{"Accept-Language": "nl;q=0.9,fr"}) as client:
        page = client.get("/sign-in")
        assert (page.headers["content-language"], 'lang="nl"' in page.text) == ("nl", True)
        answer = client.post("/language", data={"language": "en", "next": "//evil.example"})
        assert answer.headers["location"] == "/"
        assert "Sign in" in client.get("/sign-in").text
        client.post("/language", data={"language": "xx"})
        assert "Sign in" in client.get("/sign-in").text


def test_pages_work_below_a_path(sqlite_url: str, tmp_path: Any) -> None:
    with running_world(sqlite_url, tmp_path / "world", issuer_path="/tenant") as world:
        add_user(world, "ada")
        with visitor(world) as client:
            first = client.get("/account")
            assert first.headers["location"] == "/tenant/sign-in?next=%2Faccount"
            answer = attempt(client, "ada", PASSWORD, next="/account")
            assert answer.headers["location"] == "/tenant/account"
            page = client.get("/account").text
            assert 'action="/tenant/account/password"' in page
            style = page.partition('rel="stylesheet" href="')[2].partition('"')[0]
            assert httpx.get(f"{world.url}{style}").status_code == 200
