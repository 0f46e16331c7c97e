"""`/sign-in/upstream`: to the OpenID provider and back."""

from collections.abc import Callable

from flask import Request, Response, request

from authserver import sign_in, sign_in_upstream
from authserver.errors import Refusal
from authserver.pages import answers, cookies
from authserver.pages import sign_in as sign_in_page
from authserver.pages.signed_in import look, visitor
from authserver.services import Services
from authserver.sign_in_upstream import Returned
from authserver.texts import _


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/sign-in/upstream", lambda: leave(services, request)),
        ("GET", "/sign-in/upstream/callback", lambda: come_back(services, request)),
    ]


def leave(services: Services, request: Request) -> Response:
    """Send the browser to the provider."""
    secret = cookies.read(services, request, cookies.VISITOR)
    next_path, anew = answers.local_path(request.args.get("next")), request.args.get("again") == "1"
    if secret is None:
        return answers.redirect("/sign-in")  # which makes the browser known
    now = services.clock.now()
    sign_in.may_ask(services, visitor(services, request), now)
    try:
        url = sign_in_upstream.leave(services, cookies.csrf_of(secret), next_path, now, anew=anew)
    except Refusal as refusal:
        return _again(services, refusal, next_path)
    return answers.redirect_away(url)


def come_back(services: Services, request: Request) -> Response:
    """Sign in, and go on to where the person wanted to be."""
    secret, before = cookies.read(services, request, cookies.VISITOR), look(services, request)
    returned = Returned(
        cookies.csrf_of(secret or ""),
        visitor(services, request),
        request.args.get("state", "")[:200],
        request.args.get("code") if "error" not in request.args else None,
        request.args.get("iss"),
    )
    try:
        session, next_path = sign_in_upstream.come_back(
            services, returned, services.clock.now(), before.session_id if before else None
        )
    except Refusal as refusal:
        return _again(services, refusal, "/")
    response = answers.redirect(answers.local_path(next_path))
    cookies.write(services, response, cookies.SESSION, session.secret)
    return response


def _again(services: Services, refusal: Refusal, next_path: str) -> Response:
    if refusal.status not in (403, 502):
        raise refusal
    name = services.settings.upstream.label
    message = {
        "upstream.no_user": _("You are known to %(name)s, but not here. Ask an administrator.", name=name),
        "upstream.denied": _("%(name)s did not sign you in.", name=name),
    }.get(refusal.rule, _("Signing in with %(name)s did not work. Try again.", name=name))
    return sign_in_page.form_page(services, "", next_path, again=False, refusal=refusal, message=message)
