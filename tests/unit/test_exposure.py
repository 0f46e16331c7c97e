"""What of a record leaves: never a field that the token does not carry, at whatever depth."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authserver.resource_server.exposure import everything_in, exposed
from tests.attacks.making import named
from tests.shipped import VOCABULARY

TREE = {name: tuple(sorted(held - {name})) for name, held in VOCABULARY.datatypes.contains.items()}
NAMES = sorted(TREE)
ADDRESS = {"street": "Canal 1", "city": "Amsterdam"}
RECORD = {
    "name": {"first": "Ada", "last": "Lovelace"},
    "email": "ada@example.org",
    "addresses": {"shipping_address": ADDRESS, "billing_address": ADDRESS, "secret_base": ADDRESS},
    "profile": {"contact": {"email": "ada@example.org", "phone": "1"}, "birth_date": "1815-12-10", "iq": 200},
    "password": "x",
    "order_history": [{"order": 1}],
}
CASES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "nothing": ((), {}),
    "a leaf is kept whole": (("name",), {"name": RECORD["name"]}),
    "a leaf is found where it stands": (
        ("email",),
        {"email": "ada@example.org", "profile": {"contact": {"email": "ada@example.org"}}},
    ),
    "a kind brings what it contains and no more": (
        ("addresses",),
        {"addresses": {"shipping_address": ADDRESS, "billing_address": ADDRESS}},
    ),
    "one of what a kind contains": (("shipping_address",), {"addresses": {"shipping_address": ADDRESS}}),
    "a list is kept whole": (("order_history",), {"order_history": [{"order": 1}]}),
}


@pytest.mark.parametrize("case", named(CASES))
def test_only_what_is_carried_is_kept(case: tuple[tuple[str, ...], dict[str, Any]]) -> None:
    datatypes, expected = case
    assert exposed(RECORD, everything_in(datatypes, TREE), TREE, {}) == expected


def test_a_field_may_be_called_otherwise() -> None:
    record = {"mail": "a@b", "email": "hidden", "tel": "1"}
    fields = {"mail": "email", "email": "internal", "tel": "phone"}
    assert exposed(record, everything_in(("email",), TREE), TREE, fields) == {"mail": "a@b"}


def test_a_tree_that_contains_itself_ends() -> None:
    tree = {"a": ("b",), "b": ("a",)}
    assert everything_in(("a",), tree) == {"a", "b"}
    assert exposed({"a": {"b": {"a": 1}}}, everything_in(("a",), tree), tree, {}) == {"a": {"b": {"a": 1}}}


RECORDS = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(st.sampled_from([*NAMES, "password", "x"]), inner, max_size=4),
    max_leaves=12,
)


@given(
    record=st.dictionaries(st.sampled_from([*NAMES, "password", "x"]), RECORDS, max_size=5),
    datatypes=st.lists(st.sampled_from(NAMES), unique=True, max_size=3),
)
def test_no_field_of_a_kind_that_is_not_carried_is_ever_kept(
    record: dict[str, Any], datatypes: list[str]
) -> None:
    visible = everything_in(tuple(datatypes), TREE)
    kept = exposed(record, visible, TREE, {})

    def hold(shown: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
        for name, value in shown.items():
            if TREE.get(name) and isinstance(value, Mapping):
                assert isinstance(whole[name], Mapping)
                hold(value, whole[name])
            else:
                assert name in visible
                assert value == whole[name]

    hold(kept, record)
