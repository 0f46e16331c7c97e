"""Policies as text and as decisions: what is refused before it loads, and how forbids, approvals and errors count."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from authserver.errors import Violation
from authserver.policy.cedar import Ask, PolicyAnswer, PolicySet, narrowed
from authserver.policy.cedar_text import PolicyError, Source, read_policies
from authserver.policy.decide import NeedsApproval, Permit, Refuse
from authserver.policy.details import ActionDetails, Merchant
from authserver.policy.facts import Caller, Facts, History, with_contained
from authserver.values import Money
from tests.attacks.making import named
from tests.policies import PERMIT_ALL, forbid
from tests.shipped import VOCABULARY

CATALOGUE = VOCABULARY.catalogue
PAYMENT = ActionDetails(
    "payment.finalize",
    "https://shop.example/api",
    Money.parse("EUR", "42.50"),
    Merchant.parse({"id": "m_1", "category": "5812", "country": "NL"}),
    ("contact",),
)
FACTS = Facts(
    caller=Caller("basket-helper", "example.org", "shopping"),
    resource_server="https://shop.example/api",
    platform=False,
    action=PAYMENT,
    datatypes=with_contained(PAYMENT.datatypes, VOCABULARY.datatypes),
    user="u1",
    at=datetime(2026, 11, 24, 13, 7, tzinfo=UTC),  # a Tuesday
    dpop=False,
    budget_left=25_000,
    history=History(
        {"order.change_address": 60}, False, dict.fromkeys(("payments_last_hour", "payments_last_day"), 3)
    ),
)


def built(*texts: str) -> PolicySet:
    return PolicySet.build(read_policies(Source("x", "x.cedar", "".join(texts))), CATALOGUE)


def problems(text: str) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        built(text)
    return [str(problem) for problem in raised.value.problems]


WRONG = {
    "syntax": ("\n\npermit (principal, actio, resource);", "x.cedar:3: found an invalid variable"),
    "cut off": (PERMIT_ALL + '@id("b")\nforbid (principal, action', "x.cedar:2: unexpected end of input"),
    "no id": ("permit (principal, action, resource);", "x.cedar:1: takes @id"),
    "reserved id": ('@id("none") permit (principal, action, resource);', "x.cedar:1: @id: takes 1 to 64"),
    "unknown annotation": (forbid("a", owner="x"), "x.cedar:1: @owner: there are @id, @reason and @approval"),
    "unknown approver": (forbid("a", approval="boss"), "x.cedar:1: @approval: takes user or group:NAME"),
    "empty reason": (forbid("a", reason=""), "x.cedar:1: @reason: takes a sentence"),
    "permit that asks": (
        '@id("a") @approval("user") permit (principal, action, resource);',
        "x.cedar:1: @approval: goes with forbid",
    ),
    "template": (
        '@id("a") permit (principal == ?principal, action, resource);',
        "x.cedar:1: takes a policy, not",
    ),
    "same id": (
        PERMIT_ALL + "// not here;\n" + forbid("all"),
        "x.cedar:3: all: @id: there is one already, at x.ced",
    ),
    "unknown action": (forbid("a", action="payment.finalise"), "x.cedar:1: a: unrecognized action"),
    "unknown member that is only asked for": (
        forbid("a", "context has amout"),
        "x.cedar:1: a: attribute `amout`",
    ),
    "action that never was": (
        forbid("a", 'context.seconds_since has "order.change_adress"'),
        "x.cedar:1: a: attribute `order.change_adress` is not known",
    ),
    "unknown member": (forbid("a", "context.amout > 3"), "x.cedar:1: a: attribute `amout`"),
    "unknown entity": (
        forbid("a", 'principal in Team::"x"'),
        "x.cedar:1: a: unrecognized entity type `Team`",
    ),
    "type": (
        forbid("a", 'context.hour == "3"'),
        "x.cedar:1: a: the types Long and String are not compatible",
    ),
    "optional": (
        forbid("a", "context.amount > 3"),
        "x.cedar:1: a: unable to guarantee safety of access to optional",
    ),
    "whole context": (forbid("a", "context == context"), "x.cedar:1: takes members of context"),
    "hidden context": (forbid("a", "{x: context}.x.first_payment"), "x.cedar:1: takes members of context"),
}


@pytest.mark.parametrize("case", named(WRONG))
def test_what_is_wrong_is_said_with_its_line(case: tuple[str, str]) -> None:
    text, said = case
    assert any(problem.startswith(said) for problem in problems(text)), problems(text)


def test_every_problem_of_a_file_is_said() -> None:
    said = problems(forbid("a", "context.nope") + "\n\n" + forbid("b", "context.hour == true") + PERMIT_ALL)
    assert [problem.split(": ")[:2] for problem in said] == [["x.cedar:1", "a"], ["x.cedar:4", "b"]]


def test_a_semicolon_in_a_text_or_a_comment_ends_no_policy() -> None:
    text = '// one; two\n@id("a") @reason("no; \\"never\\"; // not") permit (principal, action, resource); // end;\n'
    (policy,) = read_policies(Source("x", "x.cedar", text))
    assert (policy.line, policy.reason) == (2, 'no; "never"; // not')


def test_nothing_is_permitted_that_no_policy_permits() -> None:
    only_search = '@id("search") permit (principal, action == Action::"catalog.search", resource);'
    answer = built(only_search).judge(FACTS)
    assert [v.constraint for v in answer.forbidden] == ["policy:none"]
    assert set(built(only_search).unpermitted()) == {*CATALOGUE.names} - {"catalog.search"}


def test_forbid_beats_every_permit_and_names_all_who_forbid() -> None:
    answer = built(
        PERMIT_ALL, forbid("a", reason="No."), forbid("b"), forbid("c", "context.hour == 3")
    ).judge(FACTS)
    assert answer.forbidden == (Violation("policy:a", reason="No."), Violation("policy:b"))
    assert answer.decided_by == ("a", "b")


def test_a_forbid_with_approval_asks_until_that_approver_has_agreed() -> None:
    policies = built(PERMIT_ALL, forbid("a", approval="user"), forbid("b", approval="group:risk"))
    assert policies.judge(FACTS).asks == (Ask("a", "user"), Ask("b", "group:risk"))
    half = policies.judge(replace(FACTS, approved_by=frozenset({"user"})))
    assert half.asks == (Ask("b", "group:risk"),)
    assert policies.judge(replace(FACTS, approved_by=frozenset({"user", "group:risk"}))).outcome == "permit"


def test_an_approval_does_not_help_where_another_policy_forbids_or_none_permits() -> None:
    asked = forbid("a", approval="user")
    assert built(PERMIT_ALL, asked, forbid("b")).judge(FACTS).outcome == "forbid"
    assert built(asked).judge(replace(FACTS, approved_by=frozenset({"user"}))).outcome == "forbid"


OVERFLOW = "context.hour * 9223372036854775807 > 3"


def test_a_policy_that_cannot_be_evaluated_denies() -> None:
    answer = built(PERMIT_ALL, forbid("a", OVERFLOW)).judge(FACTS)
    assert [v.constraint for v in answer.forbidden] == ["policy:a"]
    assert "overflow" in answer.failed[0]


def test_a_permit_that_cannot_be_evaluated_denies_where_another_permits() -> None:
    permits = [
        f'@id("{name}") permit (principal, action, resource) when {{ {when} }};'
        for name, when in (("good", "context.hour == 13"), ("bad", OVERFLOW))
    ]
    answer = built(*permits).judge(FACTS)
    assert [v.constraint for v in answer.forbidden] == ["policy:bad"]


SEEN = {
    "amount": "context has amount && context.amount == 4250",
    "currency": 'context has currency && context.currency == "EUR"',
    "merchant": 'context has merchant && context.merchant == "m_1"',
    "category": 'context has category && context.category like "58*"',
    "country": 'context has country && ["NL", "BE"].contains(context.country)',
    "contained data types": 'context.datatypes.contains("email")',
    "data types that were not asked for": '!context.datatypes.contains("name")',
    "time": "context.hour == 13 && context.minute == 7 && context.weekday == 2",
    "budget": "context has budget_left && context.budget_left == 25000",
    "depth": "context.chain_depth == 0",
    "no task": "!(context has task)",
    "no proof": "!context.dpop",
    "user": 'context.user == "u1"',
    "agent": 'principal == Agent::"basket-helper"',
    "trust domain": 'principal in TrustDomain::"example.org" && principal.trust_domain == "example.org"',
    "owner": 'principal has owner && principal.owner == "shopping"',
    "place": 'resource == ResourceServer::"https://shop.example/api" && !resource.platform',
    "group of actions": 'action in Action::"budget:debit" && action in Action::"owner:payments"',
    "history": 'context.seconds_since has "order.change_address" && '
    'context.seconds_since["order.change_address"] == 60 && context.payments_last_hour == 3',
    "what never happened": '!(context.seconds_since has "refund.initiate")',
    "first payment": "!context.first_payment",
}


@pytest.mark.parametrize("when", named(SEEN))
def test_a_policy_sees(when: str) -> None:
    answer = built(PERMIT_ALL, forbid("seen", when, action="")).judge(FACTS)
    assert (answer.decided_by, answer.failed) == (("seen",), ())


def test_a_set_that_says_the_same_of_every_request_needs_no_facts() -> None:
    policies = built(PERMIT_ALL, forbid("a", "context.first_payment"))
    assert policies.constant("payment.finalize") is None
    assert policies.constant("catalog.search") == PolicyAnswer(decided_by=("all",))
    assert policies.uses("payment.finalize") == {"first_payment"}
    assert policies.uses("catalog.search") == frozenset()


PERMITTED = Permit(PAYMENT, CATALOGUE.entries["payment.finalize"])
NEEDED = NeedsApproval(PAYMENT, PERMITTED.entry, "approval.above", ("user",))
CROSSED = Refuse((Violation("limits.total"),), budget_only=True)
NO = PolicyAnswer(forbidden=(Violation("policy:a"),))
PRIVACY = PolicyAnswer(asks=(Ask("a", "group:privacy"), Ask("b", "user")))


def test_what_a_delegation_and_a_policy_forbid_is_told_together() -> None:
    told = narrowed(CROSSED, NO)
    assert told == Refuse((Violation("limits.total"), Violation("policy:a")), budget_only=False)
    assert narrowed(PERMITTED, NO) == Refuse((Violation("policy:a"),), budget_only=False)


def test_whoever_a_delegation_or_a_policy_asks_has_to_agree() -> None:
    assert narrowed(PERMITTED, PRIVACY) == NeedsApproval(
        PAYMENT, PERMITTED.entry, "policy:a", ("group:privacy", "user")
    )
    assert narrowed(NEEDED, PRIVACY) == replace(
        NEEDED, because="policy:a", approvers=("user", "group:privacy")
    )
    assert narrowed(CROSSED, PRIVACY) == CROSSED


# --- text that is too much for Cedar's own stack --------------------------------------------------------------------

TOO_MUCH = {
    "brackets": "(" * 2_000 + "true" + ")" * 2_000,
    "sets": "[" * 2_000 + "1" + "]" * 2_000 + " == [1]",
    "records": "{a:" * 2_000 + "1" + "}" * 2_000 + " == {a:1}",
    "alternatives": " || ".join(['context.merchant == "m"'] * 5_000),
    "a merchant each": " || ".join(['context.merchant == "m"'] * 400),
    "a few too many": " || ".join(["context.dpop"] * 90),
    "sums": "+".join(["1"] * 30_000) + " == 1",
    "members": "context" + ".dpop" * 30_000,
    "branches": "if true then true else " * 6_000 + "true",
    "calls": "context.datatypes" + '.contains("a")' * 30_000,
    "members by their texts": "context" + '[""]' * 24_000,
    "behind a comment that ends without a line feed": "//\r" + "(" * 2_000 + "true" + ")" * 2_000 + "\n",
}


@pytest.mark.parametrize("condition", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_policy_that_would_take_the_process_with_it_is_a_problem_like_any_other(condition: str) -> None:
    """A stack that is full ends a server, and its reload of policies with it; so nobody asks Cedar about these."""
    text = forbid("first") + forbid("deep", condition)
    with pytest.raises(PolicyError) as refused:
        read_policies(Source("x", "x.cedar", text))
    assert "x.cedar:2: is too long or too deeply nested; a list takes a set" in str(refused.value)


def test_a_long_list_and_deep_texts_are_no_depth() -> None:
    names = ", ".join(f'"m_{number}"' for number in range(5_000))
    text = forbid("listed", f"context has merchant && [{names}].contains(context.merchant)")
    text += forbid("said", f'context.user == "{"(" * 500}" // {"[" * 500}\n')
    assert [policy.id for policy in read_policies(Source("x", "x.cedar", text))] == ["listed", "said"]
