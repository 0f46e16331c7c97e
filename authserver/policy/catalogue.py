"""The catalogue: every sensitive action, who answers for it and what it needs (contract §4)."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, Literal

from authserver.policy.periods import parse_span
from authserver.values import NotAValue, parse_name

NEEDS = ("amount", "merchant", "datatypes", "reference")
LONGEST_LIFETIME = 300
MOST_APPROVALS = 5
MOST_STEPS = 8

_ACTION = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_GROUP = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class CatalogueError(ValueError):
    """The catalogue cannot be used; each line of the message names file, action and key, and what the key takes."""


@dataclass(frozen=True, slots=True)
class Escalation:
    """Who is asked as well where nobody has answered so long `after` an approval was opened."""

    to: str
    after: timedelta


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One sensitive action, as `config/actions.toml` explains it.

    `approvals` is how many different people must agree; `escalation` has one step or more, each later than the one
    before; `lifetime` is in seconds; `needs` holds names of `NEEDS`; `settle_within` is None unless the action debits a
    budget; `datatypes` are those that it may ever be for, with what they contain, None for all.
    """

    name: str
    title: str
    owner: str
    approver: str
    approvals: int
    approval: Literal["delegation", "unless_delegated", "always"]
    escalation: tuple[Escalation, ...]
    needs: frozenset[str]
    budget: Literal["debit", "credit", "check", "none"]
    lifetime: int
    redeem: bool
    settle_within: timedelta | None
    sender_constraint: Literal["optional", "required"]
    datatypes: tuple[str, ...] | None = None

    @property
    def moves_money(self) -> bool:
        """Whether money changes hands, in either direction."""
        return self.budget in ("debit", "credit")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All actions that this server knows, by name."""

    entries: Mapping[str, CatalogueEntry]

    def get(self, name: str) -> CatalogueEntry | None:
        """The entry of that name, or None where there is no such action."""
        return self.entries.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The actions in the order of the file."""
        return tuple(self.entries)


def parse_catalogue(document: Mapping[str, object], source: str) -> Catalogue:
    """Read the catalogue as TOML gives it; `source` is the file's name, for the error.

    Every key is required, but `approvals` and `datatypes`; `settle_within`, which is required where `budget` is `debit`
    and refused elsewhere; and either `escalation`, or `escalate_to` with `escalate_after`, which is a chain of one.
    Raises `CatalogueError` with one line for each key that is wrong.
    """
    actions = document.get("actions")
    if set(document) != {"actions"} or not isinstance(actions, dict) or not actions:
        raise CatalogueError(f'{source}: takes one table [actions."NAME"] or more, and nothing else')
    problems = [f"{source}: {line}" for name, entry in actions.items() for line in _problems(name, entry)]
    if problems:
        raise CatalogueError("\n".join(problems))
    return Catalogue({name: _entry(name, entry) for name, entry in actions.items()})


def _entry(name: str, checked: Mapping[str, object]) -> CatalogueEntry:
    values: dict[str, Any] = {key: parse(checked[key]) for key, parse in _KEYS.items() if key in checked}
    to, after = values.pop("escalate_to", None), values.pop("escalate_after", None)
    chain = values.get("escalation") or (Escalation(to, after),)
    return CatalogueEntry(
        **{"settle_within": None, "approvals": 1, **values, "escalation": chain, "name": name}
    )


def _problems(name: str, unverified: object) -> Iterator[str]:
    if not _ACTION.fullmatch(name) or len(name) > 64:
        yield f"{name!a}: an action's name takes words of a-z 0-9 _ with dots between them, 64 at most"
    elif not isinstance(unverified, dict):
        yield f"{name}: takes a table of keys"
    else:
        wrong = [*_wrong_keys(unverified)] or [*_contradictions(unverified)]
        yield from (f"{name}: {key}: {reason}" for key, reason in wrong)


