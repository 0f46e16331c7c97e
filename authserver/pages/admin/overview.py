"""`/admin`: what happens now, what is held and spent, and whether everything is in order."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver.actors.key_sources import Freshness
from authserver.administration import decisions, figures
from authserver.administration.decisions import Wanted
from authserver.administration.windows import window_since
from authserver.pages.admin.decisions import lines
from authserver.pages.admin.entrance import enter, page
from authserver.services import Services
from authserver.texts import _
from authserver.tokens import signing_keys

_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Health:
    """One thing that is in order (`good`), needs a look (`warn`) or does not work (`bad`)."""

    name: str
    tone: str
    said: str
    path: str | None = None


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [("GET", "/admin", lambda: show(services, request))]


def show(services: Services, request: Request) -> Response:
    """The first page."""
    administrator, now = enter(services, request), services.clock.now()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)

    def read(connection: Connection) -> dict[str, Any]:
        today = window_since(connection, midnight, figures.MOST_EVENTS)
        refused = decisions.decisions(connection, Wanted(outcome="refused"), None, 8)
        return {
            "minute": figures.flow(connection, now, _MINUTE, 1),
            "hour": figures.flow(connection, now, _HOUR, 60),
            "live": figures.live_delegations(connection, now),
            "awaiting": figures.awaiting(connection, now),
            "held": figures.held(connection),
            "captured": figures.captured(connection, today),
            "today": today,
            "refused": lines(services, refused.decisions),
            "health": list(_health(services, connection)),
        }

    return page("overview", administrator, **services.database.read(read), now=now)


def _health(services: Services, connection: Connection) -> Iterator[Health]:
    now = services.clock.now()
    yield _domains(services.trust_domains.freshness(now))
    keys = [key.state(now) for key in signing_keys.list_keys(connection)]
    active = keys.count("active")
    yield Health(
        _("Signing keys"),
        "good" if active else "bad",
        _("%(active)s sign now, %(pending)s pending", active=active, pending=keys.count("pending")),
        "/admin/keys",
    )
    problem = services.policies.problem
    yield Health(
        _("Policies"),
        "bad" if problem else "good",
        _("A change could not be taken over") if problem else _("In force as they are written"),
        "/admin/policies",
    )


def _domains(found: Mapping[str, Freshness]) -> Health:
    bad = [name for name, freshness in found.items() if freshness.state == "unavailable"]
    stale = [name for name, freshness in found.items() if freshness.state == "stale"]
    if bad:
        tone, said = "bad", _("No keys of %(names)s", names=", ".join(bad))
    elif stale:
        tone, said = "warn", _("Old keys of %(names)s", names=", ".join(stale))
    else:
        tone, said = "good", _("All keys are fresh")
    return Health(_("Trust domains"), tone, said, "/admin/trust-domains")
