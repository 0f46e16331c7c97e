"""Plain WSGI applications (PEP 3333) that take action tokens.

shop = Protection(ResourceServer("https://auth.example", "https://shop.example/api"))

@shop.require_action("catalog.search")
def search(environ, start_response): ...

application = shop.edge(search)
"""

from collections.abc import Callable, Collection, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from authserver.discovery import IssuerUnavailable
from authserver.resource_server.action_token import Merchant
from authserver.resource_server.answers import Answer
from authserver.resource_server.guarding import Given, Incoming, Redeem, ResourceServer, Rule, path_of
from authserver.resource_server.rejections import TokenRejected
from authserver.resource_server.security_events import MOST_BYTES
from authserver.values import Money

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

ADMISSION = "authserver.admission"


def incoming(environ: Environ) -> Incoming:
    """The request as far as it decides who may do what."""
    # Servers join repeated headers by commas, which neither a token nor a proof can hold.
    headers = (environ.get(name) for name in ("HTTP_AUTHORIZATION", "HTTP_DPOP"))
    authorization, proofs = ([] if value is None else [value] for value in headers)
    return Incoming(environ["REQUEST_METHOD"], _path(environ), authorization, proofs)


def _path(environ: Environ) -> str:
    # As it was sent, where the server says so; PEP 3333 itself only has it decoded, as Latin-1.
    sent = environ.get("REQUEST_URI") or environ.get("RAW_URI") or ""
    if sent.startswith("/"):
        return str(sent).partition("?")[0]
    decoded = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path_of(decoded.encode("latin-1").decode("utf-8", "replace"))


class Protection:
    """The rules of an application's parts. `edge` goes around the whole, once."""

    def __init__(self, server: ResourceServer) -> None:
        self.server = server
        self._metadata_path = urlsplit(server.metadata_url).path

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

        Values that depend on the request are functions of `environ`. The application finds the `Admission` in
        `environ["authserver.admission"]`.
        """
        rule = Rule(action, amount, merchant, reference, datatypes, redeem)

        def decorate(application: Application) -> Application:
            def guarded(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
                admission = self.server.admit(incoming(environ), rule, {"environ": environ})
                environ[ADMISSION] = admission
                if admission.token.jkt is None:
                    return application(environ, start_response)
                return application(environ, _with_nonce(start_response, self.server.verifier.next_nonce()))

            return guarded

        return decorate

    def edge(self, application: Application) -> Application:
        """The application with the metadata document, and with the standards' answers to what is refused inside."""

        def at_the_edge(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if environ.get("PATH_INFO") == self._metadata_path and environ["REQUEST_METHOD"] == "GET":
                return _send(self.server.metadata(), start_response)
            if self._is_push(environ):
                return _send(self._pushed(environ), start_response)
            try:
                return application(environ, start_response)
            except (TokenRejected, IssuerUnavailable) as error:
                return _send(self.server.answer_to(error), start_response)

        return at_the_edge

    def _is_push(self, environ: Environ) -> bool:
        return environ["REQUEST_METHOD"] == "POST" and environ.get("PATH_INFO") == self.server.push.path

    def _pushed(self, environ: Environ) -> Answer:
        length = environ.get("CONTENT_LENGTH") or "0"
        # One byte more than is taken, so that what is too long is seen to be.
        most = min(int(length), MOST_BYTES + 1) if length.isdecimal() else 0
        return self.server.events.answer(
            environ.get("CONTENT_TYPE"), environ.get("HTTP_AUTHORIZATION"), environ["wsgi.input"].read(most)
        )


def _with_nonce(start_response: StartResponse, nonce: str) -> StartResponse:
    def start(status: str, headers: list[tuple[str, str]], *more: object) -> object:
        return start_response(status, [*headers, ("DPoP-Nonce", nonce)], *more)

    return start


def _send(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    headers = [*answer.headers.items(), ("Content-Length", str(len(answer.body)))]
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
    return [answer.body]
