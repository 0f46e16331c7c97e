"""`/notifications`: where a person wants to be told that an agent waits for them."""

import re
from collections.abc import Callable
from datetime import timedelta

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver import strict_json
from authserver.accounts import tries
from authserver.accounts.tries import Bound
from authserver.errors import Refusal
from authserver.notifications import addresses, outbox, ways
from authserver.notifications.addresses import TooMany
from authserver.pages import answers, assets
from authserver.pages.signed_in import SignedIn, require, require_recent
from authserver.services import Services
from authserver.texts import _, language

_EMAIL = re.compile(r"[!#-'*+\-/-9=?A-Z^-~]+(\.[!#-'*+\-/-9=?A-Z^-~]+)*@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_QUESTIONS = Bound(15, timedelta(hours=1))
_PUSH_MEMBERS = {"endpoint", "keys", "expirationTime"}


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/notifications", lambda: _page(services, require(services, request))),
        ("POST", "/notifications/email", lambda: add_email(services, request)),
        ("POST", "/notifications/push", lambda: add_push(services, request)),
        ("POST", "/notifications/<address_id>/end", lambda address_id: end(services, request, address_id)),
        ("GET", "/notifications/confirm", lambda: ask_to_confirm(services, request)),
        ("POST", "/notifications/confirm", lambda: confirm(services, request)),
        ("GET", "/push-worker.js", _worker),
    ]


def are_configured(services: Services) -> bool:
    """Whether there is a way to tell a single person."""
    settings = services.settings.notifications
    return bool(settings.push_contact or settings.smtp_host)


def add_email(services: Services, request: Request) -> Response:
    """An e-mail address; it is used once a link that is sent there was opened by the same person."""
    signed_in = require_recent(services, request)
    form = answers.read_page_form(services, request, signed_in)
    email, now = (form.one("email") or "").strip(), services.clock.now()
    if services.settings.notifications.smtp_host is None:
        raise _not_here()
    if len(email) > 254 or not _EMAIL.fullmatch(email):
        return _page(services, signed_in, 400, _("That is no e-mail address."))

    def write(connection: Connection) -> None:
        user_id, data = signed_in.user.user_id, {"email": email}
        added = addresses.add(
            connection, services.seal, user_id, "email", data, now, language=language(), confirmed=False
        )
        # Each asks a stranger, perhaps: nobody uses this server to fill somebody's letter box.
        tries.count(connection, f"confirm:{user_id}", _QUESTIONS, now)
        outbox.put(connection, None, "confirm", "email", added, now)

    return _added(services, signed_in, write)


def add_push(services: Services, request: Request) -> Response:
    """A browser's push subscription, as its `PushSubscription.toJSON()` has it."""
    signed_in, now = require(services, request), services.clock.now()
    form = answers.read_page_form(services, request, signed_in)
    if services.settings.notifications.push_contact is None:
        raise _not_here()
    subscription = _subscription(form.required("subscription"))

    def write(connection: Connection) -> None:
        user_id = signed_in.user.user_id
        addresses.add(
            connection, services.seal, user_id, "push", subscription, now, language=language(), confirmed=True
        )

    return _added(services, signed_in, write)


def end(services: Services, request: Request, address_id: str) -> Response:
    """Tell nobody there any more."""
    signed_in = require(services, request)
    answers.read_page_form(services, request, signed_in)
    user_id = signed_in.user.user_id
    services.database.write(lambda connection: addresses.remove(connection, address_id, user_id))
    return answers.redirect("/notifications")


def ask_to_confirm(services: Services, request: Request) -> Response:
    """What the link in the e-mail opens: nothing happens before a person presses the button."""
    signed_in = require(services, request)
    return answers.page("notifications_confirm", signed_in, code=request.args.get("code", "")[:64])


def confirm(services: Services, request: Request) -> Response:
    """From now on the address is used."""
    signed_in, now = require(services, request), services.clock.now()
    form = answers.read_page_form(services, request, signed_in)
    code, user_id = form.one("code") or "", signed_in.user.user_id
    confirmed = services.database.write(
        lambda connection: addresses.confirm(connection, services.approvals_secret, user_id, code, now)
    )
    if not confirmed:
        raise Refusal("not_found", "no address waits for this", rule="notifications.code", status=404)
    return answers.redirect("/notifications")


def _added(services: Services, signed_in: SignedIn, write: Callable[[Connection], None]) -> Response:
    try:
        services.database.write(write)
    except TooMany:
        return _page(
            services, signed_in, 409, _("You have as many of these as there can be. Remove one first.")
        )
    return answers.redirect("/notifications")


def _subscription(unverified: str) -> dict[str, object]:
    try:
        said = strict_json.parse(unverified, max_bytes=4_096)
    except strict_json.JsonRefused as error:
        raise _malformed() from error
    keys = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(said, dict) or not said.keys() <= _PUSH_MEMBERS or not isinstance(keys, dict):
        raise _malformed()
    wanted = (said.get("endpoint"), keys.get("p256dh"), keys.get("auth"))
    if not all(isinstance(value, str) and 0 < len(value) <= 2_048 for value in wanted):
        raise _malformed()
    return {"endpoint": wanted[0], "keys": {"p256dh": wanted[1], "auth": wanted[2]}}


def _page(services: Services, signed_in: SignedIn, status: int = 200, message: str | None = None) -> Response:
    settings = services.settings.notifications
    found = services.database.read(
        lambda connection: addresses.of_users(
            connection, services.seal, [signed_in.user.user_id], confirmed=False
        )
    )
    key = ways.application_server_key(ways.push_key(services.approvals_secret))
    return answers.page(
        "notifications",
        signed_in,
        status,
        found=found,
        push_key=key if settings.push_contact else None,
        email=settings.smtp_host is not None,
        message=message,
    )


def _worker() -> Response:
    # Under one lasting path: a browser looks there for a newer one.
    response = Response(assets.asset("push-worker.js").body, mimetype="text/javascript")
    response.headers["Cache-Control"] = "no-cache"
    return response


def _not_here() -> Refusal:
    return Refusal("not_found", "this way is not configured", rule="notifications.way", status=404)


def _malformed() -> Refusal:
    return Refusal("invalid_request", "the subscription is not acceptable", rule="form.subscription")
