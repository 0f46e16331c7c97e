"""Policies only narrow, and are asked in a way that changes nothing about what they say."""

import json
from datetime import UTC, datetime, timedelta

import cedarpy
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver.errors import Violation
from authserver.policy.cedar import PolicySet, narrowed
from authserver.policy.cedar_text import Policy, Source, read_policies
from authserver.policy.decide import NeedsApproval, Permit, Refuse
from authserver.policy.details import ActionDetails, Merchant
from authserver.policy.facts import RECENT, Caller, Facts, History, schema_text, with_contained
from authserver.values import Money
from tests.shipped import VOCABULARY

CATALOGUE = VOCABULARY.catalogue
ACTIONS = st.sampled_from(CATALOGUE.names)
CONDITIONS = st.sampled_from(
    (
        "true",
        "false",
        "context has amount && context.amount > 4000",
        'context has country && context.country == "NL"',
        "!(context has merchant)",
        "context.hour >= 12",
        "context.first_payment",
        "context.payments_last_hour >= 2",
        'context.seconds_since has "payment.finalize" && context.seconds_since["payment.finalize"] < 100',
        'context.datatypes.contains("email")',
        "principal has owner",
        "resource.platform",
        "context.dpop",
        'context.approved_by.contains("user")',
        'action in Action::"budget:debit"',
        "context.chain_depth * 9223372036854775807 > 3",  # fails from depth 2
    )
)
SCOPES = st.one_of(
    st.just("action"),
    ACTIONS.map('action == Action::"{}"'.format),
    st.sampled_from(("debit", "credit", "none", "check")).map('action in Action::"budget:{}"'.format),
    st.lists(ACTIONS, min_size=1, max_size=3).map(
        lambda names: "action in [" + ", ".join(f'Action::"{name}"' for name in names) + "]"
    ),
)
PRINCIPALS = st.sampled_from(
    ("principal", 'principal == Agent::"a"', 'principal in TrustDomain::"example.org"')
)


@st.composite
def policy_sets(draw: st.DrawFn) -> tuple[Policy, ...]:
    """Up to eight policies."""
    texts = []
    for number in range(draw(st.integers(0, 8))):
        effect = draw(st.sampled_from(("permit", "forbid")))
        approval = draw(st.sampled_from(("", '@approval("user")', '@approval("group:g")')))
        annotations = f'@id("p{number}") {approval if effect == "forbid" else ""}'
        condition = draw(st.sampled_from(("", "when", "unless")))
        body = f"{condition} {{ {draw(CONDITIONS)} }}" if condition else ""
        texts.append(f"{annotations} {effect} ({draw(PRINCIPALS)}, {draw(SCOPES)}, resource) {body};")
    return read_policies(Source("x", "x.cedar", "\n".join(texts)))


@st.composite
def requests(draw: st.DrawFn) -> Facts:
    """A request with whatever may be known of it."""
    amount = draw(st.one_of(st.none(), st.integers(1, 10_000).map(lambda minor: Money("EUR", minor))))
    merchants = st.fixed_dictionaries(
        {"country": st.sampled_from(("NL", "BE"))}, optional={"id": st.just("m_1")}
    )
    merchant = draw(st.one_of(st.none(), merchants.map(Merchant.parse)))
    datatypes = draw(st.sampled_from(((), ("contact",), ("name",))))
    at = datetime(2026, 11, 24, tzinfo=UTC) + timedelta(hours=draw(st.integers(0, 23)))
    history = History(
        draw(st.sampled_from(({}, {"payment.finalize": 50}, {"payment.finalize": 500}))),
        draw(st.booleans()),
        dict.fromkeys(RECENT, draw(st.integers(0, 3))),
    )
    return Facts(
        caller=Caller(draw(st.sampled_from("ab")), "example.org", draw(st.sampled_from((None, "o")))),
        resource_server="https://shop.example/api",
        platform=draw(st.booleans()),
        action=ActionDetails(draw(ACTIONS), "https://shop.example/api", amount, merchant, datatypes),
        datatypes=with_contained(datatypes, VOCABULARY.datatypes),
        user="u",
        at=at,
        dpop=draw(st.booleans()),
        chain_depth=draw(st.integers(0, 2)),
        approved_by=draw(st.frozensets(st.sampled_from(("user", "group:g")))),
        history=history,
    )


