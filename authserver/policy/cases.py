"""Cases that a set of policies is held to: a request in a few words, and what the policies must say of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from authserver.policy.catalogue import parse_approver
from authserver.policy.cedar import PolicyAnswer, PolicySet
from authserver.policy.cedar_text import Policy, Source, read_policies
from authserver.policy.details import ActionDetails, Merchant
from authserver.policy.facts import (
    FIRST_PAYMENT,
    RECENT,
    RISKS,
    SINCE,
    Caller,
    Facts,
    History,
    with_contained,
)
from authserver.policy.reading import (
    Vocabulary,
    read_action,
    read_datatype,
    read_identifier,
    read_instant,
    read_list,
    read_member,
    read_object,
    read_whole_number,
)
from authserver.values import Money, NotAValue, parse_reference

OUTCOMES = ("permit", "forbid", "approval")
_MOST = 2**53
_NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
_PLACE = "https://shop.example/api"


@dataclass(frozen=True, slots=True)
class Case:
    """One request and what must come of it. `by` and `approvers` are None where the case does not say."""

    name: str
    facts: Facts = field(repr=False)
    expect: str
    by: tuple[str, ...] | None
    approvers: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case; `wrong` says what is not as expected, or is None."""

    case: Case
    answer: PolicyAnswer
    wrong: str | None


def parse_cases(document: Mapping[str, object], vocabulary: Vocabulary) -> tuple[Case, ...]:
    """Read the cases of a file as TOML gives it. Raises `NotAValue`, which names the case and the member."""
    entries = document.get("case")
    if set(document) != {"case"} or not isinstance(entries, list):
        raise NotAValue("takes tables [[case]], and nothing else")
    return tuple(_case(number, entry, vocabulary) for number, entry in enumerate(entries, 1))


def run(case: Case, policies: PolicySet) -> Result:
    """Ask the policies, and compare."""
    answer = policies.judge(case.facts)
    return Result(case, answer, _wrong(case, answer))


def on_their_own(policies: tuple[Policy, ...]) -> tuple[Policy, ...]:
    """The policies as their cases see them: where they permit nothing, as if all that they do not forbid were."""
    if any(policy.effect == "permit" for policy in policies):
        return policies
    text = '@id("all-else") permit (principal, action, resource);'
    return (*read_policies(Source("cases", "cases", text)), *policies)


def _wrong(case: Case, answer: PolicyAnswer) -> str | None:
    if answer.outcome != case.expect:
        because = f" ({answer.failed[0]})" if answer.failed else ""
        return f"expects {case.expect}, gets {answer.outcome} by {', '.join(answer.decided_by)}{because}"
    if case.by is not None and {*case.by} != {*answer.decided_by}:
        return f"expects it by {', '.join(case.by)}, gets it by {', '.join(answer.decided_by)}"
    approvers = {ask.approver for ask in answer.asks}
    if case.approvers is not None and {*case.approvers} != approvers:
        return f"expects to ask {', '.join(case.approvers)}, asks {', '.join(sorted(approvers)) or 'nobody'}"
    return None


def _case(number: int, unverified: object, vocabulary: Vocabulary) -> Case:
    name = unverified.get("name") if isinstance(unverified, dict) else None
    try:
        members = read_object(unverified, frozenset(_MEMBERS), ("name", "action", "expect"))
        values = dict(_values(members, vocabulary))
    except NotAValue as error:
        raise error.inside(f"case {name!a}" if isinstance(name, str) else f"case {number}") from error
    return Case(
        values["name"],
        _facts(values, vocabulary),
        values["expect"],
        values.get("by"),
        values.get("approvers"),
    )


def _values(members: Mapping[str, object], vocabulary: Vocabulary) -> Iterator[tuple[str, Any]]:
    for name, unverified in members.items():
        read = _MEMBERS[name]
        yield name, read_member(name, lambda said, read=read: read(said, vocabulary), unverified)  # type: ignore[misc]


