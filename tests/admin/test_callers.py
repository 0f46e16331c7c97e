"""Who calls: programs with tokens, whom a trust domain vouches for, and sessions of the console."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from authserver import sign_in
from authserver.accounts.sessions import Visitor
from authserver.actors.workload_files import make_assertion
from authserver.pages import cookies
from tests.admin.scene import BASE, is_problem
from tests.pages.browser import PASSWORD, add_user
from tests.world import PRICE_SCOUT, World, example_org, running_world

ROTATOR = "spiffe://example.org/job/rotator"


@pytest.fixture(scope="module")
def called(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server that gives a role to one workload, and to whoever has one of two claims."""
    directory = tmp_path_factory.mktemp("called") / "world"
    callers = [
        {"trust_domain": "example.org", "subject": ROTATOR, "role": "owner"},
        {"trust_domain": "example.org", "claim": "groups", "value": "night-watch", "role": "revoker"},
        {"trust_domain": "example.org", "claim": "department", "value": "audit", "role": "viewer"},
    ]
    with running_world(module_database, directory, api={"callers": callers}) as running:
        yield running


def bearer(
    world: World, token: str, method: str = "GET", path: str = "/agents", **said: Any
) -> httpx.Response:
    """One request with that token."""
    return world.client.request(method, BASE + path, headers={"Authorization": f"Bearer {token}"}, **said)


def test_a_workload_that_is_configured_has_its_role(called: World) -> None:
    assert bearer(called, called.assertion(ROTATOR)).status_code == 200
    answer = bearer(called, called.assertion(ROTATOR), "POST", "/keys/rotate")
    assert answer.status_code == 201, answer.text
    assert called.events()[-1]["data"]["by"] == f"workload:{ROTATOR}"


def test_a_claim_gives_a_role_where_the_configuration_says_so(called: World) -> None:
    watch = called.assertion(PRICE_SCOUT, groups=["staff", "night-watch"])
    assert bearer(called, watch).status_code == 200
    is_problem(bearer(called, watch, "POST", "/keys/rotate"), 403)
    body = {"agent": "price-scout", "reason": "x", "dry_run": True}
    assert bearer(called, watch, "POST", "/revocations", json=body).status_code == 200
    auditor = called.assertion(PRICE_SCOUT, department="audit")
    assert bearer(called, auditor).status_code == 200
    is_problem(bearer(called, auditor, "POST", "/revocations", json=body), 403)


@pytest.mark.parametrize(
    "claims", [{}, {"groups": "night-watchman"}, {"groups": ["x"]}, {"groups": {"night-watch": True}}]
)
def test_A120_a_workload_without_a_role_may_do_nothing(called: World, claims: dict[str, Any]) -> None:
    is_problem(bearer(called, called.assertion(PRICE_SCOUT, **claims)), 403)


def test_A120_an_assertion_for_somebody_else_or_of_yesterday_is_none(called: World) -> None:
    now = called.clock.now()
    elsewhere = make_assertion(called.domain, ROTATOR, "https://other.example", timedelta(minutes=5), now)
    is_problem(bearer(called, elsewhere), 401)
    expired = make_assertion(
        called.domain, ROTATOR, called.issuer, timedelta(minutes=5), now - timedelta(hours=2)
    )
    is_problem(bearer(called, expired), 401)
    is_problem(bearer(called, called.assertion(ROTATOR)[:-4] + "AAAA"), 401)


def test_A120_an_agents_grant_and_token_open_nothing(called: World) -> None:
    granted = called.granted()
    token = called.exchange(granted.grant).json()["access_token"]
    for own in (granted.grant, token):
        is_problem(bearer(called, own), 401)


# --- sessions -------------------------------------------------------------------------------------------------------


def session(world: World, username: str, role: str | None) -> tuple[dict[str, str], str]:
    """The cookie of somebody who has signed in, and the token that their forms carry."""
    add_user(world, username, role=role)
    begun = sign_in.by_password(
        world.services, username, PASSWORD, Visitor("127.0.0.1", "a browser"), world.clock.now()
    )
    return {"Cookie": f"session={begun.secret}"}, cookies.csrf_of(begun.secret)


def test_somebody_who_is_signed_in_has_their_role(called: World) -> None:
    cookie, csrf = session(called, "olga", "owner")
    assert called.client.get(f"{BASE}/agents", headers=cookie).status_code == 200
    sent = {**cookie, "X-CSRF-Token": csrf, "Origin": called.issuer}
    answer = called.client.post(f"{BASE}/keys/rotate", headers=sent)
    assert answer.status_code == 201, answer.text
    assert called.events()[-1]["data"]["by"].startswith("user:")


@pytest.mark.parametrize(
    "headers", [{}, {"X-CSRF-Token": "wrong"}, {"X-CSRF-Token": "\xe9"}, {"Origin": "https://evil.example"}]
)
def test_A84_a_write_that_a_page_of_another_site_causes_is_refused(
    called: World, headers: dict[str, str]
) -> None:
    cookie, csrf = session(called, "owen", "owner")
    if "Origin" in headers:
        headers = headers | {"X-CSRF-Token": csrf}
    sent = {name: value.encode("latin-1") for name, value in (cookie | headers).items()}
    is_problem(called.client.post(f"{BASE}/keys/rotate", headers=sent), 403)


def test_A120_somebody_without_a_role_or_with_a_wrong_token_beside_the_cookie_gets_nothing(
    called: World,
) -> None:
    nobody, _ = session(called, "ned", None)
    is_problem(called.client.get(f"{BASE}/agents", headers=nobody), 403)
    cookie, _ = session(called, "otto", "owner")
    is_problem(called.client.get(f"{BASE}/agents", headers={**cookie, "Authorization": "Bearer x"}), 401)


def test_nobody_changes_their_own_groups(called: World) -> None:
    cookie, csrf = session(called, "oona", "owner")
    user = called.client.get(f"{BASE}/users", params={"q": "oona"}, headers=cookie).json()["items"][0]
    path = f"{BASE}/users/{user['user_id']}"
    etag = called.client.get(path, headers=cookie).headers["ETag"]
    sent = {**cookie, "X-CSRF-Token": csrf, "If-Match": etag}
    is_problem(called.client.patch(path, json={"groups": ["finance"]}, headers=sent), 403)


def test_a_write_asks_for_somebody_who_has_signed_in_lately(sqlite_world: World) -> None:
    cookie, csrf = session(sqlite_world, "olga", "owner")
    sqlite_world.clock.advance(minutes=20)
    assert sqlite_world.client.get(f"{BASE}/agents", headers=cookie).status_code == 200
    answer = sqlite_world.client.post(f"{BASE}/keys/rotate", headers={**cookie, "X-CSRF-Token": csrf})
    is_problem(answer, 401)
    assert 'error="insufficient_user_authentication", max_age=300' in answer.headers["www-authenticate"]


def test_an_assertion_that_may_be_used_once_is_taken_once(sqlite_url: str, tmp_path: Path) -> None:
    directory = tmp_path / "world"
    domain = {**example_org(directory), "refuse_repeated_jti": True}
    callers = [{"trust_domain": "example.org", "subject": ROTATOR, "role": "viewer"}]
    with running_world(sqlite_url, directory, trust_domains=[domain], api={"callers": callers}) as world:
        once = world.assertion(ROTATOR, jti="only-once")
        assert bearer(world, once).status_code == 200
        is_problem(bearer(world, once), 401)
