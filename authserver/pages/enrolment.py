"""`/enrol/SECRET`: the link for one use that `users create` prints, to set a passkey or a password."""

from collections.abc import Callable

from flask import Request, Response, request

from authserver import sign_in, sign_in_passkey
from authserver.accounts.users import User
from authserver.members import parse_password
from authserver.pages import answers, cookies
from authserver.pages.signed_in import visitor
from authserver.services import Services
from authserver.texts import _
from authserver.values import NotAValue


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/enrol/<secret>", lambda secret: show(services, secret)),
        ("POST", "/enrol/<secret>", lambda secret: set_password(services, request, secret)),
    ]


def show(services: Services, secret: str) -> Response:
    """The form. To look at it does not use the link up: programs look at links before people do (threats A84)."""
    return form_page(services, sign_in.enrolling(services, secret, services.clock.now()))


def set_password(services: Services, request: Request, secret: str) -> Response:
    """Set the password and sign in; the link is used up."""
    form, now = answers.read_page_form(services, request, None), services.clock.now()
    user = sign_in.enrolling(services, secret, now)
    try:
        password = read_new_password(form.one("password"), form.one("repeated"))
    except NotAValue as error:
        return form_page(services, user, 400, str(error))
    session = sign_in.enrol_password(services, secret, password, visitor(services, request), now)
    response = answers.redirect("/")
    cookies.write(services, response, cookies.SESSION, session.secret)
    return response


def read_new_password(unverified: str | None, unverified_repeated: str | None) -> str:
    """A password that was typed twice. Raises `NotAValue`, in words."""
    if unverified != unverified_repeated:
        raise NotAValue(_("The two passwords are not the same."))
    try:
        return parse_password(unverified)
    except NotAValue as error:
        raise NotAValue(_("Take a password of at least 12 characters.")) from error


def form_page(services: Services, user: User, status: int = 200, message: str | None = None) -> Response:
    """The page itself; with a word about what was not right."""
    possible = sign_in_passkey.are_possible(services)
    return answers.page("enrol", None, status, user=user, message=message, passkeys=possible)
