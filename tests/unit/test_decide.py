"""The decision: what a delegation, each one above it, the catalogue and the server's own facts allow."""

from dataclasses import replace

import pytest

from authserver.errors import Violation
from authserver.policy.decide import Allowance, NeedsApproval, Permit, Refuse, Situation, Spent, decide
from authserver.policy.delegation_details import DelegationDetails, parse_delegation
from authserver.policy.details import ActionDetails, Merchant
from authserver.values import Country, MerchantCategory, Money
from tests.shipped import DELEGATION, LEFT_OUT, VOCABULARY, changed

SHOP = "https://shop.example/api"
PLATFORM = Situation(SHOP, registered_merchant=None, agent_actions=None)
FOODS = Merchant("m_123", MerchantCategory("5411"), Country("NL"), "Example Foods")
NOTHING = Spent(0, 0, (0, 0))


def delegation(**changes: object) -> DelegationDetails:
    """The contract's, but it asks for no approval; `limits__total` stands for `limits.total`."""
    paths = {"approval": LEFT_OUT, **{path.replace("__", "."): value for path, value in changes.items()}}
    return parse_delegation(changed(DELEGATION, paths), VOCABULARY)


def payment(amount: str = "42.50", currency: str = "EUR", **merchant: str | None) -> ActionDetails:
    """At the contract's merchant, with other facts; None leaves one out."""
    facts = {name: value for name, value in {**FOODS.to_json(), **merchant}.items() if value is not None}
    return ActionDetails(
        "payment.finalize", amount=Money.parse(currency, amount), merchant=Merchant.parse(facts)
    )


def judge(
    request: ActionDetails,
    *details: DelegationDetails,
    spent: Spent = NOTHING,
    situation: Situation = PLATFORM,
) -> Permit | Refuse | NeedsApproval:
    def used(link: DelegationDetails) -> Spent:
        rules = link.limits.per_period if link.limits else ()
        return replace(spent, periods=spent.periods[: len(rules)])

    return decide(
        [Allowance(link, used(link)) for link in details or (delegation(),)], request, situation, VOCABULARY
    )


def permitted(answer: Permit | Refuse | NeedsApproval) -> ActionDetails:
    assert isinstance(answer, Permit), answer
    return answer.action


def violations(answer: Permit | Refuse | NeedsApproval) -> tuple[Violation, ...]:
    assert isinstance(answer, Refuse), answer
    assert answer.violations
    return answer.violations


# --- what is permitted --------------------------------------------------------------------------------------------


def test_a_request_within_every_limit_is_permitted_at_the_place_where_it_is_made() -> None:
    answer = judge(payment())
    assert permitted(answer) == replace(payment(), location=SHOP)
    assert isinstance(answer, Permit)
    assert answer.entry.name == "payment.finalize"


def test_a_limit_may_be_reached_exactly() -> None:
    assert permitted(judge(payment("80.00"), spent=Spent(22_000, 19, (7_000, 0))))


def test_any_allows_every_place_merchant_country_and_data_type() -> None:
    open_to_all = delegation(
        locations=["any"], datatypes=["any"], merchants={"categories": ["any"], "countries": ["any"]}
    )
    request = replace(payment(category="7995", country="MT", id="m_9"), datatypes=("contact",))
    assert permitted(judge(request, open_to_all))
    assert permitted(judge(replace(payment("30"), merchant=Merchant(name="Unknown")), open_to_all))


def test_searching_asks_for_nothing_but_the_action_and_the_place() -> None:
    answer = judge(ActionDetails("catalog.search"), situation=Situation(SHOP, FOODS, None))
    assert permitted(answer) == ActionDetails("catalog.search", location=SHOP)


def test_a_group_of_countries_allows_each_of_them() -> None:
    assert permitted(judge(payment(country="FR")))
    assert permitted(judge(payment(country="NO"), delegation(merchants__countries=["EEA"])))


# --- what is refused ----------------------------------------------------------------------------------------------


