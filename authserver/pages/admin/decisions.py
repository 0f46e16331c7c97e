"""`/admin/decisions`: what is decided, as it is decided; and one decision with all that the audit knows of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver.administration import decisions
from authserver.administration.decisions import OUTCOMES, Decision, Wanted
from authserver.audit.events import find_event
from authserver.errors import Refusal
from authserver.ledger import actions
from authserver.pages.admin.entrance import argument, enter, event_id, page
from authserver.pages.admin.told import Step, told
from authserver.pages.polling import poll, unchanged
from authserver.services import Services
from authserver.simulate import known_of

_MOST = 50


@dataclass(frozen=True, slots=True)
class Line:
    """One decision of a list."""

    decision: Decision
    step: Step


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/admin/decisions", lambda: show(services, request)),
        ("GET", "/admin/decisions/<number>", lambda number: show_one(services, request, number)),
    ]


def show(services: Services, request: Request) -> Response:
    """The newest decisions; the first page looks again by itself, unless it is paused."""
    administrator, now = enter(services, request), services.clock.now()
    wanted, before = _wanted(request), event_id(request, "before")
    found = services.database.read(lambda connection: decisions.decisions(connection, wanted, before, _MOST))
    version = str(found.decisions[0].event.id if found.decisions else 0)
    if same := unchanged(services, request, version):
        return same
    paused = request.args.get("live") == "off"
    return page(
        "decisions",
        administrator,
        lines=lines(services, found.decisions),
        wanted=wanted,
        outcomes=OUTCOMES,
        catalogue=services.vocabulary.catalogue,
        filters=_query(wanted),
        older=found.older,
        is_first=before is None,
        live=before is None and not paused,
        poll=poll(version, now),
        now=now,
    )


def lines(services: Services, found: tuple[Decision, ...]) -> list[Line]:
    """Decisions in words."""
    catalogue = services.vocabulary.catalogue
    return [Line(one, told(one.event, catalogue)) for one in found]


def show_one(services: Services, request: Request, number: str) -> Response:
    """One event of the audit, by its number."""
    administrator = enter(services, request)
    catalogue = services.vocabulary.catalogue

    def read(connection: Connection) -> dict[str, Any]:
        is_number = number.isascii() and number.isdigit() and len(number) < 19
        event = find_event(connection, number) if is_number else None
        if event is None:
            raise Refusal("not_found", "there is no such event", rule="event.unknown", status=404)
        action = actions.find(connection, event.action_id) if event.action_id else None
        (decision,) = decisions.with_names(connection, [event]) or (None,)
        return {
            "decision": decision,
            "step": told(event, catalogue, action),
            "known": known_of(services, connection, event),
            "written": _legible(json.dumps(event.to_json(), indent=2, ensure_ascii=False)),
        }

    return page("decision", administrator, **services.database.read(read), catalogue=catalogue)


def _legible(text: str) -> str:
    # What hides or reorders letters is shown as JSON escapes it, so that the text is read as it is written (A83).
    return "".join(
        letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in text
    )


def _wanted(request: Request) -> Wanted:
    outcome = next((known for known in OUTCOMES if known == request.args.get("outcome")), None)
    return Wanted(
        argument(request, "agent"), argument(request, "action"), outcome, argument(request, "reason")
    )


def _query(wanted: Wanted) -> str:
    said = {
        "agent": wanted.agent,
        "action": wanted.action,
        "outcome": wanted.outcome,
        "reason": wanted.reason,
    }
    return urlencode({name: value for name, value in said.items() if value is not None})
