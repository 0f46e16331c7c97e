"""What the organisation's policies add to an exchange: 10, 100 and 1,000 of them, and chains of 1, 3 and 8 links.

Policies are for one action or another in turn, as they are written; beside that, all of them for the action that is
asked for. Each has two conditions, which the request does not meet; so no policy is spared any work.
"""

import os
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from authserver.config import SHIPPED
from authserver.policy.catalogue import Catalogue, parse_catalogue
from authserver.policy.cedar import PolicySet
from authserver.policy.cedar_text import Source, read_policies
from authserver.policy.decide import Allowance, Permit, Situation, Spent, decide
from authserver.policy.delegation_details import DelegationDetails, parse_delegation
from authserver.policy.details import ActionDetails, Merchant
from authserver.policy.facts import Caller, Facts
from authserver.policy.reading import Vocabulary
from authserver.values import CountryGroups, Datatypes, Money
from bench.processes import CORES, SERVER_CORE

COUNTS = (10, 100, 1_000)
DEPTHS = (1, 3, 8)
_SHOP = "https://shop.example/api"
_BATCHES, _EACH = 10, 50
_BASE = '@id("all") permit (principal, action, resource);\n'
_RULE = (
    '@id("rule-{number}") forbid (principal, action == Action::"{action}", resource)\n'
    "when {{ context has amount && context.amount > {amount} &&\n"
    '  context has category && context.category == "7995" }};\n'
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Microseconds of CPU for one decision, by the number of policies or links."""

    in_turn: Mapping[int, float]
    all_for_one: Mapping[int, float]
    delegation: Mapping[int, float]
    load: Mapping[int, float]  # milliseconds to read, check and prepare


def measure() -> Measured:
    """Measure all, on the core that servers have."""
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        return _measure(_vocabulary())
    finally:
        os.sched_setaffinity(0, CORES)


def _measure(vocabulary: Vocabulary) -> Measured:
    names, action = vocabulary.catalogue.names, "payment.finalize"
    facts = _facts(action)
    load = dict[int, float]()
    in_turn, all_for_one = dict[int, float](), dict[int, float]()
    for count in COUNTS:
        started = time.process_time()
        spread = _policies(vocabulary.catalogue, [names[number % len(names)] for number in range(count)])
        load[count] = 1e3 * (time.process_time() - started)
        same = _policies(vocabulary.catalogue, [action] * count)
        in_turn[count] = _best(lambda spread=spread: spread.judge(facts))  # type: ignore[misc]
        all_for_one[count] = _best(lambda same=same: same.judge(facts))  # type: ignore[misc]
    return Measured(in_turn, all_for_one, _delegations(vocabulary), load)


def _delegations(vocabulary: Vocabulary) -> Mapping[int, float]:
    details, request = _delegation(vocabulary), _action("payment.finalize")
    situation = Situation(_SHOP, None, None)

    def of(depth: int) -> float:
        chain = [Allowance(details, Spent(0, 0, ()))] * depth
        if not isinstance(decide(chain, request, situation, vocabulary), Permit):
            raise TypeError("the delegation does not allow what is measured")
        return _best(lambda: decide(chain, request, situation, vocabulary))

    return {depth: of(depth) for depth in DEPTHS}


def _best(operation: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_BATCHES):
        started = time.process_time()
        for _ in range(_EACH):
            operation()
        best = min(best, 1e6 * (time.process_time() - started) / _EACH)
    return best


def _policies(catalogue: Catalogue, actions: list[str]) -> PolicySet:
    rules = (_RULE.format(number=n, action=a, amount=100_000 + n) for n, a in enumerate(actions))
    return PolicySet.build(read_policies(Source("bench", "bench.cedar", _BASE + "".join(rules))), catalogue)


def _action(name: str) -> ActionDetails:
    merchant = Merchant.parse({"id": "m_123", "category": "5411", "country": "NL"})
    return ActionDetails(name, _SHOP, Money.parse("EUR", "42.50"), merchant)


def _facts(name: str) -> Facts:
    facts = Facts(
        caller=Caller("agent", "example.org"),
        resource_server=_SHOP,
        platform=True,
        action=_action(name),
        datatypes=frozenset(),
        user="user",
        at=datetime(2026, 11, 24, 12, tzinfo=UTC),
        dpop=False,
    )
    return replace(facts, budget_left=30_000)


def _delegation(vocabulary: Vocabulary) -> DelegationDetails:
    expires = datetime.now(UTC) + timedelta(days=30)
    return parse_delegation(
        {
            "type": "agent_delegation",
            "actions": ["payment.finalize"],
            "locations": [_SHOP],
            "limits": {"currency": "EUR", "per_action": "80.00", "total": "300.00"},
            "merchants": {"categories": ["5411", "5811-5814"], "countries": ["NL", "EU"]},
            "expires": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        vocabulary,
    )


def _vocabulary() -> Vocabulary:
    def shipped(name: str) -> Mapping[str, object]:
        return tomllib.loads((SHIPPED / name).read_text(encoding="utf-8"))

    return Vocabulary(
        parse_catalogue(shipped("actions.toml"), "actions.toml"),
        Datatypes.parse(shipped("datatypes.toml"), "datatypes.toml"),
        CountryGroups.parse(shipped("country-groups.toml"), "country-groups.toml"),
    )


if __name__ == "__main__":
    print(measure())