def refund(amount: str = "10.00", currency: str = "EUR") -> ActionDetails:
    return ActionDetails(
        "refund.initiate", amount=Money.parse(currency, amount), merchant=FOODS, reference="r-1"
    )


@pytest.mark.parametrize(
    ("request_", "spent", "violation"),
    [
        (replace(payment(), action="subscription.renew"), NOTHING, ("actions", "subscription.renew", "LIST")),
        (payment("92", currency="USD"), NOTHING, ("limits.currency", "USD", "EUR")),
        (payment("92"), NOTHING, ("limits.per_action", "92.00", "80.00")),
        (payment("50"), Spent(25_001, 0, (0, 0)), ("limits.total", "50.00", "49.99")),
        (payment("50"), Spent(40_000, 0, (0, 0)), ("limits.total", "50.00", "0.00")),
        (payment("50"), Spent(0, 0, (10_001, 0)), ("limits.per_period", "50.00", "49.99")),
        (payment("1"), Spent(0, 20, (0, 0)), ("limits.count", 1, 0)),
        (payment(category="7995"), NOTHING, ("merchants.categories", "7995", ["5411", "5811-5814"])),
        (payment("30", category="5813"), NOTHING, ("merchants.except.categories", "5813", None)),
        (payment(country="US"), NOTHING, ("merchants.countries", "US", ["NL", "EU"])),
        (payment(country=None), NOTHING, ("merchants.countries", None, ["NL", "EU"])),
        (payment(id="m_124"), NOTHING, ("merchants.ids", "m_124", ["m_123"])),
        (payment(id=None), NOTHING, ("merchants.ids", None, ["m_123"])),
        (replace(payment(), datatypes=("email",)), NOTHING, ("datatypes", ["email"], ["shipping_address"])),
        (replace(payment("30"), merchant=None), NOTHING, ("catalogue.needs", ["amount"], ["amount", "merchant"])),
        (replace(payment(), amount=None), NOTHING, ("catalogue.needs", ["merchant"], ["amount", "merchant"])),
    ],
)  # fmt: skip
def test_one_limit_that_is_crossed_is_told_with_what_was_asked_and_what_is_allowed(
    request_: ActionDetails, spent: Spent, violation: tuple[str, object, object]
) -> None:
    constraint, requested, allowed = violation
    if allowed == "LIST":
        allowed = ["catalog.search", "order.checkout", "payment.finalize"]
    assert violations(judge(request_, spent=spent)) == (Violation(constraint, requested, allowed),)


def test_a_category_that_nobody_stated_is_in_no_list_and_may_be_an_excluded_one() -> None:
    assert violations(judge(payment("30", category=None))) == (
        Violation("merchants.categories", None, ["5411", "5811-5814"]),
        Violation("merchants.except.categories"),
    )


def test_another_place_is_refused() -> None:
    for place in ("https://pay.example/api", "https://shop.example/api/", "https://shop.example"):
        answer = judge(payment(), situation=replace(PLATFORM, resource_server=place))
        assert violations(answer) == (Violation("locations", place, [SHOP]),)


def test_an_action_outside_the_agents_registration_is_refused() -> None:
    situation = replace(PLATFORM, agent_actions=frozenset({"catalog.search"}))
    assert [violation.constraint for violation in violations(judge(payment(), situation=situation))] == [
        "actions"
    ]
    assert permitted(judge(ActionDetails("catalog.search"), situation=situation))


def test_all_limits_that_are_crossed_are_told_at_once() -> None:
    request = replace(
        payment("500", id="m_9", category="7995", country="US"),
        datatypes=("email", "phone"),
    )
    answer = judge(
        request,
        spent=Spent(1_000, 20, (0, 0)),
        situation=replace(PLATFORM, resource_server="https://x.example"),
    )
    assert [violation.constraint for violation in violations(answer)] == [
        "locations",
        "datatypes",
        "merchants.categories",
        "merchants.countries",
        "merchants.ids",
        "limits.per_action",
        "limits.total",
        "limits.per_period",
        "limits.count",
    ]
    assert all(violation.to_json() for violation in violations(answer))


