"""`/account`: the password, and the browsers in which somebody is signed in."""

from collections.abc import Callable

from flask import Request, Response, request

from authserver import sign_in, sign_in_passkey
from authserver.accounts import passkeys, sessions
from authserver.pages import answers, cookies
from authserver.pages.enrolment import read_new_password
from authserver.pages.signed_in import SignedIn, require, require_recent, visitor
from authserver.services import Services
from authserver.values import NotAValue


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/account", lambda: show(services, request)),
        ("POST", "/account/password", lambda: change_password(services, request)),
        ("POST", "/account/sessions/<session_id>/end", lambda session_id: end(services, request, session_id)),
    ]


def show(services: Services, request: Request) -> Response:
    """The account."""
    return _page(services, require(services, request))


def change_password(services: Services, request: Request) -> Response:
    """Set another password; every session ends, and this browser gets a new one."""
    signed_in = require_recent(services, request)
    form = answers.read_page_form(services, request, signed_in)
    try:
        password = read_new_password(form.one("password"), form.one("repeated"))
    except NotAValue as error:
        return _page(services, signed_in, 400, str(error))
    session = sign_in.change_password(
        services, signed_in.user, password, visitor(services, request), signed_in.how, services.clock.now()
    )
    response = answers.redirect("/account")
    cookies.write(services, response, cookies.SESSION, session.secret)
    return response


def end(services: Services, request: Request, session_id: str) -> Response:
    """End one session of the person who is signed in; of somebody else's nothing happens."""
    signed_in = require(services, request)
    answers.read_page_form(services, request, signed_in)
    sign_in.end_session(services, signed_in.user, session_id, services.clock.now())
    return answers.redirect("/account")


def _page(services: Services, signed_in: SignedIn, status: int = 200, message: str | None = None) -> Response:
    now, lasting = services.clock.now(), sign_in.lasting(services)
    user_id = signed_in.user.user_id
    found, kept = services.database.read(
        lambda connection: (
            sessions.of_user(connection, user_id, lasting, now),
            passkeys.of_user(connection, user_id),
        )
    )
    return answers.page(
        "account",
        signed_in,
        status,
        sessions=found,
        kept=kept,
        passkeys=sign_in_passkey.are_possible(services),
        message=message,
    )
