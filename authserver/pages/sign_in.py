"""`/sign-in` and `/sign-out`."""

from collections.abc import Callable

from flask import Request, Response, request

from authserver import sign_in, sign_in_passkey
from authserver.errors import Refusal
from authserver.pages import answers, cookies
from authserver.pages.signed_in import look, visitor
from authserver.services import Services
from authserver.texts import _


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/sign-in", lambda: show(services, request)),
        ("POST", "/sign-in", lambda: by_password(services, request)),
        ("POST", "/sign-out", lambda: sign_out(services, request)),
    ]


def show(services: Services, request: Request) -> Response:
    """The form; somebody who is signed in goes on at once, unless they shall prove it anew."""
    signed_in, next_path = look(services, request), answers.local_path(request.args.get("next"))
    again = request.args.get("again") == "1"
    if signed_in is not None and not again:
        return answers.redirect(next_path)
    username = signed_in.user.username if signed_in else ""
    return form_page(services, username, next_path, again=signed_in is not None)


def by_password(services: Services, request: Request) -> Response:
    """Sign in with a password, and go on to where the person wanted to be."""
    form, before = answers.read_page_form(services, request, None), look(services, request)
    next_path, username = answers.local_path(form.one("next")), form.one("username") or ""
    try:
        session = sign_in.by_password(
            services,
            username,
            form.one("password") or "",
            visitor(services, request),
            services.clock.now(),
            instead_of=before.session_id if before else None,
        )
    except Refusal as refusal:
        if refusal.status not in (403, 429):
            raise
        message = _("The user name or the password is not right.")
        return form_page(
            services, username, next_path, again=before is not None, refusal=refusal, message=message
        )
    response = answers.redirect(next_path)
    cookies.write(services, response, cookies.SESSION, session.secret)
    return response


def sign_out(services: Services, request: Request) -> Response:
    """End the session in this browser."""
    signed_in = look(services, request)
    if signed_in is not None:
        answers.read_page_form(services, request, signed_in)
        sign_in.end_session(services, signed_in.user, signed_in.session_id, services.clock.now())
    response = answers.redirect("/sign-in")
    cookies.clear(services, response, cookies.SESSION)
    return response


def form_page(
    services: Services,
    username: str,
    next_path: str,
    *,
    again: bool,
    refusal: Refusal | None = None,
    message: str | None = None,
) -> Response:
    """The page itself; after a refusal with a word about it."""
    if refusal is not None and refusal.status == 429:
        message = _("Too many tries. Wait a few minutes, then try again.")
    response = answers.page(
        "sign_in",
        None,
        refusal.status if refusal else 200,
        username=username,
        next=next_path,
        again=again,
        message=message,
        passkeys=sign_in_passkey.are_possible(services),
        upstream=services.settings.upstream.label if services.upstream else None,
    )
    for name, value in refusal.headers.items() if refusal else ():
        response.headers[name] = value
    return response
