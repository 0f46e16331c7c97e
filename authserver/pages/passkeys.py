"""The passkeys' part of pages: a script asks for the options, the browser answers, and a form brings the answer."""

from collections.abc import Callable

from flask import Request, Response, request

from authserver import sign_in, sign_in_passkey
from authserver.errors import Refusal
from authserver.pages import answers, cookies
from authserver.pages import enrolment as enrolment_page
from authserver.pages import sign_in as sign_in_page
from authserver.pages.signed_in import look, require_recent, visitor
from authserver.services import Services
from authserver.sign_in_passkey import Asked
from authserver.texts import _


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("POST", "/sign-in/passkey/options", lambda: ask_to_sign_in(services, request)),
        ("POST", "/sign-in/passkey", lambda: by_passkey(services, request)),
        ("POST", "/enrol/<link>/passkey/options", lambda link: ask_to_enrol(services, request, link)),
        ("POST", "/enrol/<link>/passkey", lambda link: enrol(services, request, link)),
        ("POST", "/account/passkeys/options", lambda: ask_to_make(services, request)),
        ("POST", "/account/passkeys", lambda: make(services, request)),
        (
            "POST",
            "/account/passkeys/<passkey_id>/remove",
            lambda passkey_id: remove(services, request, passkey_id),
        ),
    ]


def ask_to_sign_in(services: Services, request: Request) -> Response:
    """The options to sign in with."""
    form, now = answers.read_page_form(services, request, None), services.clock.now()
    sign_in.may_ask(services, visitor(services, request), now)
    return _options(sign_in_passkey.ask_to_sign_in(services, form.required("csrf"), now))


def by_passkey(services: Services, request: Request) -> Response:
    """Sign in, and go on to where the person wanted to be."""
    form, before = answers.read_page_form(services, request, None), look(services, request)
    asked = Asked(form.required("csrf"), visitor(services, request))
    next_path = answers.local_path(form.one("next"))
    try:
        session = sign_in_passkey.by_passkey(
            services,
            form.one("answer") or "",
            asked,
            services.clock.now(),
            instead_of=before.session_id if before else None,
        )
    except Refusal as refusal:
        if refusal.status not in (403, 429):
            raise
        message = _("That passkey was not accepted. Try again, or use your password.")
        return sign_in_page.form_page(
            services, "", next_path, again=before is not None, refusal=refusal, message=message
        )
    response = answers.redirect(next_path)
    cookies.write(services, response, cookies.SESSION, session.secret)
    return response


def ask_to_enrol(services: Services, request: Request, link: str) -> Response:
    """The options to make a first passkey with."""
    form, now = answers.read_page_form(services, request, None), services.clock.now()
    user = sign_in.enrolling(services, link, now)
    return _options(sign_in_passkey.ask_to_make(services, user, form.required("csrf"), now))


def enrol(services: Services, request: Request, link: str) -> Response:
    """Keep the first passkey and sign in; the link is used up."""
    form, now = answers.read_page_form(services, request, None), services.clock.now()
    asked = Asked(form.required("csrf"), visitor(services, request))
    try:
        session = sign_in_passkey.enrol(services, link, form.one("answer") or "", asked, now)
    except Refusal as refusal:
        if refusal.status not in (400, 409):
            raise
        user = sign_in.enrolling(services, link, now)
        return enrolment_page.form_page(services, user, refusal.status, _not_made())
    response = answers.redirect("/")
    cookies.write(services, response, cookies.SESSION, session.secret)
    return response


def ask_to_make(services: Services, request: Request) -> Response:
    """The options for one more passkey."""
    signed_in = require_recent(services, request)
    answers.read_page_form(services, request, signed_in)
    return _options(
        sign_in_passkey.ask_to_make(services, signed_in.user, signed_in.csrf, services.clock.now())
    )


def make(services: Services, request: Request) -> Response:
    """Keep one more passkey."""
    signed_in = require_recent(services, request)
    form = answers.read_page_form(services, request, signed_in)
    asked = Asked(signed_in.csrf, visitor(services, request))
    sign_in_passkey.make(services, signed_in.user, form.one("answer") or "", asked, services.clock.now())
    return answers.redirect("/account")


def remove(services: Services, request: Request, passkey_id: str) -> Response:
    """Take a passkey away."""
    signed_in = require_recent(services, request)
    answers.read_page_form(services, request, signed_in)
    sign_in_passkey.remove(services, signed_in.user, passkey_id, services.clock.now())
    return answers.redirect("/account")


def _not_made() -> str:
    return _("That passkey was not accepted. Try again, or set a password.")


def _options(text: str) -> Response:
    response = Response(text, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
