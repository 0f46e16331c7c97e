"""Answers that people see: pages, and the forms that they send back."""

import hmac
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

from flask import Request, Response, current_app, render_template, request

from authserver import texts
from authserver.endpoints.forms import Form, read_form
from authserver.errors import Refusal
from authserver.pages import cookies
from authserver.pages.signed_in import SignedIn, look
from authserver.services import Services
from authserver.texts import _, language

# Pico draws the marks of its form fields with images in the style sheet, as data.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'{also}; base-uri 'none'; frame-ancestors 'none'"
)


_MOST_FIELDS = 4_096  # of a page's form: a box for each entry of a long consent


def services_here() -> Services:
    """What the running server holds."""
    found = current_app.extensions["authserver"]
    if not isinstance(found, Services):
        raise TypeError(type(found))
    return found


def speak(services: Services, request: Request) -> None:
    """Use the language that the person chose, else the best of those that the browser names."""
    chosen = cookies.read(services, request, cookies.LANGUAGE)
    best = request.accept_languages.best_match(list(texts.LANGUAGES), "en")
    texts.speak(chosen or best or "en")


def page(
    template: str,
    signed_in: SignedIn | None,
    status: int = 200,
    *,
    may_lead_to: Iterable[str] = (),
    **context: object,
) -> Response:
    """`templates/TEMPLATE.html` inside the layout. Nobody keeps it, frames it, or brings a script into it.

    `may_lead_to` are origins to which a form of this page may lead by redirection (CSP's form-action holds for those).
    """
    services = services_here()
    visitor = cookies.read(services, request, cookies.VISITOR) or cookies.new_visitor()
    csrf = signed_in.csrf if signed_in else cookies.csrf_of(visitor)
    text = render_template(f"{template}.html", signed_in=signed_in, csrf=csrf, **context)
    response = Response(text, status, mimetype="text/html")
    if signed_in is None and cookies.read(services, request, cookies.VISITOR) != visitor:
        cookies.write(services, response, cookies.VISITOR, visitor)
    return _guarded(response, may_lead_to)


def redirect(path: str) -> Response:
    """Lead on to another page of this server, by GET."""
    root = urlsplit(services_here().issuer).path
    response = Response(status=303)
    response.autocorrect_location_header = False
    # Of htmx's requests it is the whole page that moves.
    name = "HX-Redirect" if "HX-Request" in request.headers else "Location"
    response.status_code = 200 if name == "HX-Redirect" else 303
    response.headers[name] = root + local_path(path)
    return _guarded(response, ())


def redirect_away(url: str) -> Response:
    """Lead back to an agent. The caller knows that `url` is where the agent may be answered (threats A110)."""
    response = Response(status=303)
    response.autocorrect_location_header = False
    response.headers["Location"] = url
    _guarded(response, ())
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def local_path(unverified: str | None) -> str:
    """A path of this server to go on to, with its query; `/` for what leads anywhere else (threats A110)."""
    text = unverified or "/"
    is_path = text.startswith("/") and not text.startswith("//") and len(text) <= 2_000
    return (
        text
        if is_path and "\\" not in text and text.isascii() and text.isprintable() and " " not in text
        else "/"
    )


def read_page_form(services: Services, request: Request, signed_in: SignedIn | None) -> Form:
    """The form that one of our pages sent. Raises `Refusal`, 403 where it was not one of ours (threats A84)."""
    form = read_form(request, _MOST_FIELDS)
    require_ours(services, request, form, signed_in)
    return form


def require_ours(services: Services, request: Request, form: Form, signed_in: SignedIn | None) -> None:
    """The form is one of our pages', which this person looked at. Raises `Refusal` (403)."""
    origin = request.headers.get("Origin")
    if origin is not None and origin != _origin(services):
        raise _forged("page.origin")
    secret = cookies.read(services, request, cookies.VISITOR)
    expected = signed_in.csrf if signed_in else secret and cookies.csrf_of(secret)
    if not expected or not hmac.compare_digest(expected.encode(), (form.one("csrf") or "").encode()):
        raise _forged("page.csrf")