def test_only_a_lack_of_budget_can_be_helped_by_what_is_released() -> None:
    def budget_only(request: ActionDetails, spent: Spent) -> bool:
        answer = judge(request, spent=spent)
        assert isinstance(answer, Refuse)
        return answer.budget_only

    short = Spent(30_000, 20, (15_000, 0))
    assert budget_only(payment("10"), short)
    assert not budget_only(payment("90"), short)
    assert not budget_only(payment("10", country="US"), short)


def test_A56_facts_that_contradict_the_registered_ones_are_told_with_both() -> None:
    situation = Situation(SHOP, Merchant("m_9", MerchantCategory("7995"), Country("MT"), "Casino"), None)
    anywhere = delegation(merchants={"categories": ["any"], "countries": ["any"]})
    assert violations(judge(payment(), anywhere, situation=situation)) == (
        Violation("merchants.ids", "m_123", "m_9"),
        Violation("merchants.categories", "5411", "7995"),
        Violation("merchants.countries", "NL", "MT"),
    )
    # Where the registered facts are not allowed either, the contradiction is what is told.
    told = {
        violation.constraint: violation.allowed
        for violation in violations(judge(payment(), situation=situation))
    }
    assert told == {"merchants.ids": "m_9", "merchants.categories": "7995", "merchants.countries": "MT"}


def test_A56_the_registered_facts_are_those_that_are_judged() -> None:
    bar = Situation(SHOP, replace(FOODS, category=MerchantCategory("5813")), None)
    assert violations(judge(payment("30"), situation=bar)) == (
        Violation("merchants.categories", "5411", "5813"),
        Violation("merchants.except.categories", "5813"),
    )


def test_registered_facts_fill_what_the_agent_left_out_and_are_judged() -> None:
    silent = ActionDetails("payment.finalize", amount=Money("EUR", 100))
    assert permitted(judge(silent, situation=Situation(SHOP, FOODS, None))).merchant == FOODS
    abroad = replace(FOODS, country=Country("US"))
    assert violations(judge(silent, situation=Situation(SHOP, abroad, None))) == (
        Violation("merchants.countries", "US", ["NL", "EU"]),
    )


def test_A83_the_name_is_the_registered_one() -> None:
    request = payment(name="Refund to you")
    assert permitted(judge(request, situation=Situation(SHOP, FOODS, None))).merchant == FOODS
    nameless = replace(FOODS, name=None)
    assert permitted(judge(request, situation=Situation(SHOP, nameless, None))).merchant == nameless


def test_registered_facts_that_are_silent_leave_the_agents_word() -> None:
    registered = Merchant(country=Country("NL"), name="Example Foods")
    assert permitted(judge(payment(), situation=Situation(SHOP, registered, None))).merchant == FOODS


@pytest.mark.parametrize(
    ("exclusions", "merchant", "constraint"),
    [
        (
            {"countries": ["BE"]},
            Merchant("m_1", MerchantCategory("5411"), Country("BE")),
            "merchants.except.countries",
        ),
        (
            {"countries": ["EU"]},
            Merchant("m_1", MerchantCategory("5411"), Country("FR")),
            "merchants.except.countries",
        ),
        ({"countries": ["BE"]}, Merchant("m_1", MerchantCategory("5411")), "merchants.except.countries"),
        ({"ids": ["m_1"]}, Merchant("m_1", MerchantCategory("5411"), Country("NL")), "merchants.except.ids"),
        ({"ids": ["m_1"]}, Merchant(None, MerchantCategory("5411"), Country("NL")), "merchants.except.ids"),
        (
            {"categories": ["5400-5499"]},
            Merchant("m_1", MerchantCategory("5411")),
            "merchants.except.categories",
        ),
        ({"categories": ["5813"]}, Merchant("m_1"), "merchants.except.categories"),
    ],
)
def test_an_exclusion_refuses_whom_it_names_and_whoever_hides_the_fact(
    exclusions: dict[str, object], merchant: Merchant, constraint: str
) -> None:
    anywhere = delegation(merchants={"categories": ["any"], "countries": ["any"], "except": exclusions})
    answer = judge(replace(payment("30"), merchant=merchant), anywhere)
    assert [violation.constraint for violation in violations(answer)] == [constraint]


