"""Narrowing as a property: whatever a delegation that may be handed on permits, the one above it permits too."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from authserver.errors import Refusal
from authserver.ledger.spending import windows_of
from authserver.policy.decide import Allowance, NeedsApproval, Permit, Refuse, Situation, Spent, decide
from authserver.policy.delegation_details import DelegationDetails, parse_delegation
from authserver.policy.details import ActionDetails, Merchant
from authserver.policy.narrowing import widenings
from authserver.policy.periods import window_index
from authserver.values import Country, MerchantCategory, Money
from tests.shipped import VOCABULARY

SHOP, MARKET = "https://shop.example/api", "https://market.example/api"
BEGIN = datetime(2026, 1, 31, 6, tzinfo=UTC)  # a day that not every month has


def text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


# --- delegations ------------------------------------------------------------------------------------------------

ACTIONS = (
    ["payment.finalize"],
    ["catalog.search", "payment.finalize"],
    ["catalog.search", "order.checkout", "payment.finalize", "profile.read"],
    ["payment.finalize", "refund.initiate", "order.change_address"],
    ["order.change_address", "personal_data.export", "payment.finalize"],
)
CATEGORIES = (["5411"], ["5411", "5812"], ["5811-5814"], ["5811-5812", "5813-5814"], ["5411-5814"], ["any"])
COUNTRIES = (["NL"], ["NL", "BE"], ["EU"], ["EEA"], ["EU", "NO"], ["NO", "IS"], ["any"])
IDS = (None, ["m_1"], ["m_1", "m_2"])
EXCEPT = (
    None,
    {"categories": [], "countries": [], "ids": []},
    {"categories": ["5813"], "countries": [], "ids": []},
    {"categories": ["5811-5813"], "countries": ["NL"], "ids": ["m_2"]},
    {"countries": ["EU"], "ids": ["m_1", "m_2"]},
)
AMOUNTS = ("1.00", "2.00", "3.00", "5.00")
TOTALS = ("2.00", "4.00", "8.00")
COUNTS = (None, 1, 2, 3)
RULES = tuple(
    {"amount": amount, "period": period, **only}
    for amount, period, only in product(
        ("1.00", "2.00", "4.00"),
        ("PT6H", "PT12H", "P1D", "P2D", "P3D", "P7D", "P1M", "P1Y"),
        ({}, {"categories": ["5411"]}, {"categories": ["5811-5814"]}, {"ids": ["m_1"]}),
    )
)
DATATYPES = (None, ["email"], ["contact"], ["email", "phone"], ["profile"], ["addresses"], ["any"])
APPROVALS = (
    None,
    {"above": "1.00"},
    {"above": "3.00"},
    {"actions": ["payment.finalize"]},
    {"above": "2.00", "actions": ["order.change_address"]},
    {"actions": []},
)
LATER = tuple(timedelta(hours=hours) for hours in (0, 3, 6, 24, 59 * 24, 7 * 24, 28 * 24))
LASTS = (timedelta(days=70), timedelta(days=80))
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "actions": st.sampled_from(ACTIONS),
    "locations": st.sampled_from(([SHOP], [SHOP, MARKET], ["any"])),
    "currency": st.sampled_from(("EUR", "EUR", "EUR", "USD")),
    "per_action": st.sampled_from(AMOUNTS),
    "total": st.sampled_from(TOTALS),
    "per_period": st.lists(st.sampled_from(RULES), max_size=2, unique_by=str),
    "count": st.sampled_from(COUNTS),
    "categories": st.sampled_from(CATEGORIES),
    "countries": st.sampled_from(COUNTRIES),
    "ids": st.sampled_from(IDS),
    "except": st.sampled_from(EXCEPT),
    "datatypes": st.sampled_from(DATATYPES),
    "approval": st.sampled_from(APPROVALS),
    "depth": st.integers(0, 3),
    "not_before": st.sampled_from(LATER),
    "expires": st.sampled_from(LASTS),
}
CHANGES = st.sets(st.sampled_from(sorted(MEMBERS)), max_size=5)


def details(members: dict[str, Any]) -> DelegationDetails | None:
    """An `agent_delegation` of these members; None where the contract has something against it."""
    limits = {name: members[name] for name in ("currency", "per_action", "total", "per_period", "count")}
    merchants = {name: members[name] for name in ("categories", "countries", "ids", "except")}
    document = {
        "type": "agent_delegation",
        "actions": members["actions"],
        "locations": members["locations"],
        "limits": {name: value for name, value in limits.items() if value},
        "merchants": {name: value for name, value in merchants.items() if value is not None},
        "datatypes": members["datatypes"],
        "approval": members["approval"],
        "redelegation": {"depth": members["depth"]},
        "not_before": text(BEGIN + members["not_before"]),
        "expires": text(BEGIN + members["expires"]),
    }
    try:
        return parse_delegation(
            {name: value for name, value in document.items() if value is not None}, VOCABULARY
        )
    except Refusal:
        return None


@st.composite
def pairs(draw: st.DrawFn) -> tuple[DelegationDetails, DelegationDetails] | None:
    """A delegation that may be handed on, and one that differs from it in some members."""
    parent = {name: draw(strategy) for name, strategy in MEMBERS.items()}
    parent["depth"] = draw(st.integers(1, 3))
    child = parent | {"depth": parent["depth"] - 1}
    child |= {name: draw(MEMBERS[name]) for name in sorted(draw(CHANGES))}
    if draw(st.booleans()):  # rules of its own, beside
        child["per_period"] = [*child["per_period"], *draw(MEMBERS["per_period"])][:8]
    above, below = details(parent), details(child)
    return (above, below) if above and below else None


# --- what is done with them ---------------------------------------------------------------------------------------

MERCHANTS = st.builds(
    Merchant,
    st.sampled_from((None, "m_1", "m_2", "m_3")),
    st.sampled_from((None, *map(MerchantCategory, ("5411", "5811", "5812", "5813", "5814", "7995")))),
    st.sampled_from((None, *map(Country, ("NL", "BE", "FR", "NO", "US")))),
    st.just("Somebody"),
)
PAYMENTS = st.builds(
    ActionDetails,
    st.sampled_from(("payment.finalize", "payment.finalize", "order.checkout", "refund.initiate")),
    amount=st.builds(
        Money, st.sampled_from(("EUR", "EUR", "EUR", "USD")), st.sampled_from((50, 100, 200, 300))
    ),
    merchant=MERCHANTS,
    reference=st.just("r-1"),
)
OTHERS = st.builds(
    ActionDetails,
    st.sampled_from(("catalog.search", "profile.read", "order.change_address", "personal_data.export")),
    merchant=st.none() | MERCHANTS,
    datatypes=st.sampled_from(((), ("email",), ("email", "phone"), ("birth_date",), ("shipping_address",))),
    reference=st.just("r-1"),
)
# After how many hours, what, where; and whether what was paid before is refunded first.
STEPS = st.lists(
    st.tuples(
        st.sampled_from((0, 0, 1, 3, 6, 12, 24, 48, 100, 500)),
        st.one_of(PAYMENTS, PAYMENTS, PAYMENTS, OTHERS),
        st.sampled_from((SHOP, MARKET)),
        st.booleans(),
    ),
    min_size=4,
    max_size=14,
)


@dataclass
class Used:
    """One delegation by itself, with what was spent of it."""

    details: DelegationDetails
    total: int = 0
    count: int = 0
    windows: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def anchor(self) -> datetime:
        assert self.details.not_before is not None
        return self.details.not_before

    def stands(self, now: datetime) -> bool:
        return self.anchor <= now < self.details.expires

    def judge(self, request: ActionDetails, place: str, now: datetime) -> Permit | Refuse | NeedsApproval:
        rules = self.details.limits.per_period if self.details.limits else ()
        periods = tuple(
            self.windows[number, window_index(self.anchor, rule.period, now)]
            for number, rule in enumerate(rules)
        )
        spent = Spent(self.total, self.count, periods)
        return decide([Allowance(self.details, spent)], request, Situation(place, None, None), VOCABULARY)

    def pays(self, request: ActionDetails, now: datetime) -> None:
        assert request.amount is not None
        self.total += request.amount.minor
        self.count += 1
        for rule, window, _ in windows_of(self.details, self.anchor, request.merchant, now):
            self.windows[rule, window] += request.amount.minor


def follows(above: DelegationDetails, below: DelegationDetails, steps: list[Any]) -> int:
    """Do all that the child permits, and hold the parent to it; returns how much that was."""
    parent, child = Used(above), Used(below)
    now, done = child.anchor, 0
    for hours, request, place, refunded in steps:
        now += timedelta(hours=hours)
        if not child.stands(now):
            break
        assert parent.stands(now)
        if refunded:  # contract §4: a refund gives back `total` only
            child.total = parent.total = 0
        answer = child.judge(request, place, now)
        if isinstance(answer, Refuse):
            continue
        above_it = parent.judge(request, place, now)
        assert not isinstance(above_it, Refuse), (request, now, above_it)
        assert isinstance(above_it, Permit) or isinstance(answer, NeedsApproval), (request, above_it)
        done += 1
        if answer.entry.budget == "debit":
            child.pays(request, now)
            parent.pays(request, now)
    return done


def holds(pair: tuple[DelegationDetails, DelegationDetails] | None, steps: list[Any]) -> None:
    """The property, for one pair."""
    if pair is None:
        event("not a delegation")
    elif widenings(*pair, VOCABULARY):
        event("broader")
    else:
        event("narrower, and used" if follows(*pair, steps) else "narrower")


NO_HURRY = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    database=None,
)


@settings(NO_HURRY, max_examples=400)
@given(pairs(), STEPS)
def test_A90_whatever_a_narrower_delegation_permits_its_parent_permits(
    pair: tuple[DelegationDetails, DelegationDetails] | None, steps: list[Any]
) -> None:
    holds(pair, steps)


@pytest.mark.prove
@settings(NO_HURRY, max_examples=100_000)
@given(pairs(), STEPS)
def test_A90_the_same_for_a_hundred_thousand_pairs(
    pair: tuple[DelegationDetails, DelegationDetails] | None, steps: list[Any]
) -> None:
    holds(pair, steps)


# --- a small domain, all of it ------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "actions": ["payment.finalize", "order.change_address", "profile.read"],
    "locations": [SHOP],
    "currency": "EUR",
    "per_action": "5.00",
    "total": "8.00",
    "per_period": [],
    "count": None,
    "categories": ["any"],
    "countries": ["any"],
    "ids": None,
    "except": None,
    "datatypes": ["any"],
    "approval": None,
    "depth": 1,
    "not_before": timedelta(),
    "expires": timedelta(days=70),
}
FACTS = [
    Merchant(id, category and MerchantCategory(category), country and Country(country), "Somebody")
    for id, category, country in product(
        (None, "m_1", "m_2", "m_3"), (None, "5411", "5812", "5813"), (None, "NL", "FR", "NO", "US")
    )
]
EVERY_EXCEPTION = tuple(
    {"categories": categories, "countries": countries, "ids": ids}
    for categories, countries, ids in product(
        ([], ["5812"], ["5812-5813"]), ([], ["NL"], ["EU"], ["NL", "NO"]), ([], ["m_1"], ["m_1", "m_2"])
    )
)
DOMAINS: dict[str, tuple[dict[str, tuple[Any, ...]], list[ActionDetails]]] = {
    "merchants": (
        {"categories": (*CATEGORIES, ["0000-4999", "5000-9999"]), "countries": COUNTRIES},
        [ActionDetails("payment.finalize", amount=Money("EUR", 100), merchant=facts) for facts in FACTS],
    ),
    "exceptions": (
        {"ids": (None, ["m_1", "m_2"]), "except": (None, *EVERY_EXCEPTION)},
        [ActionDetails("payment.finalize", amount=Money("EUR", 100), merchant=facts) for facts in FACTS],
    ),
    "asking": (
        {"approval": APPROVALS, "actions": ACTIONS, "per_action": ("1.00", "3.00")},
        [
            *(
                ActionDetails(name, amount=Money("EUR", minor), merchant=FACTS[-1], reference="r")
                for name, minor in product(("payment.finalize", "refund.initiate"), (100, 150, 250, 350))
            ),
            ActionDetails("order.change_address", reference="r"),
        ],
    ),
    "data": (
        {"datatypes": DATATYPES, "locations": ([SHOP], [MARKET], [SHOP, MARKET], ["any"])},
        [ActionDetails("profile.read", datatypes=(name,)) for name in VOCABULARY.datatypes.contains],
    ),
}


def everything(domain: dict[str, tuple[Any, ...]], depth: int) -> Iterator[DelegationDetails]:
    for values in product(*domain.values()):
        made = details(PLAIN | {"depth": depth} | dict(zip(domain, values, strict=True)))
        if made is not None:
            yield made


@pytest.mark.parametrize("name", DOMAINS)
def test_A90_in_a_small_domain_each_narrower_delegation_permits_a_part(name: str) -> None:
    domain, requests = DOMAINS[name]
    answers = {
        depth: [
            (made, [_answer(made, request, place) for request in requests for place in (SHOP, MARKET)])
            for made in everything(domain, depth)
        ]
        for depth in (0, 1)
    }
    narrower = 0
    for (above, allowed), (below, asked) in product(answers[1], answers[0]):
        if not widenings(above, below, VOCABULARY):
            narrower += 1
            assert all(one <= other for one, other in zip(asked, allowed, strict=True)), (above, below)
    assert narrower > len(answers[0])


def _answer(made: DelegationDetails, request: ActionDetails, place: str) -> int:
    """0 for a refusal, 1 where somebody is asked, 2 for a permit."""
    answer = Used(made).judge(request, place, BEGIN)
    return {Refuse: 0, NeedsApproval: 1, Permit: 2}[type(answer)]
