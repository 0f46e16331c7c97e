"""Plain ASGI applications that take action tokens.

shop = Protection(AsyncResourceServer("https://auth.example", "https://shop.example/api"))

@shop.require_action("catalog.search")
async def search(scope, receive, send): ...

application = shop.edge(search)
"""

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from authserver.discovery import IssuerUnavailable
from authserver.resource_server.action_token import Merchant
from authserver.resource_server.answers import Answer
from authserver.resource_server.guarding import (
    AsyncResourceServer,
    Given,
    Incoming,
    Redeem,
    Rule,
    path_of,
)
from authserver.resource_server.rejections import TokenRejected
from authserver.resource_server.security_events import MOST_BYTES
from authserver.values import Money

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

ADMISSION = "authserver.admission"


def incoming(scope: Scope) -> Incoming:
    """The request as far as it decides who may do what."""
    raw: bytes | None = scope.get("raw_path")
    path = path_of(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]
    authorization, proofs = (
        [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == wanted]
        for wanted in (b"authorization", b"dpop")
    )
    return Incoming(scope["method"], path, authorization, proofs)


class Protection:
    """The rules of an application's parts. `edge` goes around the whole, once."""

    def __init__(self, server: AsyncResourceServer) -> None:
        self.server = server

    def require_action(
        self,
        action: str,
        *,
        amount: Given[Money] = None,
        merchant: Given[Merchant] = None,
        reference: Given[str] = None,
        datatypes: Collection[str] = (),
        redeem: Redeem = "capture",
    ) -> Callable[[Application], Application]:
        """Run an application only for a token that is for just this; see `Rule`.

        Values that depend on the request are functions of `scope`, or coroutines. The application finds the `Admission`
        in `scope["authserver.admission"]`.
        """
        rule = Rule(action, amount, merchant, reference, datatypes, redeem)

        def decorate(application: Application) -> Application:
            async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
                scope[ADMISSION] = await self.server.admit(incoming(scope), rule, {"scope": scope})
                await application(scope, receive, send)

            return guarded

        return decorate

    def edge(self, application: Application) -> Application:
        """The application with the metadata document, and with the standards' answers to what is refused inside."""
        return Edge(application, self.server)


class Edge:
    """ASGI middleware: the metadata document, the answers to what is refused inside, and the agent's next nonce."""

    def __init__(self, app: Application, server: AsyncResourceServer) -> None:
        self._application, self._server = app, server
        self._metadata_path = urlsplit(server.metadata_url).path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
        elif scope["path"] == self._metadata_path and scope["method"] == "GET":
            await _answer(self._server.metadata(), send)
        elif scope["path"] == self._server.push.path and scope["method"] == "POST":
            await _answer(await self._pushed(scope, receive), send)
        else:
            await self._guarded(scope, receive, send)

    async def _pushed(self, scope: Scope, receive: Receive) -> Answer:
        body, more = bytearray(), True
        while more and len(body) <= MOST_BYTES:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        content_type, authorization = (_header(scope, name) for name in (b"content-type", b"authorization"))
        return await self._server.events.answer_async(content_type, authorization, bytes(body))

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_nonce(message: Message) -> None:
            admission = scope.get(ADMISSION)
            if message["type"] == "http.response.start" and admission and admission.token.jkt is not None:
                nonce = self._server.verifier.next_nonce().encode("ascii")
                message["headers"] = [*message.get("headers", ()), (b"dpop-nonce", nonce)]
            await send(message)

        try:
            await self._application(scope, receive, send_with_nonce)
        except (TokenRejected, IssuerUnavailable) as error:
            await _answer(self._server.answer_to(error), send)


def _header(scope: Scope, wanted: bytes) -> str | None:
    values = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == wanted]
    return values[0] if len(values) == 1 else None


async def _answer(answer: Answer, send: Send) -> None:
    headers = [
        (name.lower().encode("ascii"), value.encode("ascii")) for name, value in answer.headers.items()
    ]
    headers.append((b"content-length", str(len(answer.body)).encode("ascii")))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
