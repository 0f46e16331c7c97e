"""Handlers of Flask that take action tokens.

shop = protect(app, ResourceServer("https://auth.example", "https://shop.example/api", client_id, client_secret))

@app.get("/api/products")
@shop.require_action("catalog.search")
def search(): ...
"""

from collections.abc import Callable, Collection
from functools import wraps
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from flask import Flask, Response, after_this_request, current_app, g, request

from authserver.discovery import IssuerUnavailable
from authserver.resource_server.action_token import ActionToken, Merchant
from authserver.resource_server.answers import Answer
from authserver.resource_server.guarding import Admission, Given, Redeem, ResourceServer, Rule
from authserver.resource_server.rejections import TokenRejected
from authserver.resource_server.security_events import MOST_BYTES
from authserver.resource_server.settlement import Redemption
from authserver.resource_server.wsgi import incoming
from authserver.values import Money

P = ParamSpec("P")
Result = TypeVar("Result")


def protect(app: Flask, server: ResourceServer) -> "Protection":
    """Publish the metadata of this resource server, and answer what is refused as the standards have it.

    Where it has an `events_path`, events that are pushed there are taken.
    """
    path = urlsplit(server.metadata_url).path
    app.add_url_rule(path, "oauth_protected_resource", lambda: _response(server.metadata()))
    if server.push.path is not None:
        app.add_url_rule(server.push.path, "security_events", lambda: _pushed(server), methods=["POST"])
    app.register_error_handler(TokenRejected, lambda error: _response(server.answer_to(error)))
    app.register_error_handler(IssuerUnavailable, lambda error: _response(server.answer_to(error)))
    return Protection(server)


class Protection:
    """The rules of an application's handlers, and what the handler that runs now was let in with."""

    def __init__(self, server: ResourceServer) -> None:
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
    ) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
        """Run the handler only for a token that is for just this; see `Rule`. Stands below `@app.get(…)`.

        Values that depend on the request are functions of the handler's arguments, by their names.
        """
        rule = Rule(action, amount, merchant, reference, datatypes, redeem)

        def decorate(handler: Callable[P, Result]) -> Callable[P, Result]:
            @wraps(handler)
            def guarded(*positional: P.args, **named: P.kwargs) -> Result:
                # A coroutine is made a function here as Flask would; where that cannot be, no token is used up for it.
                run: Callable[P, Result] = current_app.ensure_sync(handler)
                g.admission = self.server.admit(incoming(request.environ), rule, named)
                if self.token.jkt is not None:
                    after_this_request(self._with_nonce)
                return run(*positional, **named)

            return guarded

        return decorate

    @property
    def token(self) -> ActionToken:
        """The token that the running handler was let in with."""
        return self._admission.token

    @property
    def redemption(self) -> Redemption | None:
        """What the token was used up for, where it is for one use."""
        return self._admission.redemption

    @property
    def _admission(self) -> Admission:
        admission: Admission = g.admission
        return admission

    def _with_nonce(self, response: Response) -> Response:
        response.headers["DPoP-Nonce"] = self.server.verifier.next_nonce()
        return response


def _pushed(server: ResourceServer) -> Response:
    content_type, authorization = request.headers.get("Content-Type"), request.headers.get("Authorization")
    # One byte more than is taken, so that what is too long is seen to be, and not held in memory.
    body = request.stream.read(MOST_BYTES + 1)
    return _response(server.events.answer(content_type, authorization, body))


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, dict(answer.headers))
