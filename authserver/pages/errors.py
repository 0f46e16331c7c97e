"""`/errors/{error}`: what an error code means, where `error_uri` and a problem's `type` lead to.

It is for developers, in the words of the standards, and so in English whatever the reader's language.
"""

from collections.abc import Callable

from flask import Response, request

from authserver.errors import Refusal
from authserver.explained import ERRORS
from authserver.pages import answers
from authserver.pages.signed_in import look
from authserver.services import Services


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/errors", lambda: answers.page("errors", look(services, request), errors=ERRORS)),
        ("GET", "/errors/<error>", lambda error: explain(services, error)),
    ]


def explain(services: Services, error: str) -> Response:
    """The page of one error."""
    explained = ERRORS.get(error)
    if explained is None:
        raise Refusal("not_found", "there is no such error", rule="errors.unknown", status=404)
    return answers.page("explained", look(services, request), error=error, explained=explained)
