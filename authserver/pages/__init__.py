"""What a person sees. Each module here has some pages: it reads a form, calls one use case, shows what came of it."""

from collections.abc import Callable
from typing import cast
from urllib.parse import quote, urlsplit

import structlog
from flask import Blueprint, Flask, Response, request
from flask.blueprints import BlueprintSetupState
from jinja2 import StrictUndefined

from authserver import texts
from authserver.audit.events import Record
from authserver.endpoints.forms import Form, read_form
from authserver.errors import Refusal
from authserver.notifications import addresses
from authserver.pages import (
    account,
    admin,
    answers,
    approvals,
    assets,
    consent,
    cookies,
    enrolment,
    errors,
    exports,
    my_agents,
    notifications,
    passkeys,
    sign_in,
    upstream,
    words,
)
from authserver.pages.signed_in import NotSignedIn, look
from authserver.services import Services

log = structlog.get_logger()
Answer = Callable[..., Response]
Route = tuple[str, str, Answer]  # method, path, what answers

# One line for each module of pages.
_MODULES: tuple[Callable[[Services], list[Route]], ...] = (
    sign_in.routes,
    passkeys.routes,
    upstream.routes,
    enrolment.routes,
    account.routes,
    my_agents.routes,
    exports.routes,
    consent.routes,
    approvals.routes,
    notifications.routes,
    admin.routes,
    errors.routes,
)


def blueprint(services: Services) -> Blueprint:
    """All pages, with the files that they load."""
    pages = Blueprint("pages", __name__)
    for module in _MODULES:
        for method, path, answer in module(services):
            pages.add_url_rule(path, f"{method} {path}".replace(".", "_"), answer, methods=[method])
    pages.add_url_rule("/static/<version>/<name>", "static", assets.respond)
    pages.add_url_rule("/language", "language", lambda: _choose_language(services), methods=["POST"])
    pages.before_request(lambda: answers.speak(services, request))
    pages.before_request(_without_nul)
    pages.register_error_handler(NotSignedIn, _sign_in_first)
    pages.register_error_handler(Refusal, lambda refusal: _refused(services, refusal))
    pages.record_once(lambda state: _prepare(services, state))
    return pages


def _prepare(services: Services, state: BlueprintSetupState) -> None:
    jinja = cast(Flask, state.app).jinja_env
    jinja.undefined = StrictUndefined
    jinja.trim_blocks = jinja.lstrip_blocks = True
    jinja.globals |= {
        "_": texts._,
        "ngettext": texts.ngettext,
        "language": texts.language,
        "languages": texts.LANGUAGES,
        "asset": assets.asset,
        "root": urlsplit(services.issuer).path,
        "site": services.settings.pages.site_name,
        "words": words,
        "path": lambda: _path_here(),
    }


def _without_nul() -> None:
    # PostgreSQL cannot even be asked for it, and that must not look as if the database had failed.
    if any("\x00" in str(value) for value in (request.view_args or {}).values()):
        raise Refusal("not_found", "the address has a NUL in it", rule="page.address", status=404)


def _choose_language(services: Services) -> Response:
    # For somebody who is not signed in it changes nothing but a cookie, so that everybody may.
    form = read_form(request)
    unverified = form.one("language") or ""
    response = answers.redirect(form.one("next") or "/")
    if unverified in texts.LANGUAGES:
        cookies.write(services, response, cookies.LANGUAGE, unverified, kept=True)
        _write_to_me_in(services, form, unverified)
    return response


def _write_to_me_in(services: Services, form: Form, language: str) -> None:
    """Somebody who is signed in is also sent messages in the language that they chose."""
    signed_in = look(services, request)
    if signed_in is None:
        return
    try:
        answers.require_ours(services, request, form, signed_in)
    except Refusal:
        return  # from a page of before they signed in, or from elsewhere: the cookie is all that it changes
    user_id = signed_in.user.user_id
    services.database.write(lambda connection: addresses.speak(connection, user_id, language))


def _sign_in_first(needed: NotSignedIn) -> Response:
    again = "&again=1" if needed.again else ""
    return answers.redirect(f"/sign-in?next={quote(_path_here(), safe='')}{again}")


def _path_here() -> str:
    """The page that is looked at; of a form that was sent, the page that it was on."""
    root = urlsplit(answers.services_here().issuer).path
    if request.method == "GET" and "HX-Request" not in request.headers:
        here = request.full_path.removesuffix("?")
    else:
        referrer = urlsplit(request.referrer or "")
        here = f"{referrer.path}?{referrer.query}".removesuffix("?") if referrer.path else "/"
    return answers.local_path(here.removeprefix(root))


def _refused(services: Services, refusal: Refusal) -> Response:
    # What a use case refuses it writes down itself; a form that is not ours never got to one.
    if refusal.rule.startswith(("page.", "form.")):
        record, now = Record("page", data={"page": str(request.url_rule)}), services.clock.now()
        services.database.write(lambda connection: record.refused(connection, now, refusal))
    return answers.refusal_page(refusal)
