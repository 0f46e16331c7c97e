"""`ActionAuth` for httpx2, the HTTP library of the `mcp` package: an MCP client gets the right token for each call.

    auth = ActionAuth(task, "catalog.search", "payment.finalize", at_most=Money.parse("EUR", "20.00"))
    async with httpx2.AsyncClient(auth=auth) as http:
        async with Client(streamable_http_client("https://books.example/mcp", http_client=http)) as client: ...

httpx2 comes with `mcp`; nothing else of the kit needs it.
"""

from collections.abc import AsyncGenerator, Generator
from typing import cast

import httpx
import httpx2

from authserver.agent.auth import ActionAuth as OfHttpx
from authserver.agent.auth import TokenFlow


class ActionAuth(TokenFlow, httpx2.Auth):
    """See `authserver.agent.auth.ActionAuth`. httpx2 has the same requests and responses, in classes of its own."""

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """For `httpx2.Client`."""
        flow = OfHttpx.sync_auth_flow(cast(OfHttpx, self), cast(httpx.Request, request))
        return cast("Generator[httpx2.Request, httpx2.Response, None]", flow)

    def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """For `httpx2.AsyncClient`."""
        flow = OfHttpx.async_auth_flow(cast(OfHttpx, self), cast(httpx.Request, request))
        return cast("AsyncGenerator[httpx2.Request, httpx2.Response]", flow)
