"""Where a person answers an agent: `/oauth/authorize`, `/device`, and the consent page that both lead to."""

from collections.abc import Callable
from datetime import datetime, timedelta
from urllib.parse import quote, urlsplit

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver import answer
from authserver.accounts import tries
from authserver.accounts.tries import Bound
from authserver.answer import Opened, Yes
from authserver.ask import typed_code
from authserver.audit.events import Record
from authserver.delegations.requests import AuthorizationRequest, ToBrowser, ToDevice
from authserver.endpoints.forms import Form
from authserver.errors import Refusal
from authserver.pages import answers, choices
from authserver.pages.choices import Typed
from authserver.pages.consent_view import consent
from authserver.pages.named import names_for
from authserver.pages.signed_in import NotSignedIn, SignedIn, look, require_recent, visitor
from authserver.policy.choosing import PRESETS, NotChosen, Preset, chosen
from authserver.services import Services
from authserver.texts import _

_MINUTE = timedelta(minutes=1)


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/oauth/authorize", lambda: authorize(services, request)),
        ("GET", "/device", lambda: show_device(services, request)),
        ("POST", "/device", lambda: enter_code(services, request)),
        ("GET", "/consent/<request_id>", lambda request_id: show(services, request, request_id)),
        ("POST", "/consent/<request_id>", lambda request_id: decide(services, request, request_id)),
    ]


def authorize(services: Services, request: Request) -> Response:
    """RFC 9126 §4: take the browser that an agent sent here to the consent page."""
    record, now = Record("authorization"), services.clock.now()
    try:
        client_id, request_uri = _one(request, "client_id"), _one(request, "request_uri")
        record.client_id = client_id[:100]
        asked = answer.find_pushed(services, client_id, request_uri, now)
        if (away := _without_asking(services, request, asked)) is not None:
            return away
        signed_in = _recent_enough(services, request, asked)
        if _unmet(asked, signed_in):
            error = "unmet_authentication_requirements"
            return _back(services, asked, signed_in, error, "no such sign-in is to be had")
        answer.take(services, asked, signed_in.user.user_id, record, now)
    except Refusal as refusal:
        _recorded(services, record, refusal)
        # Nothing is proved about where this came from, so nobody is sent there (threats A110).
        return _no_request(refusal, look(services, request) if refusal.status < 500 else None)
    return answers.redirect(f"/consent/{asked.id}")


def show_device(services: Services, request: Request) -> Response:
    """RFC 8628 §3.3: where the code of a device is typed in, or confirmed."""
    return _device_page(require_recent(services, request), request.args.get("user_code", ""))


def enter_code(services: Services, request: Request) -> Response:
    """Find the request of that code, and go on to what it asks."""
    signed_in, now = require_recent(services, request), services.clock.now()
    form = answers.read_page_form(services, request, signed_in)
    record, typed = Record("user_code", data={"user": signed_in.user.user_id}), form.one("user_code") or ""
    try:
        _count(services, request, signed_in, now)
        asked = answer.find_typed(services, typed, now)
        answer.take(services, asked, signed_in.user.user_id, record, now)
    except Refusal as refusal:
        _recorded(services, record, refusal)
        return _device_page(signed_in, typed, refusal)
    return answers.redirect(f"/consent/{asked.id}?user_code={quote(typed_code(typed))}")


def show(services: Services, request: Request, request_id: str) -> Response:
    """What is asked, by whom, in full."""
    signed_in = require_recent(services, request)
    try:
        seen = answer.opened(services, request_id, signed_in.user.user_id, services.clock.now())
        _as_wanted(services, seen.request, signed_in)
    except Refusal as refusal:
        return _not_waiting(services, request_id, signed_in, refusal)
    return _consent_page(services, signed_in, seen, request.args.get("user_code"))


def decide(services: Services, request: Request, request_id: str) -> Response:
    """Yes to what was chosen, or no; or to see first what the choice comes to."""
    signed_in, now = require_recent(services, request), services.clock.now()
    form, user_id = answers.read_page_form(services, request, signed_in), signed_in.user.user_id
    record = Record("consent", data={"user": user_id, "request": request_id[:64]})
    decision = form.one("decision")
    if decision == "look":
        return _choose_again(services, signed_in, request_id, form)
    try:
        if decision not in ("allow", "deny"):
            raise Refusal("invalid_request", "the form is not one of this page", rule="consent.form")
        if decision == "deny":
            answered = answer.deny(services, request_id, user_id, record, now)
        else:
            _as_wanted(services, answer.state_of(services, request_id, user_id), signed_in)
            said = Yes(choices.read(form), _preset(form), signed_in.how)
            answered = answer.allow(services, request_id, user_id, said, record, now)
    except NotChosen as wrong:
        _recorded(services, record, Refusal("invalid_request", str(wrong), rule=f"consent.{wrong.why}"))
        return _choose_again(services, signed_in, request_id, form, wrong)
    except Refusal as refusal:
        _recorded(services, record, refusal)
        if refusal.rule == "delegation.spent":
            return _choose_again(services, signed_in, request_id, form, NotChosen("limits.total", "spent"))
        return _not_waiting(services, request_id, signed_in, refusal)
    if answered.redirect is not None:
        return answers.redirect_away(answered.redirect)
    return answers.redirect(f"/consent/{request_id}")


