"""`/admin/search`: one box for agents, users, delegations and actions."""

from collections.abc import Callable

from flask import Request, Response, request

from authserver.administration import search
from authserver.pages.admin.entrance import argument, enter, page
from authserver.services import Services

_MOST = 20


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [("GET", "/admin/search", lambda: show(services, request))]


def show(services: Services, request: Request) -> Response:
    """What was found."""
    administrator, text = enter(services, request), argument(request, "q", search.LONGEST) or ""
    found = services.database.read(lambda connection: search.search(connection, text, _MOST))
    return page(
        "search", administrator, q=text, found=found, most=_MOST, catalogue=services.vocabulary.catalogue
    )