# --- absence is never any -----------------------------------------------------------------------------------------


def test_A62_what_the_delegation_does_not_bound_may_not_be_said() -> None:
    bare = delegation(actions=["order.checkout"], limits=LEFT_OUT, merchants=LEFT_OUT, datatypes=LEFT_OUT)
    request = replace(payment(), action="order.checkout", datatypes=("email",))
    assert violations(judge(request, bare)) == (
        Violation("datatypes", ["email"], []),
        Violation("merchants.categories", "5411", []),
        Violation("merchants.countries", "NL", []),
        Violation("limits.per_action", "42.50", None),
    )


def test_A62_an_amount_is_bounded_also_where_the_action_needs_none() -> None:
    answer = judge(replace(payment("500"), action="catalog.search"))
    assert [violation.constraint for violation in violations(answer)] == ["limits.per_action"]


def test_A58_data_types_are_granted_downwards_only() -> None:
    def asking(*names: str) -> ActionDetails:
        return ActionDetails("profile.read", datatypes=names)

    contact = delegation(actions=["profile.read"], datatypes=["contact"])
    email = delegation(actions=["profile.read"], datatypes=["email"])
    assert permitted(judge(asking("email", "phone"), contact))
    assert violations(judge(asking("contact", "email"), email)) == (
        Violation("datatypes", ["contact"], ["email"]),
    )
    assert violations(judge(asking("shipping_address"), contact)) == (
        Violation("datatypes", ["shipping_address"], ["contact"]),
    )
    assert violations(judge(asking(), email)) == (Violation("catalogue.needs", [], ["datatypes"]),)


# --- budgets ------------------------------------------------------------------------------------------------------


def test_a_rule_of_a_period_bounds_only_its_categories() -> None:
    spent = Spent(4_000, 1, (4_000, 4_000))
    assert permitted(judge(payment("20"), spent=spent))
    assert violations(judge(payment("20", category="5812"), spent=spent)) == (
        Violation("limits.per_period", "20.00", "0.00"),
    )


def test_of_several_rules_that_are_crossed_the_tightest_is_told() -> None:
    spent = Spent(0, 0, (14_500, 3_700))
    assert violations(judge(payment("20", category="5812"), spent=spent)) == (
        Violation("limits.per_period", "20.00", "3.00"),
    )


def test_a_checkout_is_compared_with_the_budgets_as_a_payment_is() -> None:
    request = replace(payment("50"), action="order.checkout")
    assert violations(judge(request, spent=Spent(29_000, 20, (0, 0)))) == (
        Violation("limits.total", "50.00", "10.00"),
        Violation("limits.count", 1, 0),
    )


def test_a_refund_is_bounded_by_the_limit_of_one_action_only() -> None:
    refunds = delegation(actions=["refund.initiate"])
    exhausted = Spent(30_000, 20, (15_000, 4_000))
    assert permitted(judge(refund("80"), refunds, spent=exhausted))
    assert violations(judge(refund("80.01"), refunds, spent=exhausted)) == (
        Violation("limits.per_action", "80.01", "80.00"),
    )


def test_without_a_count_there_is_no_bound_of_actions() -> None:
    assert permitted(judge(payment("1"), delegation(limits__count=LEFT_OUT), spent=Spent(0, 10**6, (0, 0))))


# --- chains -------------------------------------------------------------------------------------------------------


def test_every_delegation_of_the_chain_must_allow_it() -> None:
    parent, child = delegation(), delegation(limits__per_action="20.00", merchants__countries=["NL"])
    assert permitted(judge(payment("20"), parent, child))
    for chain in ((parent, child), (child, parent)):
        assert violations(judge(payment("20.01"), *chain)) == (
            Violation("limits.per_action", "20.01", "20.00"),
        )
        assert violations(judge(payment("10", country="FR"), *chain)) == (
            Violation("merchants.countries", "FR", ["NL"]),
        )


