"""The catalogue: the server starts only when every sensitive action has someone who answers for it."""

from dataclasses import fields
from datetime import timedelta

import pytest

from authserver.policy.catalogue import CatalogueEntry, CatalogueError, Escalation, parse_catalogue
from tests.shipped import CONFIG, VOCABULARY, document

SHIPPED = VOCABULARY.catalogue.entries
# As the file has them: a chain of one step is two keys.
ONE_STEP = ["escalate_to", "escalate_after"]
FIELDS = [field.name for field in fields(CatalogueEntry) if field.name != "name"]
KEYS = [*FIELDS, *ONE_STEP]
CHAIN = [{"to": "group:duty", "after": "PT10M"}, {"to": "group:heads", "after": "PT25M"}]


def entry(**changes: object) -> dict[str, object]:
    """The document with one action, `payment.finalize`, other keys than shipped; None leaves a key out."""
    actions = document("actions.toml")["actions"]
    assert isinstance(actions, dict)
    keys = {**actions["payment.finalize"], **changes}
    return {"actions": {"payment.finalize": {key: value for key, value in keys.items() if value is not None}}}


def refusal(broken: dict[str, object]) -> str:
    with pytest.raises(CatalogueError) as refused:
        parse_catalogue(broken, "actions.toml")
    return str(refused.value)


def test_the_ten_actions_of_the_contract_ship() -> None:
    assert set(VOCABULARY.catalogue.names) == {
        *("catalog.search", "cart.update", "order.checkout", "payment.finalize", "subscription.renew"),
        *("payment_instrument.use", "order.change_address", "refund.initiate", "profile.read"),
        "personal_data.export",
    }


def test_paying_ships_as_the_contract_shows_it() -> None:
    assert SHIPPED["payment.finalize"] == CatalogueEntry(
        name="payment.finalize",
        title="Pay",
        owner="payments",
        approver="user",
        approvals=1,
        approval="delegation",
        escalation=(Escalation("group:payments-duty", timedelta(minutes=10)),),
        needs=frozenset({"amount", "merchant"}),
        budget="debit",
        lifetime=120,
        redeem=True,
        settle_within=timedelta(days=7),
        sender_constraint="optional",
    )


def test_budgets_ship_as_the_contract_says() -> None:
    def with_budget(budget: str) -> set[str]:
        return {name for name, shipped in SHIPPED.items() if shipped.budget == budget}

    assert with_budget("debit") == {"payment.finalize", "subscription.renew", "payment_instrument.use"}
    assert with_budget("check") == {"order.checkout"}
    assert with_budget("credit") == {"refund.initiate"}
    assert {name for name, shipped in SHIPPED.items() if shipped.moves_money} == with_budget("debit") | {
        "refund.initiate"
    }


def test_only_the_export_always_asks_and_only_two_actions_need_dpop() -> None:
    assert {name for name, shipped in SHIPPED.items() if shipped.approval == "always"} == {
        "personal_data.export"
    }
    assert {name for name, shipped in SHIPPED.items() if shipped.approval == "unless_delegated"} == {
        "order.change_address"
    }
    assert {name for name, shipped in SHIPPED.items() if shipped.sender_constraint == "required"} == {
        "personal_data.export",
        "payment_instrument.use",
    }


def test_the_file_explains_every_key_once_at_its_top() -> None:
    top = (CONFIG / "actions.toml").read_text(encoding="utf-8").partition("\n[actions")[0]
    for key in KEYS:
        assert sum(line.startswith(f"#   {key} ") for line in top.splitlines()) == 1, key


def test_an_action_that_is_not_in_the_catalogue_has_no_entry() -> None:
    assert VOCABULARY.catalogue.get("payment.finalise") is None
    assert VOCABULARY.catalogue.get("Payment.finalize") is None


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("approvals", "escalation", "datatypes")])
def test_an_entry_without_a_key_is_refused_by_file_action_and_key(key: str) -> None:
    assert f"actions.toml: payment.finalize: {key}: " in refusal(entry(**{key: None}))


