"""Events in an administrator's words: what was asked, what came of it, which limit or policy decided, and by whom."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from authserver import strict_json
from authserver.audit.events import Event
from authserver.ledger.actions import ActionRecord
from authserver.my_agents import Happened
from authserver.names import ShownName
from authserver.pages import words
from authserver.pages.history import asked_for
from authserver.policy.catalogue import Catalogue
from authserver.policy.details import ActionDetails
from authserver.texts import _
from authserver.values import Money

_DECIDING = ("exchange", "deferred", "hand_over")


@dataclass(frozen=True, slots=True)
class Crossed:
    """One limit that was crossed, as the agent was told it."""

    constraint: str
    requested: str | None
    allowed: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """One event. `tone` is `good`, `bad`, `warn` or empty; `facts` were checked, the name `called` was not."""

    event: Event
    title: str
    tone: str = ""
    facts: tuple[str, ...] = ()
    called: ShownName | None = None
    reference: str | None = None
    crossed: tuple[Crossed, ...] = ()
    rule: str | None = None
    policies: tuple[str, ...] = ()
    observed: str | None = None
    by: str | None = None
    note: str | None = None
    state: str | None = None

    @property
    def at(self) -> datetime:
        """When it was."""
        return self.event.at


def told(event: Event, catalogue: Catalogue, action: ActionRecord | None = None) -> Step:
    """One event in words; `action` is what became of the token that it is about."""
    name, _dot, outcome = event.event.rpartition(".")
    asked = asked_for(event, action)
    title, tone = _title(event, name, outcome, asked, catalogue)
    crossed = tuple(_crossed(event.data.get("violations")))
    return Step(
        event=event,
        title=title,
        tone=tone,
        facts=tuple(_facts(event, asked, settles=name not in _DECIDING)),
        called=words.shown_name(asked.merchant.name)
        if asked and asked.merchant and asked.merchant.name
        else None,
        reference=asked.reference if asked else None,
        crossed=crossed,
        rule=event.rule if tone in ("bad", "warn") and not crossed else None,
        policies=_names(event.data.get("policies")),
        observed=_observed(event.data.get("observed")),
        by=_by_whom(event),
        note=_shown(event.data.get("reason"))
        or (_text(event.data.get("description")) if tone == "bad" else None),
        state=state_in_words(action) if action is not None and outcome == "permitted" else None,
    )


def happened(one: Happened, catalogue: Catalogue) -> Step:
    """The same for an event that was read with its action."""
    return told(one.event, catalogue, one.action)


def state_in_words(action: ActionRecord) -> str:
    """What became of a token."""
    said = {
        "reserved": _("not used yet"),
        "authorized": _("held by the shop"),
        "captured": _("paid") if action.budget == "debit" else _("used"),
        "refunded": _("refunded"),
        "voided": _("ended unused"),
        "expired": _("expired unused"),
    }
    return said.get(action.state, action.state)


def _title(
    event: Event, name: str, outcome: str, asked: ActionDetails | None, catalogue: Catalogue
) -> tuple[str, str]:
    what = words.action_name(asked.action, catalogue) if asked else _deciding(name)
    if event.event == "exchange.deferred":
        return _("Awaiting approval: %(what)s", what=what), "warn"
    if name in _DECIDING and outcome == "permitted":
        return _("Allowed: %(what)s", what=what), "good"
    if outcome == "refused":
        said = what if name in _DECIDING else _settlements().get(name, name)
        return _("Refused: %(what)s", what=said), "bad"
    if name in _settlements() and outcome == "permitted":
        paid = name == "redemption" and event.data.get("state") == "captured"
        return (_("Paid") if paid and "amount" in event.data else _settlements()[name]), "good"
    return _changes().get(event.event, (event.event, ""))


def _deciding(name: str) -> str:
    return _("Hand-over to another agent") if name == "hand_over" else _("A request")


def _facts(event: Event, asked: ActionDetails | None, *, settles: bool) -> Iterator[str]:
    settled = event.data.get("amount") if settles else None
    if isinstance(settled, dict):
        yield words.amount_in_words(Money.parse(settled.get("currency"), settled.get("value")))
    elif asked and asked.amount:
        yield words.amount_in_words(asked.amount)
    merchant = asked.merchant if asked else None
    if merchant and merchant.category:
        yield f"{words.category_name(merchant.category.code)} ({merchant.category.code})"
    if merchant and merchant.country:
        yield words.country_name(merchant.country.code)
    if asked and asked.datatypes:
        yield ", ".join(asked.datatypes)
    if place := _text(event.data.get("resource_server")) or (asked and asked.location):
        yield _("through %(place)s", place=place)
    if task := _text(event.data.get("task_id")):
        yield _("task %(task)s", task=task)


def _crossed(violations: object) -> Iterator[Crossed]:
    for violation in violations if isinstance(violations, list) else ():
        if isinstance(violation, Mapping):
            yield Crossed(
                str(violation.get("constraint")),
                _value(violation.get("requested")),
                _value(violation.get("allowed")),
                _text(violation.get("reason")),
            )


def _value(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(str(one) for one in value[:12])
    return strict_json.write(value)


def _by_whom(event: Event) -> str | None:
    user = event.data.get("user")
    return _text(event.data.get("by")) or (f"user:{user}" if isinstance(user, str) else None)


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if isinstance(value, list) else ()


def _observed(value: object) -> str | None:
    return _text(value.get("outcome")) if isinstance(value, Mapping) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _shown(value: object) -> str | None:
    """What somebody typed, without what hides or reorders letters (threats A83)."""
    return words.shown_name(value).text if isinstance(value, str) and value else None


def _settlements() -> dict[str, str]:
    return {
        "redemption": _("Redeemed"),
        "capture": _("Paid"),
        "void": _("Let go by the shop"),
        "refund": _("Refunded"),
    }


def _changes() -> dict[str, tuple[str, str]]:
    return {
        "consent.opened": (_("The consent page was opened"), ""),
        "consent.permitted": (_("The user agreed"), "good"),
        "delegation.created": (_("Allowed"), "good"),
        "delegation.changed": (_("Changed by a new consent"), ""),
        "delegation.lowered": (_("Limits lowered"), ""),
        "delegation.paused": (_("Paused"), "warn"),
        "delegation.resumed": (_("Resumed"), ""),
        "revocation": (_("Revoked"), "bad"),
        "exchange.repeated": (_("The same answer once more"), ""),
        "deferred.repeated": (_("The same answer once more"), ""),
        "hand_over.repeated": (_("The same answer once more"), ""),
        "approval.approved": (_("Approved"), "good"),
        "approval.agreed": (_("One of several agreed"), ""),
        "approval.refused": (_("Refused by a person"), "bad"),
        "approval.expired": (_("Nobody answered in time"), "bad"),
        "approval.escalated": (_("Others were asked as well"), ""),
        "approval_rule.taken_back": (_("The user wants to be asked again"), ""),
        "authorization_code.permitted": (_("The grant was fetched"), ""),
        "device_code.permitted": (_("The grant was fetched"), ""),
        "grant_query.permitted": (_("The agent looked at its grant"), ""),
        "token_revocation.permitted": (_("The agent gave a permission back"), ""),
        "task_completion.permitted": (_("The agent ended the task"), ""),
    }
