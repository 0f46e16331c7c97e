"""The MCP example, with the client of the `mcp` package talking to it over real HTTP."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend
from mcp.server.auth.provider import AccessToken
from mcp.shared.auth import OAuthMetadata, ProtectedResourceMetadata
from pydantic import AnyHttpUrl
from starlette.requests import HTTPConnection

from authserver.agent import Agent, AsyncAgent, ExchangeRefused, Money, NotAgreed
from authserver.agent.httpx2 import ActionAuth
from authserver.resource_server import AsyncResourceServer
from examples.mcp_server.__main__ import create_tools
from tests.agents import delegation_of, running_books, running_market
from tests.world import World

BOOK = "b-102"  # Sketches of Algebra
AGREED = ("catalog.search", "payment.finalize")


@dataclass
class Books:
    """The MCP server that runs, and who may use it."""

    world: World
    identifier: str

    def granted(self, **changes: Any) -> Any:
        usual = {"actions": list(AGREED), "locations": [self.identifier], "datatypes": None}
        usual |= {"merchants": {"categories": ["5942"], "countries": ["NL"]}}
        return delegation_of(self.world.granted(**self.world.delegation(**(usual | changes))))

    def with_client(
        self, use: Callable[[Client], Awaitable[Any]], *, at_most: str = "20.00", delegation: Any = None
    ) -> Any:
        """What `use` makes of a client with the kit."""

        async def run() -> Any:
            agent = AsyncAgent(
                self.world.issuer, self.world.assertion, "basket-helper", clock=self.world.clock
            )
            async with agent:
                task = agent.task(delegation or self.granted())
                auth = ActionAuth(task, *AGREED, at_most=Money.parse("EUR", at_most))
                async with httpx2.AsyncClient(auth=auth, timeout=20) as http:
                    transport = streamable_http_client(self.identifier, http_client=http)
                    async with Client(transport) as client:
                        return await use(client)

        return asyncio.run(run())


@pytest.fixture(scope="module")
def books(shared_world: World) -> Iterator[Books]:
    with running_books(shared_world) as identifier:
        yield Books(shared_world, identifier)


def test_the_mcp_client_steps_up_from_searching_to_buying(books: Books) -> None:
    async def use(client: Client) -> Any:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        found = await client.call_tool("search_books", {"words": "algebra"})
        bought = await client.call_tool("buy_book", {"book": BOOK})
        return tools, found, bought

    tools, found, bought = books.with_client(use)
    assert tools == {"search_books", "buy_book"}
    assert BOOK in str(found.content)
    assert not bought.is_error, bought
    assert json.loads(bought.content[0].text)["paid"] == {"currency": "EUR", "value": "18.50"}


def test_each_call_goes_out_with_a_token_of_its_own(books: Books) -> None:
    async def twice(client: Client) -> Any:
        return [await client.call_tool("buy_book", {"book": book}) for book in (BOOK, BOOK)]

    bought = books.with_client(twice)
    assert not any(each.is_error for each in bought)
    assert len({json.loads(each.content[0].text)["payment"] for each in bought}) == 2


def test_what_the_delegation_forbids_comes_out_of_the_call(books: Books) -> None:
    limits = {"currency": "EUR", "per_action": "10.00", "total": "10.00"}
    refused = error_of(books, {"book": BOOK}, ExchangeRefused, delegation=books.granted(limits=limits))
    assert {violation.constraint for violation in refused.violations} >= {"limits.per_action"}
    assert error_of(books, {"book": "b-103"}, NotAgreed).details["amount"]["value"] == "24.00"


def error_of(books: Books, arguments: dict[str, str], kind: type[Exception], **options: Any) -> Any:
    """The kit's exception among those that the client of the package collects."""

    async def use(client: Client) -> Any:
        return await client.call_tool("buy_book", arguments)

    with pytest.raises(BaseExceptionGroup) as raised:
        books.with_client(use, **options)
    found, group = None, [raised.value]
    while group and found is None:
        each = group.pop()
        found = each if isinstance(each, kind) else None
        group += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    assert found is not None, raised.value
    return found


def test_discovery_as_the_package_reads_it(books: Books) -> None:
    """RFC 9728 and RFC 8414, by the package's own models; the challenge leads there."""
    with httpx.Client() as client:
        nothing = client.post(books.identifier, json=call("tools/list"))
        assert nothing.status_code == 401
        at = nothing.headers["www-authenticate"].partition('resource_metadata="')[2].partition('"')[0]
        about = ProtectedResourceMetadata.model_validate_json(client.get(at).text)
        assert str(about.resource) == books.identifier
        [issuer] = about.authorization_servers
        assert str(issuer).rstrip("/") == books.world.issuer
        found = client.get(f"{books.world.issuer}/.well-known/oauth-authorization-server")
        assert OAuthMetadata.model_validate_json(found.text).code_challenge_methods_supported == ["S256"]


def test_challenges_name_scopes_where_a_scope_would_do(books: Books) -> None:
    """MCP 2026-07-28: `scope` says what this call needs. No scope allows a payment, so none is named for one."""
    listed = httpx.post(books.identifier, json=call("tools/list"))
    bought = httpx.post(books.identifier, json=call("tools/call", name="buy_book", arguments={"book": BOOK}))
    assert 'Bearer scope="catalog.search", resource_metadata="' in listed.headers["www-authenticate"]
    assert "scope=" not in bought.headers["www-authenticate"]
    at = listed.headers["www-authenticate"].partition('resource_metadata="')[2].partition('"')[0]
    about = ProtectedResourceMetadata.model_validate_json(httpx.get(at).text)
    assert about.scopes_supported == ["catalog.search"]
    # Another token than the call's: RFC 6750's error with the scope, and one answer says all that is needed.
    action = {"actions": ["payment.finalize"], "amount": {"currency": "EUR", "value": "18.50"}}
    refused = post(books, bearer(books, **action, reference=BOOK), call("tools/list"))
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    assert 'scope="catalog.search"' in refused.headers["www-authenticate"]


