"""`/approvals` and `/approvals/ID`: what agents wait for, to be approved or refused; rules that can be taken back.

The pages look again every few seconds. Polling, not server-sent events: an event stream would hold one of the few turns
that a server process has for requests, for as long as somebody has the page open.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Request, Response, request

from authserver import approve, my_approvals
from authserver.approvals import rules
from authserver.approvals.records import Said
from authserver.approve import Reply
from authserver.endpoints.forms import Form
from authserver.errors import Refusal
from authserver.my_approvals import Asked, ShownRule
from authserver.pages import answers, asked, notifications
from authserver.pages.polling import poll, unchanged
from authserver.pages.signed_in import NotSignedIn, SignedIn, look, require, require_recent
from authserver.services import Services
from authserver.texts import _
from authserver.values import Money, NotAValue


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    return [
        ("GET", "/approvals", lambda: show_all(services, request)),
        ("GET", "/approvals/<approval_id>", lambda approval_id: show(services, request, approval_id)),
        ("POST", "/approvals/<approval_id>", lambda approval_id: answer(services, request, approval_id)),
        ("POST", "/approval-rules/<rule_id>/end", lambda rule_id: take_back(services, request, rule_id)),
    ]


def show_all(services: Services, request: Request) -> Response:
    """Everything that waits, and what was asked lately."""
    signed_in, now = require(services, request), services.clock.now()
    found = services.database.read(
        lambda connection: my_approvals.overview(services, connection, signed_in.user, now)
    )
    if same := unchanged(services, request, found.version):
        return same
    return answers.page(
        "approvals",
        signed_in,
        found=found,
        rules=_rules(services, signed_in),
        can_be_told=notifications.are_configured(services),
        **_common(services, found.version),
    )


def show(services: Services, request: Request, approval_id: str) -> Response:
    """One approval. Looking at it, however, answers nothing (A84)."""
    return _page(services, require(services, request), approval_id, request=request)


def answer(services: Services, request: Request, approval_id: str) -> Response:
    """Approve or refuse; to approve takes somebody who has signed in lately."""
    if look(services, request) is None:
        # A session that has ended answers nothing (A85).
        raise Refusal("access_denied", "nobody is signed in", rule="page.session", status=403)
    signed_in = require(services, request)
    form = answers.read_page_form(services, request, signed_in)
    said = _said(form)
    if said == "approve":
        require_recent(services, request)
    try:
        rule = _rule(services, signed_in, approval_id, form) if said == "approve" else None
        reply = Reply(approval_id, signed_in.user.user_id, said, rule, signed_in.how)
        approve.answer(services, reply, services.clock.now())
    except NotAValue as error:
        return _page(services, signed_in, approval_id, 400, str(error))
    except Refusal as refusal:
        if refusal.status != 409:
            raise
        return _page(services, signed_in, approval_id, 409, _("It was too late for that: see below."))
    return answers.redirect(f"/approvals/{approval_id}")


def take_back(services: Services, request: Request, rule_id: str) -> Response:
    """From now on the user is asked again."""
    signed_in = require(services, request)
    form = answers.read_page_form(services, request, signed_in)
    approve.take_back(services, rule_id, signed_in.user.user_id, services.clock.now())
    return answers.redirect(form.one("next") or "/approvals")


def _said(form: Form) -> Said:
    said = form.required("answer")
    if said == "approve":
        return "approve"
    if said == "refuse":
        return "refuse"
    raise Refusal("invalid_request", "answer takes approve or refuse", rule="form.answer")


def _rule(services: Services, signed_in: SignedIn, approval_id: str, form: Form) -> Money | None:
    """Up to how much the user is not to be asked again. Raises `NotAValue`, and `NotSignedIn` where it is not fresh."""
    if form.one("rule") is None:
        return None
    one = _one(services, signed_in, approval_id)
    if one.action.amount is None:
        raise NotAValue(_("There can be no rule for this."))
    # It allows more than this once, so it takes a person who proved who they are since they were asked.
    if signed_in.authenticated_at < one.approval.created_at:
        raise NotSignedIn(again=True)
    text = (form.one("rule_up_to") or "").strip().replace(",", ".")
    try:
        return Money.parse(one.action.amount.currency, text)
    except NotAValue as error:
        raise NotAValue(_("Write amounts like 42.50.")) from error


def _one(services: Services, signed_in: SignedIn, approval_id: str) -> Asked:
    now = services.clock.now()
    return services.database.read(
        lambda connection: my_approvals.one(services, connection, approval_id, signed_in.user, now)
    )


def _page(
    services: Services,
    signed_in: SignedIn,
    approval_id: str,
    status: int = 200,
    message: str | None = None,
    request: Request | None = None,
) -> Response:
    one = _one(services, signed_in, approval_id)
    if request is not None and (same := unchanged(services, request, one.version)):
        return same
    return answers.page(
        "approval", signed_in, status, one=one, message=message, **_common(services, one.version)
    )


def _common(services: Services, version: str) -> dict[str, Any]:
    catalogue, now = services.vocabulary.catalogue, services.clock.now()
    return {
        "sentence": partial(asked.sentence, catalogue=catalogue),
        "catalogue": catalogue,
        "state_in_words": state_in_words,
        "rule_in_words": partial(asked.rule_in_words, catalogue=catalogue),
        "poll": poll(version, now),
    }


def _rules(services: Services, signed_in: SignedIn) -> list[ShownRule]:
    user_id = signed_in.user.user_id
    return services.database.read(
        lambda connection: my_approvals.shown_rules(connection, rules.made_by(connection, user_id))
    )


def state_in_words(one: Asked) -> str:
    """What has become of it, in a few words."""
    said = {
        "waiting": _("Waiting"),
        "approved": _("Approved, not used yet"),
        "refused": _("Refused"),
        "expired": _("Nobody answered in time"),
        "used": _("Approved and used"),
    }
    return said[one.state]
