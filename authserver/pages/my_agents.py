"""`/` and `/delegations/ID`: what agents may do for the person who is signed in, what they did, how to stop them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Request, Response, request
from sqlalchemy import Connection

from authserver import manage_delegation, my_agents, my_approvals, my_jobs, revoke
from authserver.approvals import rules
from authserver.delegations.standing import user_party
from authserver.endpoints.token import checked_task_id
from authserver.errors import Refusal
from authserver.my_agents import Held
from authserver.pages import answers, asked, choices
from authserver.pages.choices import Typed
from authserver.pages.history import told
from authserver.pages.named import names_in
from authserver.pages.signed_in import SignedIn, require
from authserver.pages.words import bounds
from authserver.policy.choosing import NotChosen
from authserver.policy.delegation_details import DelegationDetails
from authserver.policy.lowering import lowered
from authserver.revoke import Target
from authserver.services import Services
from authserver.texts import _

_EVENTS = 25
_NOTHING = Typed(None, None)
_SPENT = {
    "lower.spent": NotChosen("limits.total", "spent"),
    "lower.spent_count": NotChosen("limits.count", "spent"),
}


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
    )


def show(services: Services, request: Request, delegation_id: str) -> Response:
    """One delegation."""
    return _page(services, request, require(services, request), delegation_id)


def pause(services: Services, request: Request, delegation_id: str) -> Response:
    """Let it do nothing for now."""
    signed_in = _asked(services, request)
    try:
        manage_delegation.pause(services, signed_in.user, delegation_id, services.clock.now())
    except Refusal as refusal:
        return _too_late(services, request, signed_in, delegation_id, refusal)
    return answers.redirect(f"/delegations/{delegation_id}?done=paused")


def resume(services: Services, request: Request, delegation_id: str) -> Response:
    """Undo a pause."""
    signed_in = _asked(services, request)
    try:
        manage_delegation.resume(services, signed_in.user, delegation_id, services.clock.now())
    except Refusal as refusal:
        return _too_late(services, request, signed_in, delegation_id, refusal)
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
    signed_in, now = require(services, request), services.clock.now()
    form = answers.read_page_form(services, request, signed_in)

    def less(details: DelegationDetails) -> DelegationDetails:
        above = choices.amount(form, "ask_above")
        return lowered(details, choices.read(form), above, services.vocabulary, now)

    try:
        manage_delegation.lower(services, signed_in.user, delegation_id, less, now)
    except NotChosen as wrong:
        return _page(services, request, signed_in, delegation_id, _Said(400, typed=Typed(form, wrong)))
    except Refusal as refusal:
        if refusal.status not in (400, 409):
            raise
        spent = _SPENT.get(refusal.rule)
        said = _Said(refusal.status, _not_lowered(refusal), Typed(form, spent) if spent else _NOTHING)
        return _page(services, request, signed_in, delegation_id, said)
    return answers.redirect(f"/delegations/{delegation_id}?done=lowered")


def _too_late(
    services: Services, request: Request, signed_in: SignedIn, delegation_id: str, refusal: Refusal
) -> Response:
    """What was done in another tab, or by an operator, is shown; nothing is changed."""
    if refusal.status != 409:
        raise refusal
    return _page(services, request, signed_in, delegation_id, _Said(409, _not_lowered(refusal)))


def _asked(services: Services, request: Request) -> SignedIn:
    signed_in = require(services, request)
    answers.read_page_form(services, request, signed_in)
    return signed_in


@dataclass(frozen=True, slots=True)
class _Said:
    """What the page says after a form could not be followed, and what was typed in it."""

    status: int = 200
    message: str | None = None
    typed: Typed = _NOTHING


def _page(
    services: Services, request: Request, signed_in: SignedIn, delegation_id: str, said: _Said | None = None
) -> Response:
    said, now, before = said or _Said(), services.clock.now(), _event_id(request.args.get("before"))
    catalogue = services.vocabulary.catalogue

    def read(connection: Connection) -> dict[str, Any]:
        chain = my_agents.own_chain(services, connection, signed_in.user, delegation_id)
        family = my_agents.family(services, connection, chain, now)
        happened = my_agents.history(connection, chain.leaf, before, _EVENTS + 1)
        details = chain.leaf.details
        names = names_in(connection, details)
        newest, word = happened[0].event.event if happened else "", request.args.get("done")
        user_id = signed_in.user.user_id
        stopped_job = word == "job-stopped" and my_jobs.stopped_lately(connection, user_id, now)
        return {
            "done": _done(word, family[0], newest, stopped_job=stopped_job),
            "held": family[0],
            "below": family[1:],
            "seen": my_agents.personal_data(connection, chain.leaf),
            "jobs": my_jobs.running(services, connection, chain, now),
            "rules": my_approvals.shown_rules(connection, rules.rules_of(connection, chain.leaf.id)),
            "history": [told(one, catalogue) for one in happened[:_EVENTS]],
            "older": happened[_EVENTS - 1].event.id if len(happened) > _EVENTS else None,
            "bounds": list(bounds(details, names.shop)),
            "view": choices.choices(details, names, services.vocabulary, now, said.typed),
            "ask_above": choices.ask_above(details, said.typed),
        }

    return answers.page(
        "delegation",
        signed_in,
        said.status,
        **services.database.read(read),
        catalogue=catalogue,
        rule_in_words=partial(asked.rule_in_words, catalogue=catalogue),
        message=said.message,
        is_open=said.typed.form is not None,
        is_first=before is None,
    )


def _not_lowered(refusal: Refusal) -> str:
    if refusal.rule in _SPENT:
        return _("More is spent or held already. Choose a higher limit, or pause or stop the agent.")
    if refusal.status == 409:
        return _("It was too late for that: this has ended meanwhile.")
    return _("Here you can only allow less. To allow more, let the agent ask you.")


def _done(word: str | None, held: Held, newest: str, *, stopped_job: bool) -> str | None:
    """What to say about what was done just now: said only where it is true, since anybody can write an address."""
    said = {
        "paused": (held.is_paused, _("Paused. It can do nothing until you let it go on.")),
        "resumed": (held.ended is None, _("It can go on.")),
        "stopped": (held.is_over, _("Stopped for good. Nothing that it holds works any more.")),
        "job-stopped": (stopped_job, _("The job is stopped. Nothing more is done for it.")),
        "lowered": (newest == "delegation.lowered", _("The new limits hold from now on.")),
    }
    is_true, message = said.get(word or "", (False, ""))
    return message if is_true else None


def _event_id(unverified: str | None) -> int | None:
    if unverified is None or not (unverified.isascii() and unverified.isdigit() and len(unverified) < 19):
        return None
    return int(unverified)