# --- what was sent --------------------------------------------------------------------------------------------------


def _one(request: Request, name: str) -> str:
    values = request.args.getlist(name)
    if len(values) != 1 or "\x00" in values[0]:
        raise Refusal("invalid_request", f"{name} is missing, repeated or no text", rule=f"form.{name}")
    return values[0]


def _preset(form: Form) -> Preset:
    said = form.one("preset") or "balanced"
    if (preset := next((one for one in PRESETS if one == said), None)) is None:
        raise Refusal("invalid_request", "the form is not one of this page", rule="consent.form")
    return preset


def _count(services: Services, request: Request, signed_in: SignedIn, now: datetime) -> None:
    """RFC 8628 §5.1: few tries a minute, by person and by address, so that no code is found by guessing."""
    bound = Bound(services.settings.authorization.user_code_tries, _MINUTE)
    address = visitor(services, request).address

    def write(connection: Connection) -> None:
        tries.count(connection, f"user_code:{signed_in.user.user_id}", bound, now)
        tries.count(connection, f"user_code:{tries.of_address(address)}", bound, now)

    try:
        services.database.write(write)
    except Refusal as refusal:
        if refusal.status == 429:
            refusal.rule = "user_code.too_many"
        raise


# --- who answers ----------------------------------------------------------------------------------------------------


def _without_asking(services: Services, request: Request, asked: AuthorizationRequest) -> Response | None:
    """`prompt=none`: whoever may not be asked consents to nothing (OpenID Connect Core §3.1.2.6)."""
    if not isinstance(asked.way, ToBrowser) or "none" not in asked.way.prompt:
        return None
    error = "login_required" if look(services, request) is None else "consent_required"
    return answers.redirect_away(answer.failed(services, asked, error, "the user has to be asked") or "")


def _recent_enough(services: Services, request: Request, asked: AuthorizationRequest) -> SignedIn:
    """Who is signed in, as lately as this server and the agent want (RFC 9470 §5)."""
    signed_in = require_recent(services, request)
    if not _unmet(asked, signed_in) or signed_in.authenticated_at < asked.created_at:
        _as_wanted(services, asked, signed_in)
    return signed_in


def _as_wanted(services: Services, asked: AuthorizationRequest, signed_in: SignedIn) -> None:
    """The agent's own conditions, which hold for whichever of a person's browsers answers. Raises `NotSignedIn`."""
    way, since = asked.way, signed_in.authenticated_at
    if not isinstance(way, ToBrowser):
        return
    too_old = way.max_age is not None and services.clock.now() - since > timedelta(seconds=way.max_age)
    anew = too_old or {"login", "select_account"} & {*way.prompt}
    if _unmet(asked, signed_in) or (since < asked.created_at and anew):
        raise NotSignedIn(again=True)


def _unmet(asked: AuthorizationRequest, signed_in: SignedIn) -> bool:
    wanted = asked.way.acr_values if isinstance(asked.way, ToBrowser) else ()
    return bool(wanted) and signed_in.acr not in wanted


# --- what is shown --------------------------------------------------------------------------------------------------


def _consent_page(
    services: Services,
    signed_in: SignedIn,
    seen: Opened,
    user_code: str | None,
    form: Form | None = None,
    wrong: NotChosen | None = None,
) -> Response:
    way, now, names = seen.request.way, services.clock.now(), names_for(services, seen.details)
    chosen_so_far = seen.details
    if form is not None and wrong is None:
        try:
            chosen_so_far = chosen(seen.details, choices.read(form), _preset(form), services.vocabulary, now)
        except NotChosen as cannot_stand:
            wrong = cannot_stand
    view = consent(seen, chosen_so_far, names, services.vocabulary, now, Typed(form, wrong))
    return answers.page(
        "consent",
        signed_in,
        400 if wrong else 200,
        may_lead_to=[_origin(way.redirect_uri)] if isinstance(way, ToBrowser) else [],
        seen=seen,
        view=view,
        wrong=wrong,
        back_to=_back_to(way.redirect_uri) if isinstance(way, ToBrowser) else None,
        device=way if isinstance(way, ToDevice) else None,
        user_code=_its_code(services, seen.request, user_code),
    )