@pytest.mark.parametrize(
    ("key", "value", "takes"),
    [
        ("title", "", "takes the words that a person reads"),
        ("title", "<b>Pay</b>", "takes the words that a person reads"),
        ("owner", "Payments Team", "takes the name of a group"),
        ("owner", 7, "takes the name of a group"),
        ("approver", "alice", "takes user or group:NAME"),
        ("approver", "group:", "takes user or group:NAME"),
        ("approvals", 0, "takes a number of people, 1 to 5"),
        ("approvals", "2", "takes a number of people, 1 to 5"),
        ("approvals", True, "takes a number of people, 1 to 5"),
        ("approvals", 2, "takes 1, or nothing, where approver is user"),
        ("approval", "never", "takes delegation, unless_delegated or always"),
        ("approval", True, "takes delegation, unless_delegated or always"),
        ("escalate_to", "payments-duty", "takes user or group:NAME"),
        ("escalate_after", 600, "takes a duration such as PT10M"),
        ("escalate_after", "10 minutes", "takes a duration such as PT10M"),
        ("escalate_after", "PT0M", "takes a duration such as PT10M"),
        ("escalation", [], "takes a list of 1 to 8 tables"),
        ("escalation", CHAIN * 5, "takes a list of 1 to 8 tables"),
        ("escalation", "group:duty", "takes a list of 1 to 8 tables"),
        ("escalation", ["group:duty"], "takes a list of 1 to 8 tables"),
        ("escalation", CHAIN[::-1], "each later than the one before"),
        ("escalation", [CHAIN[0], CHAIN[0]], "each later than the one before"),
        ("escalation", [{"to": "group:duty"}], "takes to and after"),
        ("escalation", [{**CHAIN[0], "by": "mail"}], "takes to and after"),
        ("escalation", [{"to": "duty", "after": "PT10M"}], "takes user or group:NAME"),
        ("escalation", [{"to": "user", "after": 600}], "takes a duration such as PT10M"),
        ("needs", "amount", "takes a list"),
        ("needs", ["amount", "merchant", "colour"], "of amount, merchant, datatypes, reference"),
        ("needs", ["amount", "amount", "merchant"], "each at most once"),
        ("needs", [["amount"]], "takes a list"),
        ("needs", {"amount": True}, "takes a list"),
        ("budget", "Debit", "takes debit, credit, check or none"),
        ("lifetime", 0, "takes seconds, 1 to 300"),
        ("lifetime", 301, "takes seconds, 1 to 300"),
        ("lifetime", True, "takes seconds, 1 to 300"),
        ("lifetime", 120.0, "takes seconds, 1 to 300"),
        ("lifetime", "120", "takes seconds, 1 to 300"),
        ("redeem", "yes", "takes true or false"),
        ("redeem", 1, "takes true or false"),
        ("settle_within", "7", "takes a duration such as PT10M, PT2H or P7D"),
        ("settle_within", "P7DT", "takes a duration such as PT10M, PT2H or P7D"),
        ("datatypes", "email", "takes a list of data types"),
        ("datatypes", [7], "takes a list of data types"),
        ("datatypes", ["email", "email"], "each at most once"),
        ("sender_constraint", "dpop", "takes optional or required"),
        ("colour", "red", "is no key of an action"),
    ],
)
def test_a_wrong_key_is_refused_with_what_it_takes(key: str, value: object, takes: str) -> None:
    message = refusal(entry(**{key: value}))
    assert "actions.toml: payment.finalize: " in message
    assert key in message
    assert takes in message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"needs": ["amount"]}, "needs: takes amount and merchant"),
        ({"needs": ["merchant"]}, "needs: takes amount and merchant"),
        ({"budget": "check", "settle_within": None, "needs": []}, "needs: takes amount and merchant"),
        ({"budget": "credit", "settle_within": None}, "needs: takes reference"),
        ({"redeem": False}, "redeem: takes true"),
        ({"escalation": CHAIN}, "escalation: takes the place of escalate_to"),
        ({"escalation": CHAIN, "escalate_to": None}, "escalation: takes the place of escalate_to"),
        ({"budget": "none"}, "settle_within: takes"),
        ({"budget": "check"}, "settle_within: takes"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(changes: dict[str, object], says: str) -> None:
    assert f"actions.toml: payment.finalize: {says}" in refusal(entry(**changes))


def test_all_that_is_wrong_is_told_at_once() -> None:
    message = refusal(entry(owner=None, lifetime=0, colour="red"))
    assert len(message.splitlines()) == 3
    assert "owner: is missing; takes the name of a group" in message


@pytest.mark.parametrize(
    "name", ["pay", "Payment.finalize", "payment.", "payment finalize", "a.b\n", "é.é", "a." + "b" * 64]
)
def test_an_action_has_a_plain_name(name: str) -> None:
    actions = entry()["actions"]
    assert isinstance(actions, dict)
    assert "an action's name takes" in refusal({"actions": {name: actions["payment.finalize"]}})


@pytest.mark.parametrize(
    "broken", [{}, {"actions": {}}, {"actions": []}, {"actions": {"a.b": 1}}, {**entry(), "more": 1}]
)
def test_a_file_of_another_shape_is_refused(broken: dict[str, object]) -> None:
    assert refusal(broken).startswith("actions.toml: ")


def test_an_action_may_need_several_people_of_a_group() -> None:
    two = parse_catalogue(entry(approver="group:risk", approvals=2), "actions.toml")
    assert two.entries["payment.finalize"].approvals == 2
    assert {shipped.approvals for shipped in SHIPPED.values()} == {1}


def test_an_escalation_may_be_a_chain() -> None:
    parsed = parse_catalogue(
        entry(escalation=CHAIN, escalate_to=None, escalate_after=None), "actions.toml"
    ).entries["payment.finalize"]
    assert parsed.escalation == (
        Escalation("group:duty", timedelta(minutes=10)),
        Escalation("group:heads", timedelta(minutes=25)),
    )