def test_what_the_authorization_server_says_is_what_mcp_asks_for(books: Books) -> None:
    said = httpx.get(f"{books.world.issuer}/.well-known/oauth-authorization-server").json()
    assert said["issuer"] == books.world.issuer
    assert said["authorization_response_iss_parameter_supported"] is True
    assert said["client_id_metadata_document_supported"] is True
    assert said["code_challenge_methods_supported"] == ["S256"]
    assert "registration_endpoint" not in said
    agent = Agent(books.world.issuer, books.world.assertion, "basket-helper", clock=books.world.clock)
    # RFC 8707: the server's canonical URI, and nothing that only looks like it.
    search = {"type": "agent_action", "actions": ["catalog.search"]}
    assert agent.exchange(books.granted(), search, books.identifier).access_token
    for other in (f"{books.identifier}/", books.identifier.replace("127.0.0.1", "localhost")):
        with pytest.raises(ExchangeRefused) as refused:
            agent.exchange(books.granted(), search, other)
        assert refused.value.error == "invalid_target"


def call(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def post(books: Books, token: str, message: object, **headers: str) -> httpx.Response:
    usual = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    return httpx.post(books.identifier, json=message, headers=usual | headers)


def bearer(books: Books, **action: Any) -> str:
    agent = Agent(books.world.issuer, books.world.assertion, "basket-helper", clock=books.world.clock)
    asked = {"type": "agent_action", "actions": ["catalog.search"], "locations": [books.identifier]} | action
    return agent.token_for(books.granted(), asked, bound=False).access_token


def test_a_call_with_a_token_for_less_is_told_what_would_do(books: Books) -> None:
    search = bearer(books)
    refused = post(books, search, call("tools/call", name="buy_book", arguments={"book": BOOK}))
    assert refused.status_code == 403
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    [wanted] = refused.json()["authorization_details"]
    assert (wanted["actions"], wanted["amount"]["value"], wanted["reference"]) == (
        ["payment.finalize"],
        "18.50",
        BOOK,
    )
    for other in ({"book": "b-101"}, {"book": BOOK}):
        less = bearer(books, actions=["payment.finalize"], amount=wanted["amount"] | {"value": "18.49"})
        assert post(books, less, call("tools/call", name="buy_book", arguments=other)).status_code == 403


@pytest.mark.parametrize(
    "message",
    [
        [],
        [{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "buy_book"}}],
        "x",
        1,
        None,
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "buy_book"}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "buy_book", "arguments": []}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": ["buy_book"]}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": [1]},
        {"jsonrpc": "2.0", "id": 1, "method": ["tools/call"], "params": {}},
    ],
)
def test_a_message_of_another_shape_buys_nothing(books: Books, message: object) -> None:
    search, rows = bearer(books), books.world.rows()
    answer = post(books, search, message)
    assert answer.status_code < 500, answer.text
    assert "payment" not in answer.text
    assert books.world.rows().transfers == rows.transfers


def test_two_names_in_one_message_are_refused(books: Books) -> None:
    """Where two readers could disagree about the tool, nobody reads it."""
    text = '{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping","params":{"name":"buy_book"}}'
    headers = {"Authorization": f"Bearer {bearer(books)}", "Content-Type": "application/json"}
    assert httpx.post(books.identifier, content=text, headers=headers).status_code == 400
    long = json.dumps(call("tools/list", padding="x" * 70_000))
    assert httpx.post(books.identifier, content=long, headers=headers).status_code == 400


def test_A105_a_token_that_an_mcp_server_received_is_worth_nothing_elsewhere(books: Books) -> None:
    """Whoever passes it on is refused: at another shop, at the package's own check, and at the server itself."""
    world = books.world
    search = bearer(books)
    with running_market(world) as market:
        passed_on = httpx.get(f"{market.url}/api/products", headers={"Authorization": f"Bearer {search}"})
        assert passed_on.status_code == 401
        assert passed_on.json()["error_description"] == "the token is for another place"
        # The other way round: what the shop was shown is refused at the MCP server.
        agent = Agent(world.issuer, world.assertion, clock=world.clock)
        shops = agent.token_for(
            market.delegated(),
            {"type": "agent_action", "actions": ["catalog.search"], "locations": [market.identifier]},
            bound=False,
        )
        assert post(books, shops.access_token, call("tools/list")).status_code == 401
    assert world.introspect(search) == {"active": False}
    exchanged = world.exchange(search, action=world.action())
    assert exchanged.status_code == 400
    form = {"token": search, "amount": None}
    assert world.client.post(
        "/oauth/redeem", json=form, auth=(world.shop_id, world.shop_secret)
    ).status_code in (
        400,
        404,
    )


def test_A105_the_package_checks_the_audience_behind_the_gate(books: Books) -> None:
    """Were the gate to let a foreign token through, the package would still refuse it."""

    class Admits:
        async def verify_token(self, token: str) -> AccessToken:
            return AccessToken(token=token, client_id="c", scopes=[], resource="https://shop.example/api")

    kit = AsyncResourceServer(books.world.issuer, books.identifier)
    auth = create_tools(kit).settings.auth
    assert auth is not None
    assert (auth.validate_token_resource, str(auth.resource_server_url)) == (True, books.identifier)
    backend = BearerAuthBackend(Admits(), resource_server_url=AnyHttpUrl(books.identifier))
    scope = {"type": "http", "headers": [(b"authorization", b"Bearer x")]}
    assert asyncio.run(backend.authenticate(HTTPConnection(scope))) is None
