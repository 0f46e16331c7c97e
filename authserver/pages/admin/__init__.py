"""`/admin`: what administrators see, and the few things that they may do here. Each module has some pages."""

from collections.abc import Callable

from flask import Response

from authserver.pages.admin import (
    audit,
    catalogue,
    decisions,
    delegations,
    directory,
    figures,
    keys,
    overview,
    policies,
    revocation,
    searching,
)
from authserver.services import Services

Route = tuple[str, str, Callable[..., Response]]

_MODULES: tuple[Callable[[Services], list[Route]], ...] = (
    overview.routes,
    searching.routes,
    decisions.routes,
    directory.routes,
    delegations.routes,
    revocation.routes,
    figures.routes,
    catalogue.routes,
    keys.routes,
    policies.routes,
    audit.routes,
)


def routes(services: Services) -> list[Route]:
    """All pages of the console."""
    return [route for module in _MODULES for route in module(services)]