def _its_code(services: Services, asked: AuthorizationRequest, unverified: str | None) -> str | None:
    """The code that was typed, if it is that of this request; nothing else is shown as if it were."""
    if unverified is None or not isinstance(asked.way, ToDevice):
        return None
    try:
        found = answer.find_typed(services, unverified, services.clock.now())
    except Refusal:
        return None
    return typed_code(unverified) if found.id == asked.id else None


def _choose_again(
    services: Services, signed_in: SignedIn, request_id: str, form: Form, wrong: NotChosen | None = None
) -> Response:
    try:
        seen = answer.opened(services, request_id, signed_in.user.user_id, services.clock.now())
        return _consent_page(services, signed_in, seen, form.one("user_code"), form, wrong)
    except Refusal as refusal:
        return _not_waiting(services, request_id, signed_in, refusal)


def _device_page(signed_in: SignedIn, typed: str, refusal: Refusal | None = None) -> Response:
    message = None
    if refusal is not None:
        message = {
            "user_code.too_many": _("Too many tries. Wait a minute, then try again."),
            "request.expired": _("That code has expired. Let your device show a new one."),
            "request.answered": _("That code was used already."),
            "request.taken": _(
                "Somebody else has opened that code. Say no at your device, and let it show a new one."
            ),
            "request.agent_disabled": _(
                "The agent that asks was blocked here. Nothing can be allowed to it."
            ),
        }.get(refusal.rule, _("There is no such code. Look at your device again."))
    code = typed_code(typed) if typed else ""
    response = answers.page(
        "device", signed_in, refusal.status if refusal else 200, code=code, message=message
    )
    for name, value in refusal.headers.items() if refusal else ():
        response.headers[name] = value
    return response


def _not_waiting(services: Services, request_id: str, signed_in: SignedIn, refusal: Refusal) -> Response:
    """What became of a request that is not waiting any more, or why it cannot be granted."""
    if refusal.status in (404, 503):
        raise refusal
    asked = answer.state_of(services, request_id, signed_in.user.user_id)
    if refusal.rule == "request.answered":
        status = 200 if request.method == "GET" else 410
        return answers.page(
            "answered", signed_in, status, asked=asked, device=isinstance(asked.way, ToDevice)
        )
    if refusal.rule == "request.expired":
        return answers.error_page(
            410,
            _("This request has expired"),
            _("Nothing was allowed. Go back to the agent and start again."),
            signed_in,
        )
    if refusal.rule == "consent.wider":
        return answers.error_page(
            400,
            _("That is more than was asked for"),
            _("Nothing was allowed. Go back, load the page again and choose anew."),
            signed_in,
        )
    return _back(services, asked, signed_in, refusal.error, refusal.description)


def _back(
    services: Services, asked: AuthorizationRequest, signed_in: SignedIn, error: str, description: str
) -> Response:
    """Nothing can be granted here; the way back to the agent is a link, which nobody follows without pressing it."""
    link = answer.failed(services, asked, error, description)
    ended = error == "invalid_authorization_details"
    return answers.page("cannot_allow", signed_in, 400, error=error, ended=ended, link=link)


def _no_request(refusal: Refusal, signed_in: SignedIn | None) -> Response:
    if refusal.rule == "request.answered":
        title, message = _("This was answered already"), _("Each request can be answered once.")
    elif refusal.rule == "request.expired":
        title = _("This request has expired")
        message = _("Nothing was allowed. Go back to the agent and start again.")
    elif refusal.rule == "request.agent_disabled":
        title = _("This agent was blocked")
        message = _("Whoever runs this service has blocked it, so nothing can be allowed to it.")
    elif refusal.rule == "request.taken":
        title = _("Somebody else has opened this")
        message = _("Nothing was allowed. Go back to the agent and start again.")
    else:
        title = _("This is no request that can be answered")
        message = _(
            "The link is not one that an agent got from this server. Go back to the agent and start again."
        )
    return answers.error_page(refusal.status if refusal.status != 410 else 400, title, message, signed_in)


def _recorded(services: Services, record: Record, refusal: Refusal) -> None:
    if refusal.status < 500:
        now = services.clock.now()
        services.database.write(lambda connection: record.refused(connection, now, refusal))


def _back_to(uri: str) -> str:
    """Where the answer goes, as a person can check it. A loopback address is a program of their own (RFC 8252 §7.3)."""
    place = urlsplit(uri)
    if place.hostname in ("127.0.0.1", "::1", "localhost"):
        return _("a program on this computer (%(address)s)", address=place.netloc)
    return place.netloc


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"
