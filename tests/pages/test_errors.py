"""Every error answer points to a page of this server that says what it means and what to do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from authserver.explained import ERRORS
from tests.settling import redeem, token_of
from tests.world import World, running_world

PACKAGE = Path(__file__).parent.parent.parent / "authserver"
# Not in our code: Authlib's own, which leaves by the same door as ours.
FROM_AUTHLIB = {"unsupported_grant_type"}
# Told to the agent in the redirection, by a name that is not next to `Refusal`.
BY_REDIRECTION = {"login_required", "consent_required", "unmet_authentication_requirements"}


def _said(tree: ast.AST) -> Iterator[str]:
    """The codes of every `Refusal("CODE", …)`; both, where the code is chosen on the spot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refusal":
            for argument in node.args[:1]:
                choices = [argument.body, argument.orelse] if isinstance(argument, ast.IfExp) else [argument]
                yield from (
                    c.value for c in choices if isinstance(c, ast.Constant) and isinstance(c.value, str)
                )


def _codes() -> set[str]:
    files = [
        path
        for path in PACKAGE.rglob("*.py")
        if not {"agent", "resource_server"} & {*path.relative_to(PACKAGE).parts}
    ]
    return {code for path in files for code in _said(ast.parse(path.read_text(encoding="utf-8")))}


def test_every_error_that_the_server_can_say_is_explained() -> None:
    assert _codes() | FROM_AUTHLIB | BY_REDIRECTION <= set(ERRORS)


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_has_its_page(shared_world: World, error: str) -> None:
    page = httpx.get(f"{shared_world.url}/errors/{error}", headers={"Accept-Language": "nl"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert f"<h1><code>{error}</code></h1>" in page.text
    assert '<section class="card" lang="en">' in page.text
    assert f"/errors/{error}" in httpx.get(f"{shared_world.url}/errors").text


def test_an_error_that_nobody_says_has_no_page(shared_world: World) -> None:
    assert httpx.get(f"{shared_world.url}/errors/nothing").status_code == 404


def test_a_refusal_of_the_token_endpoint_names_its_page(shared_world: World) -> None:
    answer = shared_world.post("/oauth/token", {"grant_type": "unknown"})
    body = shared_world.refuses(answer, "unsupported_grant_type")
    assert body["error_uri"] == f"{shared_world.issuer}/errors/unsupported_grant_type"
    assert httpx.get(body["error_uri"]).status_code == 200


def test_a_problem_is_typed_by_its_page(shared_world: World) -> None:
    token = token_of(shared_world, shared_world.granted().grant, "20.00")
    assert redeem(shared_world, token, merchant={"country": "US"}).status_code == 409
    again = redeem(shared_world, token)
    assert (again.status_code, again.headers["content-type"]) == (409, "application/problem+json")
    assert again.json()["type"] == f"{shared_world.issuer}/errors/conflict"
    assert httpx.get(again.json()["type"]).status_code == 200


def test_the_pages_are_below_an_issuer_with_a_path(sqlite_url: str, tmp_path: Path) -> None:
    with running_world(sqlite_url, tmp_path / "world", issuer_path="/tenant") as world:
        body = world.post("/oauth/token", {"grant_type": "unknown"}).json()
        assert "/tenant/errors/" in body["error_uri"]
        assert httpx.get(body["error_uri"]).status_code == 200
