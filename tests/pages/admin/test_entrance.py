"""Who gets into the console, and what each role may do there; nothing by a link, a header or a foreign form."""

import re
from typing import Any

import pytest

from tests.attacks.making import named
from tests.pages.admin.scene import ROLES, Company, pages_of
from tests.pages.browser import add_user, signed_in, visitor
from tests.world import World

REVOKING = ("revoke", "revoke-agent", "revoke-all")
# Each form of the console with the least role that may send it.
FORMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "revoke": (
        "/admin/revoke",
        "revoker",
        {"kind": "task", "target": "none", "reason": "a test"},
    ),
    "rotate": ("/admin/keys/rotate", "owner", {}),
    "enable": ("/admin/agents", "operator", {"client_id": "price-scout", "switch": "enable"}),
    "disable": (
        "/admin/agents",
        "operator",
        {"client_id": "price-scout", "switch": "disable", "reason": "a test"},
    ),
    "observe": ("/admin/policies/state", "operator", {"set": "quiet-hours", "state": "observe"}),
    "enforce": ("/admin/policies/state", "owner", {"set": "quiet-hours", "state": "enforce"}),
}


def may(role: str, least: str) -> bool:
    """Whether a role is enough."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(least)


@pytest.mark.parametrize("role", ROLES)
def test_A120_each_role_sees_the_pages_that_are_for_it(company: tuple[World, Company], role: str) -> None:
    world, made = company
    with signed_in(world, role) as visit:
        for name, path in pages_of(world, made).items():
            expected = 200 if may(role, "revoker" if name in REVOKING else "viewer") else 403
            answer = visit.get(path)
            assert answer.status_code == expected, (name, role)
            assert answer.headers["cache-control"] == "no-store"
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert not re.search(r"<[^>]+ (style|on\w+)=|<style|<script>", answer.text), name


@pytest.mark.parametrize("role", [None, "", "admin", "OWNER"])
def test_A120_somebody_without_a_role_finds_no_console(
    company: tuple[World, Company], role: str | None
) -> None:
    world, made = company
    name = f"nobody-{ROLES.index('owner')}-{role}"
    add_user(world, name, role=role)
    with signed_in(world, name) as visit:
        for path in pages_of(world, made).values():
            answer = visit.get(path)
            assert answer.status_code == 404, path
            assert "spiffe:" not in answer.text
        for path, _least, form in FORMS.values():
            assert visit.post(path, **form).status_code == 404


def test_A120_whoever_is_not_signed_in_is_asked_to(company: tuple[World, Company]) -> None:
    world, made = company
    with visitor(world) as client:
        for path in pages_of(world, made).values():
            answer = client.get(path)
            assert answer.status_code == 303, path
            assert answer.headers["location"].startswith("/sign-in?next=%2Fadmin")
        for path, _least, form in FORMS.values():
            answer = client.post(path, data=form)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/sign-in?")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("role", ROLES)
def test_A120_each_role_against_each_form(sqlite_world: World, role: str, form: str) -> None:
    path, least, fields = FORMS[form]
    add_user(sqlite_world, role, role=role)
    with signed_in(sqlite_world, role) as visit:
        before = len(_changes(sqlite_world))
        answer = visit.post(path, **fields, role="owner")  # what is not asked for changes nothing
        if may(role, least):
            assert answer.status_code in (200, 303), answer.text
            assert len(_changes(sqlite_world)) == before + 1
        else:
            assert answer.status_code == 403
            assert len(_changes(sqlite_world)) == before


@pytest.mark.parametrize("role", ROLES)
def test_A120_a_page_shows_only_what_the_role_may_do(company: tuple[World, Company], role: str) -> None:
    world, made = company
    with signed_in(world, role) as visit:
        for path in (
            "/admin/agents/basket-helper",
            f"/admin/delegations/{made.waiting}",
            "/admin/trust-domains",
        ):
            assert ("/admin/revoke?kind=" in visit.get(path).text) == may(role, "revoker"), path
        assert ('href="/admin/revoke"' in visit.get("/admin").text) == may(role, "revoker")
        assert ("/admin/keys/rotate" in visit.get("/admin/keys").text) == may(role, "owner")
        assert ('name="switch"' in visit.get("/admin/agents/basket-helper").text) == may(role, "operator")
        policies = visit.get("/admin/policies").text
        assert ('name="state" value="observe"' in policies) == may(role, "operator")
        assert ('name="state" value="enforce"' in policies) == may(role, "owner")


def test_a_role_that_was_taken_away_ends_at_once(sqlite_world: World) -> None:
    from authserver.schema import User
    from tests.attacks.making import change

    add_user(sqlite_world, "vera", role="owner")
    with signed_in(sqlite_world, "vera") as visit:
        assert "Administration" in visit.get("/").text
        assert visit.get("/admin").status_code == 200
        change(sqlite_world, User, {"username": "vera"}, role=None)
        assert visit.get("/admin").status_code == 404
        assert "Administration" not in visit.get("/").text
        assert visit.post("/admin/keys/rotate").status_code == 404
    assert _changes(sqlite_world) == []


@pytest.mark.parametrize("form", FORMS)
def test_A84_A120_nothing_is_changed_by_a_link_a_header_or_a_foreign_form(
    sqlite_world: World, form: str
) -> None:
    path, _least, fields = FORMS[form]
    add_user(sqlite_world, "vera", role="owner")
    with signed_in(sqlite_world, "vera") as visit, signed_in(sqlite_world, "eve") as eve:
        for csrf in (None, "", "x", eve.csrf):
            assert visit.post(path, csrf=csrf, **fields).status_code == 403
        sent = {"csrf": visit.csrf, **fields}
        for origin in ("https://evil.example", "null", "http://127.0.0.1"):
            assert visit.client.post(path, data=sent, headers={"Origin": origin}).status_code == 403
        assert visit.client.post(f"{path}?csrf={visit.csrf}", data=fields).status_code in (400, 403)
        override = {"X-HTTP-Method-Override": "POST", "X-Method-Override": "POST"}
        query = "&".join(f"{name}={value}" for name, value in (sent | {"_method": "POST"}).items())
        assert visit.client.get(f"{path}?{query}", headers=override).status_code in (200, 404, 405)
        for method in ("PUT", "PATCH", "DELETE"):
            assert visit.client.request(method, path, data=sent).status_code == 405
    assert _changes(sqlite_world) == []


@pytest.mark.parametrize("form", FORMS)
def test_who_signed_in_a_while_ago_proves_it_again_first(sqlite_world: World, form: str) -> None:
    path, _least, fields = FORMS[form]
    add_user(sqlite_world, "vera", role="owner")
    with signed_in(sqlite_world, "vera") as visit:
        sqlite_world.clock.advance(seconds=301)
        answer = visit.client.post(
            path, data={"csrf": visit.csrf, **fields}, headers={"Referer": f"{sqlite_world.url}/admin/keys"}
        )
        assert answer.status_code == 303
        assert answer.headers["location"] == "/sign-in?next=%2Fadmin%2Fkeys&again=1"
        asked = visit.get("/admin/revoke?kind=all")
        assert asked.headers["location"] == "/sign-in?next=%2Fadmin%2Frevoke%3Fkind%3Dall&again=1"
        assert visit.get("/admin").status_code == 200
    assert _changes(sqlite_world) == []


@pytest.mark.parametrize(
    "path",
    named(
        {
            "agent": "/admin/agents/none",
            "user": "/admin/users/none",
            "server": "/admin/resource-servers/none",
            "delegation": "/admin/delegations/none",
            "action": "/admin/actions/none",
            "event": "/admin/decisions/999999",
            "no number": "/admin/decisions/x",
            "a huge number": f"/admin/decisions/{'9' * 40}",
            "foreign digits": "/admin/decisions/٤",
            "nul": "/admin/agents/%00",
            "nul delegation": "/admin/delegations/a%00b",
            "bad UTF-8": "/admin/users/%FF",
            "kind": "/admin/revoke?kind=everything&target=x",
            "no target": "/admin/revoke?kind=agent",
            "unknown target": "/admin/revoke?kind=agent&target=none",
            "all with a name": "/admin/revoke?kind=all&target=x",
        }
    ),
)
def test_what_is_not_there_is_a_page_that_says_so(company: tuple[World, Company], path: Any) -> None:
    with signed_in(company[0], "owner") as visit:
        assert visit.get(path).status_code == 404


@pytest.mark.parametrize(
    "path", ["/admin/decisions", "/admin/delegations", "/admin/agents", "/admin/figures", "/admin/audit"]
)
def test_a_parameter_that_means_nothing_is_as_good_as_none(company: tuple[World, Company], path: str) -> None:
    with signed_in(company[0], "viewer") as visit:
        for value in (
            "%00",
            "x" * 5_000,
            "%FF",
            "-1",
            "99999999999999999999999",
            "1.%00",
            "'",
            "%F0%9F%92%A9",
        ):
            for name in ("before", "after", "agent", "action", "outcome", "reason", "user", "period", "q"):
                answer = visit.get(f"{path}?{name}={value}")
                assert answer.status_code == 200, (path, name, value)


def _changes(world: World) -> list[str]:
    """What was revoked, rotated, moved, let in or blocked; the revocation that comes with the last two is one of it."""
    changes = ("revocation", "key.created", "policies.moved")
    return [e["event"] for e in world.events() if e["event"] in changes]