def _facts(values: Mapping[str, Any], vocabulary: Vocabulary) -> Facts:
    place, datatypes = values.get("resource_server", _PLACE), values.get("datatypes", ())
    action = ActionDetails(
        values["action"],
        place,
        values.get("amount"),
        values.get("merchant"),
        datatypes,
        values.get("reference"),
    )
    facts = Facts(
        caller=Caller(
            values.get("agent", "agent"),
            values.get("trust_domain", "example.org"),
            values.get("owner"),
            values.get("risk"),
        ),
        resource_server=place,
        platform=values.get("platform", False),
        action=action,
        datatypes=with_contained(datatypes, vocabulary.datatypes),
        user=values.get("user", "user"),
        at=values.get("at", _NOON),
        dpop=values.get("dpop", False),
        task=values.get("task"),
        chain_depth=values.get("chain_depth", 0),
        budget_left=values.get("budget_left"),
        approved_by=frozenset(values.get("approved_by", ())),
    )
    recent = {name: values.get(name, 0) for name in RECENT}
    return replace(facts, history=History(values.get(SINCE, {}), values.get(FIRST_PAYMENT, False), recent))


Read = Callable[[object, Vocabulary], object]


def _text(unverified: object, vocabulary: Vocabulary) -> str:
    if not isinstance(unverified, str) or not 1 <= len(unverified) <= 256:
        raise NotAValue("takes a text of 1 to 256 characters")
    return unverified


def _flag(unverified: object, vocabulary: Vocabulary) -> bool:
    if not isinstance(unverified, bool):
        raise NotAValue("takes true or false")
    return unverified


def _number(unverified: object, vocabulary: Vocabulary) -> int:
    return read_whole_number(unverified, 0, _MOST)


def _outcome(unverified: object, vocabulary: Vocabulary) -> str:
    if unverified not in OUTCOMES:
        raise NotAValue(f"takes one of {', '.join(OUTCOMES)}")
    return str(unverified)


def _risk(unverified: object) -> str:
    if unverified not in RISKS:
        raise NotAValue(f"takes one of {', '.join(RISKS)}")
    return str(unverified)


def _texts(unverified: object, vocabulary: Vocabulary) -> tuple[str, ...]:
    return read_list(unverified, lambda said: _text(said, vocabulary))


def _approvers(unverified: object, vocabulary: Vocabulary) -> tuple[str, ...]:
    return read_list(unverified, parse_approver)


def _amount(unverified: object, vocabulary: Vocabulary) -> Money:
    members = read_object(unverified, frozenset({"currency", "value"}), ("currency", "value"))
    return Money.parse(members["currency"], members["value"])


def _since(unverified: object, vocabulary: Vocabulary) -> dict[str, int]:
    members = read_object(unverified, frozenset(vocabulary.catalogue.names))
    return {
        name: read_member(name, lambda said: _number(said, vocabulary), said)
        for name, said in members.items()
    }


_MEMBERS: Mapping[str, Read] = {
    "name": _text,
    "expect": _outcome,
    "by": _texts,
    "approvers": _approvers,
    "action": lambda said, vocabulary: read_action(vocabulary)(said),
    "agent": _text,
    "trust_domain": _text,
    "owner": _text,
    "risk": lambda said, _: _risk(said),
    "user": _text,
    "resource_server": lambda said, _: read_identifier(said),
    "platform": _flag,
    "amount": _amount,
    "merchant": lambda said, _: Merchant.parse(said),
    "datatypes": lambda said, vocabulary: read_list(said, read_datatype(vocabulary)),
    "reference": lambda said, _: parse_reference(said),
    "at": lambda said, _: read_instant(said),
    "task": _text,
    "dpop": _flag,
    "chain_depth": _number,
    "budget_left": _number,
    "approved_by": _approvers,
    SINCE: _since,
    FIRST_PAYMENT: _flag,
    **dict.fromkeys(RECENT, _number),
}
