"""What an agent did, in words. What the agent or a shop said about itself is shown as such, after what was checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from authserver import strict_json
from authserver.audit.events import Event
from authserver.errors import Refusal
from authserver.ledger.actions import ActionRecord
from authserver.my_agents import Happened
from authserver.names import ShownName, shown_name
from authserver.pages import words
from authserver.policy.catalogue import Catalogue
from authserver.policy.details import ActionDetails, Merchant, stored_action
from authserver.texts import _
from authserver.values import Money, NotAValue


@dataclass(frozen=True, slots=True)
class Told:
    """One line of the history. `tone` is `good`, `bad` or empty; `facts` were checked, the name `called` was not."""

    at: datetime
    title: str
    tone: str = ""
    facts: tuple[str, ...] = ()
    called: ShownName | None = None
    reference: str | None = None
    reasons: tuple[str, ...] = ()
    state: str | None = None


def told(happened: Happened, catalogue: Catalogue) -> Told:
    """One event in words."""
    event = happened.event
    name, _dot, outcome = event.event.rpartition(".")
    if name in ("exchange", "deferred") and outcome in ("permitted", "refused"):
        return _exchange(happened, catalogue, outcome)
    if name in _settlements():
        return _settlement(happened, name, outcome)
    title, tone = _changes().get(event.event, (event.event, ""))
    facts = (_by_whom(str(event.data["by"])),) if "by" in event.data else ()
    return Told(event.at, title, tone, facts)


def _exchange(happened: Happened, catalogue: Catalogue, outcome: str) -> Told:
    event, asked = happened.event, asked_for(happened.event, happened.action)
    what = words.action_name(asked.action, catalogue) if asked else _("A request")
    facts = tuple(_facts(asked, event.data)) if asked else ()
    called = asked.merchant.name if asked and asked.merchant else None
    shown = {
        "at": event.at,
        "facts": facts,
        "called": shown_name(called) if called else None,
        "reference": asked.reference if asked else None,
    }
    if outcome == "permitted":
        state = happened.action and happened.action.budget == "debit" and _states().get(happened.action.state)
        return Told(title=_("Allowed: %(what)s", what=what), tone="good", state=state or None, **shown)  # type: ignore[arg-type]
    reasons = tuple(dict.fromkeys(_reasons(event.rule or "", event.data)))
    return Told(title=_("Refused: %(what)s", what=what), tone="bad", reasons=reasons, **shown)  # type: ignore[arg-type]


def asked_for(event: Event, action: ActionRecord | None) -> ActionDetails | None:
    """What the agent asked for, as far as it could be read; `action` is what became of it."""
    asked = action.details if action is not None else event.data.get("asked")
    try:
        if isinstance(asked, dict):
            return stored_action(strict_json.write(asked))
        return stored_action(asked) if isinstance(asked, str) else None
    except (NotAValue, Refusal):
        return None


def _facts(asked: ActionDetails, data: Mapping[str, object]) -> Iterator[str]:
    if asked.amount:
        yield words.amount_in_words(asked.amount)
    yield from _merchant(asked.merchant)
    if asked.datatypes:
        yield words.datatypes_in_words(asked.datatypes)
    if place := data.get("resource_server") or asked.location:
        yield _("through %(place)s", place=place)


def _merchant(merchant: Merchant | None) -> Iterator[str]:
    if merchant and merchant.category:
        yield words.category_name(merchant.category.code)
    if merchant and merchant.country:
        yield words.country_name(merchant.country.code)


def _settlement(happened: Happened, name: str, outcome: str) -> Told:
    event = happened.event
    title = _settlements()[name]
    facts = []
    amount = event.data.get("amount")
    if isinstance(amount, dict):
        facts.append(words.amount_in_words(Money.parse(amount.get("currency"), amount.get("value"))))
    if outcome == "permitted":
        if name == "redemption" and event.data.get("state") == "captured":
            title = _("Paid") if facts else _("Done")
        return Told(event.at, title, "good", tuple(facts))
    reasons = tuple(_reasons(event.rule or "", event.data))
    return Told(event.at, _("Refused: %(what)s", what=title), "bad", tuple(facts), reasons=reasons)


def _reasons(rule: str, data: Mapping[str, object]) -> Iterator[str]:
    violations = data.get("violations")
    for violation in violations if isinstance(violations, list) else ():
        yield _violation(violation, data)
    if not violations:
        yield _rules().get(rule) or _("the request was not in order (%(rule)s)", rule=rule)


def _violation(violation: Mapping[str, object], data: Mapping[str, object]) -> str:
    constraint = str(violation.get("constraint"))
    if constraint.startswith("policy:"):
        return _("a rule of this service forbids it (%(rule)s)", rule=constraint.removeprefix("policy:"))
    allowed = _money(violation.get("allowed"), data)
    if constraint == "limits.per_action" and allowed:
        return _("at most %(amount)s at a time", amount=allowed)
    if constraint == "limits.total" and allowed:
        return _("only %(amount)s is left in all", amount=allowed)
    if constraint == "limits.per_period" and allowed:
        return _("only %(amount)s is left in this period", amount=allowed)
    return _constraints().get(constraint) or _("a limit was crossed (%(limit)s)", limit=constraint)


def _money(text: object, data: Mapping[str, object]) -> str | None:
    asked = data.get("asked")
    amount = asked.get("amount") if isinstance(asked, dict) else None
    if not isinstance(amount, dict) or not isinstance(text, str):
        return None
    try:
        return words.amount_in_words(Money.parse(amount.get("currency"), text))
    except NotAValue:  # nothing is left, which is no amount
        return words.amount_in_words(Money(str(amount.get("currency")), 0))


def _by_whom(by: str) -> str:
    kind, _colon, _name = by.partition(":")
    return {"user": _("by you"), "operator": _("by an operator"), "agent": _("by the agent")}.get(kind, by)


def _settlements() -> dict[str, str]:
    return {
        "redemption": _("Amount held by the shop"),
        "capture": _("Paid"),
        "void": _("Let go by the shop"),
        "refund": _("Refunded"),
    }


def _states() -> dict[str, str]:
    return {
        "reserved": _("held"),
        "authorized": _("held by the shop"),
        "captured": _("paid"),
        "refunded": _("refunded"),
        "voided": _("not used"),
        "expired": _("not used"),
    }


def _changes() -> dict[str, tuple[str, str]]:
    return {
        "delegation.created": (_("Allowed"), ""),
        "delegation.lowered": (_("Limits lowered"), ""),
        "delegation.paused": (_("Paused"), ""),
        "delegation.resumed": (_("Resumed"), ""),
        "revocation": (_("Stopped for good"), "bad"),
        "exchange.repeated": (_("The same answer once more"), ""),
        "exchange.deferred": (_("It asked for an approval"), ""),
        "deferred.repeated": (_("The same answer once more"), ""),
        "approval.approved": (_("Approved"), "good"),
        "approval.agreed": (_("One of several agreed"), ""),
        "approval.refused": (_("Refused"), "bad"),
        "approval.expired": (_("Nobody answered in time"), "bad"),
        "approval.escalated": (_("Others were asked as well"), ""),
        "approval_rule.taken_back": (_("You want to be asked again"), ""),
        "task_completion": (_("A shop says that the job is done"), ""),
        "token_revocation.permitted": (_("The agent gave a permission back"), ""),
    }


def _rules() -> dict[str, str]:
    return {
        "delegation.paused": _("it was paused"),
        "delegation.revoked": _("it was stopped"),
        "delegation.expired": _("its time was over"),
        "delegation.not_yet_valid": _("its time had not begun"),
        "delegation.agent_disabled": _("the agent was blocked by an operator"),
        "task.ended": _("the task was over"),
        "task.longest": _("the task had gone on for too long"),
        "task.most_actions": _("the task had had all that it may"),
        "approval": _("it would have needed your approval"),
        "approval.refused": _("somebody refused it"),
        "approval.expired": _("nobody answered in time"),
        "approval.used": _("the approval was used"),
    }


def _constraints() -> dict[str, str]:
    return {
        "actions": _("you have not allowed this action"),
        "locations": _("you have not allowed this place"),
        "limits.currency": _("another currency than yours"),
        "limits.count": _("the number of payments is used up"),
        "merchants.categories": _("another kind of shop than you allowed"),
        "merchants.countries": _("another country than you allowed"),
        "merchants.ids": _("another shop than you allowed"),
        "merchants.except.categories": _("a kind of shop that you excluded"),
        "merchants.except.countries": _("a country that you excluded"),
        "merchants.except.ids": _("a shop that you excluded"),
        "datatypes": _("personal data that you have not allowed"),
        "catalogue.datatypes": _("personal data that this action is not for"),
        "catalogue.needs": _("it did not say all that is needed"),
        "catalogue.open_reservations": _("too many payments were open at once"),
        "approval": _("it would have needed your approval"),
        "amount": _("another amount than was allowed"),
    }
