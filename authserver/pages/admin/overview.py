"""`/admin`: what happens now, what is held and spent, and whether everything is in order."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver.actors.key_sources import Freshness
from authserver.administration import decisions, figures
from authserver.administration.decisions import Wanted
from authserver.administration.windows import window_since
from authserver.audit import batches
from authserver.pages.admin.decisions import lines
from authserver.pages.admin.entrance import enter, page
from authserver.services import Services
from authserver.texts import _, ngettext
from authserver.tokens import signing_keys

_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)
_LATE = timedelta(minutes=10)  # what the upkeep has not done by then, it does not do


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
    yield _sealing(connection, now)
    yield _ledger(connection, now)
    problem = services.policies.problem
    yield Health(
        _("Policies"),
        "bad" if problem else "good",
        _("A change could not be taken over") if problem else _("In force as they are written"),
        "/admin/policies",
    )


def _sealing(connection: Connection, now: datetime) -> Health:
    events, seconds = batches.lag(connection, now)
    is_late = seconds > _LATE.total_seconds()
    said = ngettext("%(number)s event is not sealed yet", "%(number)s events are not sealed yet", events)
    if is_late:
        said = _("%(events)s, the oldest for %(minutes)s min", events=said, minutes=int(seconds // 60))
    return Health(_("Sealing of the audit"), "warn" if is_late else "good", said, "/admin/audit")


def _ledger(connection: Connection, now: datetime) -> Health:
    overdue = figures.overdue(connection, now - _LATE)
    said = ngettext(
        "%(number)s hold is overdue: is the upkeep running?",
        "%(number)s holds are overdue: is the upkeep running?",
        overdue.number,
    )
    return Health(
        _("Ledger"),
        "warn" if overdue.number else "good",
        said if overdue.number else _("Nothing holds money for longer than it may"),
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
