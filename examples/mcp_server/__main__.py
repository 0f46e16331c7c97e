"""Example Books: an MCP server whose tools each need a token of their own action.

    BOOKS_SECRET=… python -m examples.mcp_server --issuer http://127.0.0.1:8000 --port 8003 --id …

It speaks Streamable HTTP, and meets MCP's authorization specification: its metadata (RFC 9728) name the authorization
server, a token must be for this server and no other (RFC 8707), and a call that needs another token than the one that
came is answered 403 `insufficient_scope` with what would do, so that the agent steps up.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context, MCPServer
from pydantic import AnyHttpUrl
from starlette.requests import Request
from starlette.responses import JSONResponse

from authserver import strict_json
from authserver.resource_server import ActionToken, AsyncResourceServer, Money
from authserver.resource_server.asgi import (
    ADMISSION,
    Application,
    Edge,
    Message,
    Receive,
    Scope,
    Send,
    incoming,
)
from authserver.resource_server.guarding import Rule

PATH = "/mcp"
MOST_BYTES = 65_536


@dataclass(frozen=True)
class Book:
    """Something to read."""

    title: str
    price: Money


BOOKS = {
    "b-101": Book("Lectures on Electronics", Money("EUR", 8_900)),
    "b-102": Book("Sketches of Algebra", Money("EUR", 1_850)),
    "b-103": Book("A Field Guide to Fonts", Money("EUR", 2_400)),
}
_ADMITTED: ContextVar[ActionToken | None] = ContextVar("admitted", default=None)


class NoSuchBook(ValueError):
    """No book has that number."""


def price_of(arguments: Mapping[str, object]) -> Money:
    """What the book of a call costs. Raises `NoSuchBook`."""
    book = arguments.get("book")
    if not isinstance(book, str) or book not in BOOKS:
        raise NoSuchBook("there is no such book")
    return BOOKS[book].price


# What a call of each tool is about to do; everything else on this address is as harmless as a search.
SEARCH = Rule("catalog.search")
RULES = {
    "search_books": SEARCH,
    # The tool redeems the token itself, last of all: `never` leaves it to it.
    "buy_book": Rule(
        "payment.finalize",
        amount=price_of,
        reference=lambda arguments: str(arguments["book"]),
        redeem="never",
    ),
}


def create_tools(kit: AsyncResourceServer) -> MCPServer:
    """The tools, with the package's own check of the audience behind the gate's."""
    resource = AnyHttpUrl(kit.verifier.audience)
    issuer = AnyHttpUrl(kit.verifier.issuer.identifier)
    auth = AuthSettings(issuer_url=issuer, resource_server_url=resource, validate_token_resource=True)
    books = MCPServer("Example Books", token_verifier=AsAdmitted(), auth=auth, log_level="ERROR")

    @books.tool()
    def search_books(words: str) -> list[dict[str, object]]:
        """Find books by words of their titles."""
        found = {number: book for number, book in BOOKS.items() if words.lower() in book.title.lower()}
        return [
            {"book": number, "title": book.title, "price": book.price.to_json()}
            for number, book in found.items()
        ]

    @books.tool()
    async def buy_book(book: str, ctx: Context[Any, Any]) -> dict[str, object]:
        """Buy one book, by its number, to be sent as an e-book."""
        if kit.settlement is None:
            raise RuntimeError("takes the id and the secret that tokens are redeemed with")
        paid = await kit.settlement.redeem(_token_of(ctx), price_of({"book": book}))
        return {"book": book, "paid": paid.amount and paid.amount.to_json(), "payment": paid.redemption_id}

    return books


def _token_of(ctx: Context[Any, Any]) -> ActionToken:
    """The token of this very request; a session's first one would be another's."""
    request: Request = ctx.request_context.request
    token: ActionToken = request.scope[ADMISSION].token
    return token


class AsAdmitted:
    """What the `mcp` package is told of a token: what the gate has verified in this request, or nothing."""

    async def verify_token(self, token: str) -> AccessToken | None:
        """See `mcp.server.auth.provider.TokenVerifier`; the package then compares `resource` by itself."""
        admitted = _ADMITTED.get()
        if admitted is None or admitted.text != token:
            return None
        return AccessToken(
            token=token,
            client_id=admitted.client_id,
            scopes=[admitted.action],
            expires_at=int(admitted.expires_at.timestamp()),
            resource=admitted.audience,
        )


@dataclass(frozen=True)
class Call:
    """What a request is about to have done: the rule for it, and the tool's arguments."""

    rule: Rule
    arguments: Mapping[str, object]

    @classmethod
    def parse(cls, unverified: bytes) -> "Call":
        """Read one JSON-RPC message. Raises `ValueError`; an unknown tool is as harmless as its refusal."""
        message = strict_json.parse(unverified or b"{}", max_bytes=MOST_BYTES)
        if not isinstance(message, dict):
            raise ValueError("takes one message")  # noqa: TRY004  # the caller's mistake, not ours
        params = message.get("params")
        if message.get("method") != "tools/call" or not isinstance(params, dict):
            return cls(SEARCH, {})
        name, arguments = params.get("name"), params.get("arguments")
        rule = RULES.get(name, SEARCH) if isinstance(name, str) else SEARCH
        return cls(rule, arguments if isinstance(arguments, dict) else {})


class Gate:
    """ASGI middleware: lets a message through with a token for just what it is about to have done."""

    def __init__(self, application: Application, kit: AsyncResourceServer) -> None:
        self._application, self._kit = application, kit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self._application(scope, receive, send)
            return
        body = await _body(receive)
        try:
            call = Call.parse(body)
            admission = await self._kit.admit(incoming(scope), call.rule, {"arguments": call.arguments})
        except ValueError as error:
            await JSONResponse({"error": str(error)}, status_code=400)(scope, receive, send)
            return
        scope[ADMISSION] = admission
        _ADMITTED.set(admission.token)
        await self._application(_as_bearer(scope, admission.token), _again(body, receive), send)


def _as_bearer(scope: Scope, token: ActionToken) -> Scope:
    # The package knows the scheme Bearer alone; the proof of a bound token was checked by the gate.
    others = [(name, value) for name, value in scope["headers"] if name.lower() != b"authorization"]
    scope["headers"] = [*others, (b"authorization", b"Bearer " + token.text.encode("ascii"))]
    return scope


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BYTES:
            return body  # and what is too long is refused where it is parsed
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read already, once; then whatever the client does next."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay


def create_server(kit: AsyncResourceServer) -> Application:
    """The MCP server as an ASGI application."""
    books = create_tools(kit)

    @books.custom_route("/healthz", methods=["GET"])
    async def healthz(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    # Each request stands by itself: a token is for one call, not for a session.
    inside: Callable[..., Any] = books.streamable_http_app(streamable_http_path=PATH, stateless_http=True)
    return Edge(Gate(inside, kit), kit)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--issuer", required=True, help="the authorization server's issuer identifier")
    parser.add_argument("--port", type=int, required=True, help="the port to listen on, on 127.0.0.1")
    parser.add_argument("--id", required=True, help="the id that `resource-servers create` printed")
    said = parser.parse_args()
    identifier, secret = f"http://127.0.0.1:{said.port}{PATH}", os.environ["BOOKS_SECRET"]
    kit = AsyncResourceServer(
        said.issuer, identifier, said.id, secret, name="Example Books", scopes=[SEARCH.action]
    )
    uvicorn.run(create_server(kit), host="127.0.0.1", port=said.port, log_level="warning")


if __name__ == "__main__":
    main()
