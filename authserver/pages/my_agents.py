"""`/` and `/delegations/ID`: what agents may do for the person who is signed in, what they did, how to stop them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver import manage_delegation, my_agents, my_approvals, my_jobs, revoke
from authserver.approvals import rules
from authserver.delegations.standing import user_party
from authserver.endpoints.forms import Form
from authserver.endpoints.token import checked_task_id
from authserver.errors import Refusal
from authserver.pages import answers, asked
from authserver.pages.history import told
from authserver.pages.signed_in import SignedIn, require
from authserver.policy.delegation_details import DelegationDetails
from authserver.policy.lowering import Wish
from authserver.revoke import Target
from authserver.services import Services
from authserver.texts import _
from authserver.values import Money, NotAValue

_EVENTS = 25


def routes(services: Services) -> list[tuple[str, str, Callable[..., Response]]]:
    """The pages of this module."""
    one = "/delegations/<delegation_id>"
    return [
        ("GET", "/", lambda: show_all(services, request)),
        ("GET", one, lambda delegation_id: show(services, request, delegation_id)),
        ("POST", f"{one}/pause", lambda delegation_id: pause(services, request, delegation_id)),
        ("POST", f"{one}/resume", lambda delegation_id: resume(services, request, delegation_id)),
        ("POST", f"{one}/revoke", lambda delegation_id: end(services, request, delegation_id)),
        ("POST", f"{one}/stop-job", lambda delegation_id: stop_job(services, request, delegation_id)),
        ("POST", f"{one}/lower", lambda delegation_id: lower(services, request, delegation_id)),
    ]


def show_all(services: Services, request: Request) -> Response:
    """Every agent."""
    signed_in, now = require(services, request), services.clock.now()
    found = services.database.read(
        lambda connection: my_agents.overview(services, connection, signed_in.user, now)
    )
    return answers.page(
        "my_agents",
        signed_in,
        standing=[one for one in found if not one.is_over],
        over=[one for one in found if one.is_over],
        catalogue=services.vocabulary.catalogue,
        done=_done(request.args.get("done")),
    )


def show(services: Services, request: Request, delegation_id: str) -> Response:
    """One delegation."""
    return _page(services, request, require(services, request), delegation_id)


def pause(services: Services, request: Request, delegation_id: str) -> Response:
    """Let it do nothing for now."""
    signed_in = _asked(services, request)
    manage_delegation.pause(services, signed_in.user, delegation_id, services.clock.now())
    return answers.redirect(f"/delegations/{delegation_id}?done=paused")


def resume(services: Services, request: Request, delegation_id: str) -> Response:
    """Undo a pause."""
    signed_in = _asked(services, request)
    manage_delegation.resume(services, signed_in.user, delegation_id, services.clock.now())
    return answers.redirect(f"/delegations/{delegation_id}?done=resumed")


def end(services: Services, request: Request, delegation_id: str) -> Response:
    """End it for good, with all below it."""
    signed_in, now = _asked(services, request), services.clock.now()
    services.database.read(
        lambda connection: my_agents.own_chain(services, connection, signed_in.user, delegation_id)
    )
    by = f"user:{signed_in.user.user_id}"
    revoke.revoke(services, Target("delegation", delegation_id), reason="revoked by the user", by=by, now=now)
    return answers.redirect(f"/delegations/{delegation_id}?done=stopped")


def stop_job(services: Services, request: Request, delegation_id: str) -> Response:
    """End one job for good, whichever of the person's agents work on it; nothing else stops."""
    signed_in, now = require(services, request), services.clock.now()
    form = answers.read_page_form(services, request, signed_in)
    job, user = checked_task_id(form.required("job")), signed_in.user

    def read(connection: Connection) -> bool:
        chain = my_agents.own_chain(services, connection, user, delegation_id)
        return any(one.task_id == job for one in my_jobs.running(services, connection, chain, now))

    if services.database.read(read):  # a second press finds it over
        party = user_party(user.user_id)
        revoke.revoke(services, Target("task", job, party), reason="stopped by the user", by=party, now=now)
    return answers.redirect(f"/delegations/{delegation_id}?done=job-stopped")


