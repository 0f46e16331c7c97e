"""`/admin/audit`: every event, decisions and changes alike, and whether the audit is sealed and told elsewhere."""

from collections.abc import Callable
from urllib.parse import urlencode

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver import stream
from authserver.administration import audit_log
from authserver.administration.audit_log import Sealing
from authserver.administration.decisions import Some
from authserver.administration.lists import Looked
from authserver.pages.admin.entrance import argument, enter, event_id, page
from authserver.pages.admin.told import told
from authserver.services import Services

_MOST = 50
# As the API's list calls them.
_FILTERS = ("event", "rule", "client_id", "delegation_id", "action_id", "q")


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [("GET", "/admin/audit", lambda: show(services, request))]


def show(services: Services, request: Request) -> Response:
    """The newest events that the filters want."""
    administrator, now = enter(services, request), services.clock.now()
    said = {name: argument(request, name) for name in _FILTERS}
    wanted = {name: value for name, value in said.items() if value is not None}
    before, failing = event_id(request, "before"), stream.failing(services)

    def read(connection: Connection) -> tuple[Some, Sealing]:
        looked = Looked(services, connection, now)
        return audit_log.events(looked, wanted, before, _MOST), audit_log.sealing(looked, failing)

    found, sealing = services.database.read(read)
    return page(
        "audit",
        administrator,
        steps=[told(event, services.vocabulary.catalogue) for event in found.events],
        wanted=said,
        filters=urlencode(wanted),
        older=found.older,
        is_first=before is None,
        sealing=sealing,
    )