def _wrong_keys(unverified: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    optional = _OPTIONAL | (_ONE_STEP if "escalation" in unverified else {"escalation"})
    for key, parse in _KEYS.items():
        try:
            if key in unverified or key not in optional:
                parse(unverified.get(key))
        except NotAValue as error:
            yield key, error.reason if key in unverified else f"is missing; {error.reason}"
    yield from ((f"{key!a}", "is no key of an action") for key in unverified if key not in _KEYS)


def _contradictions(entry: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """What fits alone but not together: an amount that nobody named could be bounded by nothing."""
    budget, needs = entry["budget"], _needs(entry["needs"])
    moves_money = budget in ("debit", "credit")
    if budget != "none" and not {"amount", "merchant"} <= needs:
        yield "needs", "takes amount and merchant, where budget is debit, credit or check"
    if budget == "credit" and "reference" not in needs:
        yield "needs", "takes reference, where budget is credit: it names the payment that is given back"
    if "escalation" in entry and not _ONE_STEP.isdisjoint(entry):
        yield "escalation", "takes the place of escalate_to and escalate_after: there is one or the other"
    if "datatypes" in needs and entry.get("datatypes") == []:
        yield "datatypes", "takes one or more, or stays away, where needs has datatypes"
    if moves_money and not entry["redeem"]:
        yield "redeem", "takes true, where budget is debit or credit"
    if entry["approver"] == "user" and entry.get("approvals", 1) != 1:
        yield "approvals", "takes 1, or nothing, where approver is user, who is one person"
    if (budget == "debit") != ("settle_within" in entry):
        yield "settle_within", "takes a duration such as P7D where budget is debit, and stays away elsewhere"


def _one_of(*words: str) -> Callable[[object], str]:
    def parse(unverified: object) -> str:
        if not isinstance(unverified, str) or unverified not in words:
            raise NotAValue(f"takes {', '.join(words[:-1])} or {words[-1]}")
        return unverified

    return parse


def _title(unverified: object) -> str:
    try:
        return parse_name(unverified)
    except NotAValue as error:
        raise NotAValue("takes the words that a person reads, 1 to 100 characters") from error


def _group(unverified: object) -> str:
    if not isinstance(unverified, str) or not _GROUP.fullmatch(unverified):
        raise NotAValue("takes the name of a group, of a-z 0-9 _ -")
    return unverified


def parse_approver(unverified: object) -> str:
    """Read who is asked: `user`, whose delegation it is, or `group:NAME`. Raises `NotAValue`."""
    text = unverified if isinstance(unverified, str) else ""
    if text != "user" and not (text.startswith("group:") and _GROUP.fullmatch(text.removeprefix("group:"))):
        raise NotAValue("takes user or group:NAME")
    return text


def _span(unverified: object) -> timedelta:
    try:
        return parse_span(unverified)
    except NotAValue as error:
        raise NotAValue("takes a duration such as PT10M, PT2H or P7D") from error


def _escalation(unverified: object) -> tuple[Escalation, ...]:
    entries = unverified if isinstance(unverified, list) else []
    if not 1 <= len(entries) <= MOST_STEPS or not all(isinstance(entry, dict) for entry in entries):
        raise NotAValue(f"takes a list of 1 to {MOST_STEPS} tables {{ to = …, after = … }}")
    steps = tuple(map(_step, entries))
    if any(later.after <= step.after for step, later in pairwise(steps)):
        raise NotAValue(
            "takes steps that are each later than the one before: after counts from the beginning"
        )
    return steps


def _step(unverified: Mapping[str, object]) -> Escalation:
    if unverified.keys() != {"to", "after"}:
        raise NotAValue("takes to and after in each step, and nothing else")
    return Escalation(parse_approver(unverified["to"]), _span(unverified["after"]))


def _needs(unverified: object) -> frozenset[str]:
    entries = unverified if isinstance(unverified, list) else [None]
    if not all(entry in NEEDS for entry in entries) or len(set(entries)) != len(entries):
        raise NotAValue(f"takes a list, each at most once, of {', '.join(NEEDS)}")
    return frozenset(entries)


def _datatypes(unverified: object) -> tuple[str, ...]:
    entries = unverified if isinstance(unverified, list) else [None]
    if not all(isinstance(entry, str) for entry in entries) or len(set(entries)) != len(entries):
        raise NotAValue("takes a list of data types, each at most once")
    return tuple(entries)


def _lifetime(unverified: object) -> int:
    if type(unverified) is not int or not 1 <= unverified <= LONGEST_LIFETIME:
        raise NotAValue(f"takes seconds, 1 to {LONGEST_LIFETIME}")
    return unverified


def _approvals(unverified: object) -> int:
    if type(unverified) is not int or not 1 <= unverified <= MOST_APPROVALS:
        raise NotAValue(f"takes a number of people, 1 to {MOST_APPROVALS}")
    return unverified


def _flag(unverified: object) -> bool:
    if not isinstance(unverified, bool):
        raise NotAValue("takes true or false")
    return unverified


_KEYS: Mapping[str, Callable[[object], object]] = {
    "title": _title,
    "owner": _group,
    "approver": parse_approver,
    "approvals": _approvals,
    "approval": _one_of("delegation", "unless_delegated", "always"),
    "escalate_to": parse_approver,
    "escalate_after": _span,
    "escalation": _escalation,
    "needs": _needs,
    "budget": _one_of("debit", "credit", "check", "none"),
    "lifetime": _lifetime,
    "redeem": _flag,
    "settle_within": _span,
    "sender_constraint": _one_of("optional", "required"),
    "datatypes": _datatypes,
}
_OPTIONAL = frozenset({"approvals", "settle_within", "datatypes"})
_ONE_STEP = frozenset({"escalate_to", "escalate_after"})
