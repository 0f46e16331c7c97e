"""Pages that look again by themselves (htmx), and what they are told where nothing has changed."""

from datetime import datetime

from flask import Request, Response

from authserver.services import Services

_STOP_POLLING = 286  # htmx's own: ask no more


def poll(version: str, now: datetime) -> str:
    """The query with which a page looks again; `version` changes when the page does."""
    return f"seen={version}&since={int(now.timestamp())}"


def unchanged(services: Services, request: Request, version: str) -> Response | None:
    """To a page that looks again: nothing, where nothing has changed."""
    since = request.args.get("since", "")
    if "HX-Request" not in request.headers or request.args.get("seen") is None:
        return None
    now, idle = services.clock.now().timestamp(), services.settings.pages.session_idle
    if since.isascii() and since.isdigit() and len(since) < 12 and now - int(since) > idle:
        # A page that was left open is no person who is there: it must not keep the session alive.
        return Response(status=_STOP_POLLING, headers={"HX-Reswap": "none"})
    return Response(status=204) if request.args["seen"] == version else None
