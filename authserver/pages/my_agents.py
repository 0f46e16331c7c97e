"""`/`: every agent that may act for the person who is signed in."""

from collections.abc import Callable

from flask import Request, Response, request

from authserver.delegations import records
from authserver.pages import answers
from authserver.pages.signed_in import require
from authserver.services import Services


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [("GET", "/", lambda: show(services, request))]


def show(services: Services, request: Request) -> Response:
    """The list."""
    signed_in = require(services, request)
    found = services.database.read(
        lambda connection: [
            one
            for one in records.list_delegations(connection, services.stored)
            if one.user_id == signed_in.user.user_id
        ]
    )
    return answers.page("my_agents", signed_in, delegations=found, vocabulary=services.vocabulary)
