"""What a resource server, or whoever sits on the agent's machine, may try on an agent that has the kit."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from werkzeug.wrappers import Request, Response

from authserver.agent import Agent, ExchangeRefused, Money, NotAgreed, TokenFile, WorkloadUnknown
from authserver.agent.challenges import Challenge, is_place_of
from authserver.agent.loopback import AnswerNotOurs, Loopback, code_in
from tests.agents import delegation_of, running_market
from tests.attacks.making import named
from tests.shops import served
from tests.world import SHOP, World

AT_MOST = Money.parse("EUR", "50.00")


def challenge(**details: Any) -> dict[str, str]:
    """A header that asks for that."""
    wanted = json.dumps([{"type": "agent_action"} | details]).replace('"', '\\"')
    return {"WWW-Authenticate": f'Bearer error="insufficient_scope", authorization_details="{wanted}"'}


@contextmanager
def liar(**details: Any) -> Iterator[tuple[httpx.Client, list[str]]]:
    """A server that asks every request for a token for that; and the tokens that it was shown."""
    shown: list[str] = []

    @Request.application
    def application(request: Request) -> Response:
        if "Authorization" in request.headers:
            shown.append(request.headers["Authorization"])
        said = details | {"locations": details.get("locations", [request.host_url.rstrip("/")])}
        return Response(status=401, headers=challenge(**said))

    with served(application) as client:
        yield client, shown


@pytest.fixture
def agent(shared_world: World) -> Agent:
    return Agent(shared_world.issuer, shared_world.assertion, "basket-helper", clock=shared_world.clock)


def test_A103_a_shop_cannot_make_an_agent_fetch_a_token_for_another_place(
    shared_world: World, agent: Agent
) -> None:
    """A token for another resource server would be worth something there."""
    task, rows = agent.task(delegation_of(shared_world.granted())), shared_world.rows()
    for locations in ([SHOP], [], ["any"], [SHOP, SHOP], "x", [1], [None]):
        with liar(actions=["catalog.search"], locations=locations) as (client, shown):
            with pytest.raises(NotAgreed):
                client.get("/", auth=task.auth("catalog.search", at_most=AT_MOST))
            assert shown == []
    assert shared_world.rows() == rows


AMOUNTS = {
    "more": {"currency": "EUR", "value": "50.01"},
    "another currency": {"currency": "GBP", "value": "1.00"},
    "a number": {"currency": "EUR", "value": 1},
    "less than nothing": {"currency": "EUR", "value": "-1.00"},
    "text": "1.00",
    "null": None,
    "a list": [],
}


@pytest.mark.parametrize("amount", named(AMOUNTS))
def test_an_amount_that_was_not_agreed_to_is_got_by_no_challenge(
    shared_world: World, agent: Agent, amount: object
) -> None:
    task, rows = agent.task(delegation_of(shared_world.granted())), shared_world.rows()
    with liar(actions=["payment.finalize"], amount=amount) as (client, shown):
        with pytest.raises(NotAgreed):
            client.post("/", auth=task.auth("payment.finalize", at_most=AT_MOST))
        assert shown == []
    assert shared_world.rows() == rows


@pytest.mark.parametrize("actions", [[], ["x", "catalog.search"], "catalog.search", None, [1], [["a"]]])
def test_an_action_that_is_not_one_name_is_got_by_no_challenge(
    shared_world: World, agent: Agent, actions: object
) -> None:
    task = agent.task(delegation_of(shared_world.granted()))
    with liar(actions=actions) as (client, _), pytest.raises(NotAgreed):
        client.get("/", auth=task.auth("catalog.search", at_most=AT_MOST))


def test_a_shop_that_is_never_content_gets_one_token(shared_world: World) -> None:
    """Whoever asks for the same again and again is answered once."""
    shown: list[str] = []

    def never(application: Any) -> Any:
        def around(environ: Any, start_response: Any) -> Any:
            shown.append(environ.get("HTTP_AUTHORIZATION", ""))
            place = f"http://{environ['HTTP_HOST']}/api"
            said = challenge(actions=["catalog.search"], locations=[place])
            start_response("401 Unauthorized", list(said.items()))
            return [b""]

        return around

    with running_market(shared_world, never) as market:
        auth = market.agent().task(market.delegated()).auth("catalog.search")
        assert httpx.get(f"{market.url}/api/products", auth=auth).status_code == 401
        assert len(shown) == 2


def test_a_token_follows_no_redirect(shared_world: World) -> None:
    with liar(actions=["catalog.search"]) as (elsewhere, shown):

        def redirecting(application: Any) -> Any:
            def around(environ: Any, start_response: Any) -> Any:
                if environ.get("HTTP_AUTHORIZATION"):
                    start_response("307 Temporary Redirect", [("Location", f"{elsewhere.base_url}/x")])
                    return [b""]
                return application(environ, start_response)

            return around

        with running_market(shared_world, redirecting) as market:
            auth = market.agent().task(market.delegated()).auth("catalog.search")
            answer = httpx.get(f"{market.url}/api/products", auth=auth, follow_redirects=True)
        assert (answer.status_code, shown) == (401, [])


def test_a_token_for_one_shop_is_not_shown_to_another(shared_world: World) -> None:
    with running_market(shared_world) as market, liar(actions=["catalog.search"]) as (elsewhere, shown):
        auth = market.agent().task(market.delegated()).auth("catalog.search")
        assert httpx.get(f"{market.url}/api/products", auth=auth).status_code == 200
        with pytest.raises(ExchangeRefused, match="invalid_target"):
            elsewhere.get("/api/products", auth=auth)
        assert shown == []


PLACES = {
    "itself": ("https://shop.example/api", "https://shop.example/api", True),
    "below": ("https://shop.example/api", "https://shop.example/api/orders?x=1", True),
    "a whole host": ("https://shop.example", "https://shop.example/api", True),
    "another path": ("https://shop.example/api", "https://shop.example/apix", False),
    "above": ("https://shop.example/api", "https://shop.example/", False),
    "another host": ("https://shop.example.evil/api", "https://shop.example/api", False),
    "another port": ("https://shop.example:444/api", "https://shop.example/api", False),
    "another scheme": ("http://shop.example/api", "https://shop.example/api", False),
    "a user": ("https://a@shop.example/api", "https://shop.example/api", False),
    "a query": ("https://shop.example/api?x", "https://shop.example/api", False),
    "climbing": ("https://shop.example/api", "https://shop.example/api/../other", False),
    "climbing in code": ("https://shop.example/api", "https://shop.example/api/%2e%2E/other", False),
    "climbing in code of code": (
        "https://shop.example/api",
        "https://shop.example/api/%252e%252e/other",
        False,
    ),
    "climbing backwards": ("https://shop.example/api", "https://shop.example/api/..%5Cother", False),
    "dots in a name": ("https://shop.example/api", "https://shop.example/api/a..b", True),
}


@pytest.mark.parametrize("case", named(PLACES))
def test_a_place_is_its_origin_and_what_is_below_its_path(case: tuple[str, str, bool]) -> None:
    identifier, url, fits = case
    assert is_place_of(identifier, url) == fits


HEADERS = {
    "the kit's own": (
        r'Bearer error="insufficient_scope", authorization_details="[{\"type\":\"agent_action\"}]"',
        "insufficient_scope",
        True,
    ),
    "two schemes": ('Bearer realm="a, DPoP b", error="x", DPoP algs="ES256"', "x", False),
    "no parameters": ("Bearer", None, False),
    "tokens without quotes": ("DPoP error=use_dpop_nonce", "use_dpop_nonce", False),
    "never closed": ('Bearer error="x', None, False),
    "not JSON": ('Bearer error="x", authorization_details="[{"', "x", False),
    "two details": (
        r'Bearer error="x", authorization_details="[{\"type\":\"agent_action\"},{\"type\":\"agent_action\"}]"',
        "x",
        False,
    ),
    "another type": (
        r'Bearer error="x", authorization_details="[{\"type\":\"agent_delegation\"}]"',
        "x",
        False,
    ),
}


@pytest.mark.parametrize("case", named(HEADERS))
def test_a_challenge_is_read_strictly(case: tuple[str, str | None, bool]) -> None:
    header, error, has_details = case
    found = Challenge.parse(401, [header], b"<html>")
    assert found is not None
    assert (found.error, found.details is not None) == (error, has_details)


def test_what_is_no_challenge_is_left_to_the_program() -> None:
    assert Challenge.parse(401, ['Basic realm="x"'], b"") is None
    assert Challenge.parse(200, ["Bearer"], b"") is None
    assert Challenge.parse(403, [], b'{"authorization_details": [{"type": "agent_action"}]}') is None
    assert Challenge.parse(401, ["Bearer " + "," * 100_000], b"{" * 100_000) is not None


def test_A112_the_loopback_takes_one_answer_and_it_must_be_of_this_server() -> None:
    with Loopback("https://auth.example") as loopback:
        at = loopback.redirect_uri
        assert at.startswith("http://127.0.0.1:")
        assert httpx.get(f"{at}?code=early&state=s").status_code == 400
        loopback.expect("s")
        for bad in ("?code=x", "?code=x&state=t", "?code=x&state=s&state=s", "/more?code=x&state=s"):
            assert httpx.get(at + bad).status_code == 400
        assert httpx.post(f"{at}?code=x&state=s").status_code == 501
        assert httpx.get(f"{at}?code=mine&state=s&iss=https%3A%2F%2Fauth.example").status_code == 200
        assert httpx.get(f"{at}?code=other&state=s&iss=https%3A%2F%2Fauth.example").status_code == 200
        assert loopback.code(1) == "mine"
    for query in ({}, {"iss": ["https://a", "https://auth.example"], "code": ["x"]}, {"code": ["x"]}):
        with pytest.raises(AnswerNotOurs):
            code_in(query, "https://auth.example")
    with pytest.raises(AnswerNotOurs):
        code_in({"iss": ["https://auth.example"], "code": ["x", "y"]}, "https://auth.example")


def test_a_token_file_is_read_anew_and_holds_one_token(tmp_path: Any) -> None:
    path = tmp_path / "token"
    source = TokenFile(path)
    with pytest.raises(WorkloadUnknown, match="cannot be read"):
        source.assertion("https://auth.example")
    for text in ("one\n", "two"):
        path.write_text(text)
        assert source.assertion("https://auth.example") == text.strip()
    for bad in ("", " \n", "x" * 20_000, "é"):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(WorkloadUnknown) as unknown:
            source.assertion("https://auth.example")
        assert not re.search("xxx|é", str(unknown.value))