def lower(services: Services, request: Request, delegation_id: str) -> Response:
    """Allow less."""
    signed_in = require(services, request)
    form = answers.read_page_form(services, request, signed_in)
    try:
        manage_delegation.lower(
            services,
            signed_in.user,
            delegation_id,
            lambda details: _wish(form, details),
            services.clock.now(),
        )
    except NotAValue as error:
        return _page(services, request, signed_in, delegation_id, 400, str(error))
    except Refusal as refusal:
        if not refusal.rule.startswith("lower."):
            raise
        return _page(services, request, signed_in, delegation_id, refusal.status, _not_lowered(refusal))
    return answers.redirect(f"/delegations/{delegation_id}?done=lowered")


def _asked(services: Services, request: Request) -> SignedIn:
    signed_in = require(services, request)
    answers.read_page_form(services, request, signed_in)
    return signed_in


def _page(
    services: Services,
    request: Request,
    signed_in: SignedIn,
    delegation_id: str,
    status: int = 200,
    message: str | None = None,
) -> Response:
    now, before = services.clock.now(), _event_id(request.args.get("before"))

    def read(connection: Connection) -> dict[str, Any]:
        chain = my_agents.own_chain(services, connection, signed_in.user, delegation_id)
        family = my_agents.family(services, connection, chain, now)
        happened = my_agents.history(connection, chain.leaf, before, _EVENTS + 1)
        return {
            "held": family[0],
            "below": family[1:],
            "seen": my_agents.personal_data(connection, chain.leaf),
            "jobs": my_jobs.running(services, connection, chain, now),
            "rules": my_approvals.shown_rules(connection, rules.rules_of(connection, chain.leaf.id)),
            "history": [told(one, services.vocabulary.catalogue) for one in happened[:_EVENTS]],
            "older": happened[_EVENTS - 1].event.id if len(happened) > _EVENTS else None,
        }

    return answers.page(
        "delegation",
        signed_in,
        status,
        **services.database.read(read),
        catalogue=services.vocabulary.catalogue,
        rule_in_words=partial(asked.rule_in_words, catalogue=services.vocabulary.catalogue),
        done=_done(request.args.get("done")),
        message=message,
        is_first=before is None,
    )


def _wish(form: Form, details: DelegationDetails) -> Wish:
    """What the form asks for. Raises `NotAValue`, in words."""
    currency = details.limits.currency if details.limits else ""
    rules = details.limits.per_period if details.limits else ()

    def amount(name: str) -> Money | None:
        return _amount(currency, form.one(name))

    return Wish(
        actions=form.parameters.get("action", ()),
        datatypes=form.parameters.get("datatype", ()),
        per_action=amount("per_action"),
        total=amount("total"),
        per_period=tuple(amount(f"period_{number}") for number in range(len(rules))),
        ask_above=amount("ask_above"),
    )


def _amount(currency: str, unverified: str | None) -> Money | None:
    if unverified is None or not unverified.strip():
        return None
    try:
        return Money.parse(currency, unverified.strip().replace(",", "."))
    except NotAValue as error:
        raise NotAValue(_("Write amounts like 42.50.")) from error


def _not_lowered(refusal: Refusal) -> str:
    if refusal.rule == "lower.spent":
        return _(
            "More than that is spent or held already. Choose a higher total, or pause or stop the agent."
        )
    if any(
        violation.constraint == "actions" and violation.requested == [] for violation in refusal.violations
    ):
        return _("Keep at least one action, or stop the agent.")
    return _("Here you can only allow less. To allow more, let the agent ask you.")


def _done(word: str | None) -> str | None:
    """What to say about what was done just now; the address names it, and nothing else of the address is shown."""
    said = {
        "paused": _("Paused. It can do nothing until you let it go on."),
        "resumed": _("It can go on."),
        "stopped": _("Stopped for good. Nothing that it holds works any more."),
        "job-stopped": _("The job is stopped. Nothing more is done for it."),
        "lowered": _("The new limits hold from now on."),
    }
    return said.get(word or "")


def _event_id(unverified: str | None) -> int | None:
    if unverified is None or not (unverified.isascii() and unverified.isdigit() and len(unverified) < 19):
        return None
    return int(unverified)
