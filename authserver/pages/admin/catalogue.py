"""`/admin/catalogue` and `/admin/trust-domains`: who answers for what, and whose word is taken."""

from collections.abc import Callable

from flask import Request, Response, request

from authserver.administration.gaps import owned
from authserver.pages.admin.entrance import enter, page
from authserver.services import Services
from authserver.texts import _


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/admin/catalogue", lambda: show_catalogue(services, request)),
        ("GET", "/admin/trust-domains", lambda: show_domains(services, request)),
    ]


def show_catalogue(services: Services, request: Request) -> Response:
    """Every action with its owner, its approvers and what is missing."""
    administrator, catalogue = enter(services, request), services.vocabulary.catalogue
    found = services.database.read(
        lambda connection: owned(connection, catalogue, services.settings.groups.members)
    )
    return page(
        "catalogue",
        administrator,
        owned=found,
        catalogue=catalogue,
        gap_names={
            "owner": _("nobody is in the owner group"),
            "approver": _("too few people can approve"),
            "escalation": _("nobody is there to escalate to"),
        },
        missing=sum(bool(one.gaps) for one in found),
    )


def show_domains(services: Services, request: Request) -> Response:
    """Every trust domain with how fresh its keys are."""
    administrator, now = enter(services, request), services.clock.now()
    freshness = services.trust_domains.freshness(now)
    domains = [(domain, freshness[domain.name]) for domain in services.settings.trust_domains]
    return page("trust_domains", administrator, domains=domains, now=now)