def test_A93_a_child_draws_on_what_its_ancestor_has_left() -> None:
    request, child = payment("50"), Allowance(delegation(), NOTHING)
    chain = [Allowance(delegation(), Spent(29_000, 0, (0, 0))), child]
    assert decide(chain, request, PLATFORM, VOCABULARY) == Refuse(
        (Violation("limits.total", "50.00", "10.00"),), True
    )
    chain = [
        Allowance(delegation(), Spent(29_000, 0, (0, 0))),
        Allowance(delegation(), Spent(29_900, 0, (0, 0))),
    ]
    assert decide(chain, request, PLATFORM, VOCABULARY) == Refuse(
        (Violation("limits.total", "50.00", "1.00"),), True
    )


def test_a_limit_that_two_levels_cross_is_told_once() -> None:
    tight, wide = delegation(limits__per_action="20.00"), delegation(limits__per_action="30.00")
    assert violations(judge(payment("70"), tight, wide)) == (
        Violation("limits.per_action", "70.00", "20.00"),
    )
    narrow = delegation(merchants__categories=["5812"])
    assert violations(judge(payment(category="7995"), delegation(), narrow)) == (
        Violation("merchants.categories", "7995", ["5812"]),
    )


def test_no_delegation_allows_nothing() -> None:
    with pytest.raises(ValueError, match="nothing was delegated"):
        decide([], payment(), PLATFORM, VOCABULARY)


# --- approvals ----------------------------------------------------------------------------------------------------


def because(answer: Permit | Refuse | NeedsApproval) -> str | None:
    assert not isinstance(answer, Refuse), answer
    return answer.because if isinstance(answer, NeedsApproval) else None


def test_above_the_users_threshold_someone_is_asked_and_at_it_nobody_is() -> None:
    asks = delegation(approval={"above": "50.00"})
    assert because(judge(payment("50.00"), asks)) is None
    assert because(judge(payment("50.01"), asks)) == "approval.above"
    answer = judge(payment("50.01"), asks)
    assert isinstance(answer, NeedsApproval)
    assert answer.action == replace(payment("50.01"), location=SHOP)


def test_an_action_that_the_user_named_is_asked_about() -> None:
    asks = delegation(approval={"actions": ["payment.finalize"]})
    assert because(judge(payment("1"), asks)) == "approval.actions"
    assert because(judge(ActionDetails("catalog.search"), asks)) is None


def test_an_export_is_always_asked_about() -> None:
    export = ActionDetails("personal_data.export", datatypes=("email",))
    for approval in (LEFT_OUT, {"actions": []}):
        granted = delegation(actions=["personal_data.export"], datatypes=["email"], approval=approval)
        assert because(judge(export, granted)) == "catalogue.approval"


def test_an_address_change_is_asked_about_unless_the_delegation_says_otherwise() -> None:
    change = ActionDetails("order.change_address", reference="order-1")
    silent = delegation(actions=["order.change_address"])
    never = delegation(actions=["order.change_address"], approval={"actions": []})
    named = delegation(actions=["order.change_address"], approval={"actions": ["order.change_address"]})
    assert because(judge(change, silent)) == "catalogue.approval"
    assert because(judge(change, never)) is None
    assert because(judge(change, named)) == "approval.actions"
    # An agent that hands on cannot answer for the user, who said nothing.
    assert because(judge(change, silent, never)) == "catalogue.approval"


def test_any_level_of_a_chain_can_ask() -> None:
    parent, child = delegation(approval={"above": "10.00"}), delegation(approval={"above": "60.00"})
    assert because(judge(payment("20"), parent, child)) == "approval.above"
    assert because(judge(payment("20"), child, parent)) == "approval.above"


def test_what_is_refused_is_not_asked_about() -> None:
    assert violations(judge(payment("92"), delegation(approval={"above": "50.00"})))