@st.composite
def answers(draw: st.DrawFn, facts: Facts) -> Permit | Refuse | NeedsApproval:
    entry = CATALOGUE.entries[facts.action.action]
    return draw(
        st.sampled_from(
            (
                Permit(facts.action, entry),
                NeedsApproval(facts.action, entry, "approval.above", ("user",)),
                Refuse((Violation("limits.total"),), budget_only=True),
            )
        )
    )


@settings(max_examples=150, deadline=None)
@given(policy_sets(), requests(), st.data())
def test_whatever_is_permitted_with_policies_is_permitted_without(
    policies: tuple[Policy, ...], facts: Facts, data: st.DataObject
) -> None:
    without = data.draw(answers(facts))
    answer = narrowed(without, PolicySet.build(policies, CATALOGUE).judge(facts))
    if isinstance(answer, Permit):
        assert answer == without
    if isinstance(answer, NeedsApproval):
        assert isinstance(without, Permit | NeedsApproval)
        assert answer.action == without.action
        assert isinstance(without, Permit) or {*without.approvers} <= {*answer.approvers}
    if isinstance(without, Refuse):
        assert isinstance(answer, Refuse)
        assert answer.violations[:1] == without.violations


@settings(max_examples=150, deadline=None)
@given(policy_sets(), requests())
def test_one_forbid_more_never_permits_more(policies: tuple[Policy, ...], facts: Facts) -> None:
    fewer = PolicySet.build(policies[:-1], CATALOGUE).judge(facts)
    more = PolicySet.build(policies, CATALOGUE).judge(facts)
    if policies and policies[-1].effect == "forbid" and more.outcome == "permit":
        assert fewer.outcome == "permit"


@settings(max_examples=150, deadline=None)
@given(policy_sets(), requests())
def test_only_those_that_can_matter_are_asked_and_it_comes_to_the_same(
    policies: tuple[Policy, ...], facts: Facts
) -> None:
    answer = PolicySet.build(policies, CATALOGUE).judge(facts)
    assert (answer.outcome, bool(answer.failed)) == _by_cedar_alone(policies, facts)


EVERYTHING = {
    "user",
    "amount",
    "currency",
    "merchant",
    "category",
    "country",
    "datatypes",
    "reference",
    "hour",
} | {
    *("minute", "weekday", "task", "chain_depth", "budget_left", "approved_by", "dpop", "seconds_since"),
    *("first_payment", *RECENT),
}


def _by_cedar_alone(policies: tuple[Policy, ...], facts: Facts) -> tuple[str, bool]:
    """What Cedar itself says: all policies at once, every fact, the request held against the schema."""
    schema = cedarpy.Schema.from_str(schema_text(CATALOGUE))
    attributes = {"trust_domain": "example.org"} | (
        {"owner": facts.caller.owner} if facts.caller.owner else {}
    )
    entry = CATALOGUE.entries[facts.action.action]
    groups = [{"type": "Action", "id": name} for name in (f"budget:{entry.budget}", f"owner:{entry.owner}")]
    action = {"type": "Action", "id": facts.action.action}
    entities = [
        {"uid": {"type": "Agent", "id": facts.caller.client_id}, "attrs": attributes}
        | {"parents": [{"type": "TrustDomain", "id": "example.org"}]},
        {
            "uid": {"type": "ResourceServer", "id": facts.resource_server},
            "attrs": {"platform": facts.platform},
        }
        | {"parents": []},
        {"uid": action, "attrs": {}, "parents": groups},
    ]
    request = {
        "principal": {"type": "Agent", "id": facts.caller.client_id},
        "action": action,
        "resource": {"type": "ResourceServer", "id": facts.resource_server},
        "context": facts.context(EVERYTHING),
    }
    waived = [
        policy
        for policy in policies
        if policy.effect == "permit" or policy.approver not in {*facts.approved_by}
    ]
    hard = [policy for policy in waived if policy.approver is None]

    def asked(chosen: list[Policy]) -> tuple[bool, list[str]]:
        said = cedarpy.is_authorized(request, "\n".join(p.text for p in chosen), json.dumps(entities), schema)
        return said.allowed, said.diagnostics.errors

    errors = asked(list(policies))[1]
    if errors or not asked(hard)[0]:
        return "forbid", bool(errors)
    return ("permit" if asked(waived)[0] else "approval"), False
