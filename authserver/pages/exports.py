"""`/delegations/ID/export.csv` and `.json`: what an agent did, to take along."""

import csv
import io
import re
from collections.abc import Callable, Iterator

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver import my_agents, strict_json
from authserver.my_agents import Happened, Held, Seen
from authserver.pages.signed_in import require
from authserver.policy.details import stored_action
from authserver.policy.reading import instant_text
from authserver.services import Services

_MOST_EVENTS = 20_000
_COLUMNS = (
    "time",
    "event",
    "action",
    "amount",
    "currency",
    "category",
    "country",
    "merchant",
    "place",
    "reference",
)
_ENDS = ("state", "rule", "violations")
# What a spreadsheet would take for a formula, and run (threats A116).
_FORMULA = re.compile(r"[=+\-@\t\r\n|%＝＋－＠]")


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    path = "/delegations/<delegation_id>/export"
    return [
        ("GET", f"{path}.csv", lambda delegation_id: as_csv(services, request, delegation_id)),
        ("GET", f"{path}.json", lambda delegation_id: as_json(services, request, delegation_id)),
    ]


def as_json(services: Services, request: Request, delegation_id: str) -> Response:
    """All that is known of a delegation."""
    held, seen, happened = _read(services, request, delegation_id)
    body = strict_json.write(dict(my_agents.exported(services, held, seen, happened)))
    return _file(body, "application/json", f"{held.agent.client_id}.json")


def as_csv(services: Services, request: Request, delegation_id: str) -> Response:
    """Its history as a table."""
    held, _, happened = _read(services, request, delegation_id)
    text = io.StringIO()
    table = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    table.writerow((*_COLUMNS, *_ENDS))
    for one in happened:
        table.writerow(map(_cell, _row(one)))
    return _file(text.getvalue(), "text/csv", f"{held.agent.client_id}.csv")


def _read(
    services: Services, request: Request, delegation_id: str
) -> tuple[Held, list[Seen], list[Happened]]:
    signed_in, now = require(services, request), services.clock.now()

    def read(connection: Connection) -> tuple[Held, list[Seen], list[Happened]]:
        chain = my_agents.own_chain(services, connection, signed_in.user, delegation_id)
        held = my_agents.family(services, connection, chain, now)[0]
        seen = my_agents.personal_data(connection, chain.leaf)
        return held, seen, my_agents.history(connection, chain.leaf, None, _MOST_EVENTS)

    return services.database.read(read)


def _row(happened: Happened) -> Iterator[object]:
    event, action = happened.event, happened.action
    asked = stored_action(action.details).to_json() if action else event.data.get("asked")
    asked = asked if isinstance(asked, dict) else {}
    amount, merchant = (
        _object(asked.get("amount") or event.data.get("amount")),
        _object(asked.get("merchant")),
    )
    yield instant_text(event.at)
    yield event.event
    yield " ".join(asked.get("actions") or ())
    yield from (amount.get(name) for name in ("value", "currency"))
    yield from (merchant.get(name) for name in ("category", "country", "name"))
    yield event.data.get("resource_server")
    yield asked.get("reference")
    yield action and action.state
    yield event.rule
    violations = event.data.get("violations")
    yield " ".join(str(one.get("constraint")) for one in violations) if isinstance(violations, list) else ""


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if _FORMULA.match(text) else text


def _file(body: str, media_type: str, name: str) -> Response:
    response = Response(body, mimetype=media_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Cache-Control"] = "no-store"
    return response
