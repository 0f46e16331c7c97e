"""`/admin/keys`: what this server signs with, and its rotation."""

from collections.abc import Callable

from flask import Request, Response, request

from authserver import rotate_keys
from authserver.administration.roles import Permission
from authserver.pages import answers
from authserver.pages.admin.entrance import enter, page, read_form
from authserver.services import Services
from authserver.texts import _
from authserver.tokens import signing_keys


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/admin/keys", lambda: show(services, request)),
        ("POST", "/admin/keys/rotate", lambda: rotate(services, request)),
    ]


def show(services: Services, request: Request) -> Response:
    """All keys with their states."""
    administrator, now = enter(services, request), services.clock.now()
    keys = services.database.read(signing_keys.list_keys)
    return page(
        "keys",
        administrator,
        keys=[(key, key.state(now)) for key in reversed(keys)],
        publish_ahead=services.settings.keys.publish_ahead,
        done=_("A new key was published. It signs in a while.")
        if request.args.get("done") == "rotated"
        else None,
    )


def rotate(services: Services, request: Request) -> Response:
    """Make a new key."""
    administrator, _form = read_form(services, request, Permission.OWN)
    rotate_keys.rotate(services, by=administrator.by, now=services.clock.now())
    return answers.redirect("/admin/keys?done=rotated")
