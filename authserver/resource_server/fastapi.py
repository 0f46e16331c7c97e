"""Endpoints of FastAPI and Starlette that take action tokens.

    payments = protect(app, AsyncResourceServer("https://auth.example", "https://pay.example", client_id, secret))

    @app.get("/products")
    async def search(admitted: Annotated[Admission, Depends(payments.require_action("catalog.search"))]): ...

In an endpoint of Starlette: `admitted = await payments.require_action("catalog.search")(request)`.
"""

from collections.abc import Awaitable, Callable, Collection

from starlette.applications import Starlette
from starlette.requests import Request

from authserver.resource_server.action_token import Merchant
from authserver.resource_server.asgi import ADMISSION, Edge, incoming
from authserver.resource_server.guarding import Admission, AsyncResourceServer, Given, Redeem, Rule
from authserver.values import Money


def protect(app: Starlette, server: AsyncResourceServer) -> "Protection":
    """Publish the metadata of this resource server, and answer what is refused as the standards have it."""
    app.add_middleware(Edge, server=server)
    return Protection(server)


class Protection:
    """The rules of an application's endpoints."""

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
    ) -> Callable[[Request], Awaitable[Admission]]:
        """A dependency: the endpoint runs only for a token that is for just this; see `Rule`.

        Values that depend on the request are functions, or coroutines, of the path's parameters and of `request`.
        """
        rule = Rule(action, amount, merchant, reference, datatypes, redeem)

        async def admitted(request: Request) -> Admission:
            arguments = {**request.path_params, "request": request}
            admission = await self.server.admit(incoming(request.scope), rule, arguments)
            request.scope[ADMISSION] = admission
            return admission

        return admitted