def error_page(
    status: int, title: str, message: str, signed_in: SignedIn | None = None, lead_to: str | None = None
) -> Response:
    """A page that says what went wrong, in words, and leads on: to a path of ours, or to the person's agents."""
    return page("error", signed_in, status, title=title, message=message, lead_to=lead_to)


def refusal_page(refusal: Refusal) -> Response:
    """A refusal in words."""
    signed_in = _whoever(refusal)
    lead_to = "/sign-in" if refusal.rule == "page.session" else None
    if lead_to and request.method == "POST":
        lead_to += f"?next={quote(local_path(request.path), safe='')}"
    response = error_page(refusal.status, *_in_words(refusal), signed_in, lead_to)
    for name, value in refusal.headers.items():
        response.headers[name] = value
    return response


def _whoever(refusal: Refusal) -> SignedIn | None:
    """Who is signed in, where the database can be asked."""
    try:
        return None if refusal.status >= 500 else look(services_here(), request)
    except Refusal:
        return None


def wants_a_page(request: Request) -> bool:
    """Whether a browser asks for something to look at, where programs have no business."""
    programs = ("/oauth/", "/.well-known/", "/api/", "/healthz", "/readyz", "/metrics")
    path = request.path.removeprefix(urlsplit(services_here().issuer).path)
    return not path.startswith(programs) and "text/html" in request.headers.get("Accept", "")


def _in_words(refusal: Refusal) -> tuple[str, str]:
    if refusal.rule in ("page.csrf", "page.origin"):
        return _("This page is out of date"), _(
            "Nothing was changed. Go back, load the page again and repeat what you did."
        )
    by_rule = {
        "enrolment.over": (
            _("This link can no longer be used"),
            _("It works once, within a day. Ask whoever sent it for a new one."),
        ),
        "page.session": (
            _("You are signed out"),
            _("Nothing was answered. Sign in again, and answer then."),
        ),
        "passkey.last": (
            _("It is your only way to sign in"),
            _("Nothing was changed. Set a password or add another passkey first."),
        ),
        "approval.not_asked": (
            _("This is not for you to answer"),
            _("Somebody else is asked, or you are not in the group any more. Nothing was changed."),
        ),
        "policies.two_people": (
            _("It takes two people"),
            _(
                "Nothing was changed. A set is observed first, and whoever put it up for that does not enforce it."
            ),
        ),
        "notifications.code": (
            _("This link can no longer be used"),
            _("It was used already, or it is for somebody else's address. Look under “How you are told”."),
        ),
    }
    if refusal.rule in by_rule:
        return by_rule[refusal.rule]
    if refusal.rule.startswith("passkey."):
        return _("That passkey was not accepted"), _("Nothing was changed. Go back and try again.")
    if refusal.status == 404:
        return _("There is nothing here"), _(
            "The address is wrong, or what was here belongs to somebody else."
        )
    if refusal.status == 403:
        return _("Not with your role"), _("Nothing was changed. Ask an owner of this server, if you need it.")
    if refusal.status == 429:
        return _("Too many tries"), _("Wait a few minutes, then try again.")
    if refusal.status >= 500:
        return _("That did not work"), _("Nothing was changed. Try again in a moment.")
    return _("That cannot be done"), _("Nothing was changed. Go back and look at what you entered.")


def _forged(rule: str) -> Refusal:
    return Refusal("access_denied", "the form is not from a page of this server", rule=rule, status=403)


def _origin(services: Services) -> str:
    parts = urlsplit(services.issuer)
    return f"{parts.scheme}://{parts.netloc}"


def _guarded(response: Response, may_lead_to: Iterable[str]) -> Response:
    also = "".join(f" {origin}" for origin in may_lead_to)
    response.headers["Content-Security-Policy"] = _POLICY.format(also=also)
    response.headers["Cache-Control"] = "no-store"
    # Forms need their Origin, which goes with the referrer; no other site learns the path.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=()"
    response.headers["Content-Language"] = language()
    response.headers["Vary"] = "Cookie, Accept-Language"
    return response
