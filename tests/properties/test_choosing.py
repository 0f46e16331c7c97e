"""What a person chooses on a form, whatever is in it: less than was asked, and without all that they left out."""

from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authserver.errors import Refusal
from authserver.policy.choosing import Choice, NotChosen, chosen, lets_nobody_in, narrowed
from authserver.policy.delegation_details import DelegationDetails, Merchants
from authserver.policy.leaving_out import countries_of, datatypes_left, kinds_of
from authserver.policy.lowering import lowered
from authserver.policy.narrowing import widenings
from tests.properties.test_narrowing import BEGIN, MEMBERS, NO_HURRY, details
from tests.shipped import VOCABULARY

CONTAINS = VOCABULARY.datatypes.contains


def _some(draw: st.DrawFn, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return (
        None if names is None else tuple(name for name in names if draw(st.sampled_from((True, True, False))))
    )


@st.composite
def forms(draw: st.DrawFn) -> tuple[DelegationDetails, Choice] | None:
    """A delegation, and a form about it that was filled in somehow."""
    held = details({name: draw(strategy) for name, strategy in MEMBERS.items()})
    if held is None or held.merchants is None or held.limits is None:
        return None
    amounts = st.sampled_from((None, "", "1.00", "0.50", "3.00", "9.00"))
    return held, Choice(
        actions=_some(draw, held.actions) or (),
        locations=_some(draw, held.locations),
        categories=_some(draw, tuple(entry.text for entry in held.merchants.categories)),
        countries=_some(draw, held.merchants.countries),
        ids=_some(draw, held.merchants.ids),
        datatypes=_some(draw, held.datatypes),
        without_categories=draw(st.sampled_from(((), ("5813",), ("5811", "5812"), ("7995", "x")))),
        without_countries=draw(st.sampled_from(((), ("NL",), ("FR", "IS"), ("US", "EU", "x")))),
        without_datatypes=draw(st.sampled_from(((), ("email",), ("contact",), ("shipping_address", "x")))),
        hand_on=draw(st.booleans()),
        per_action=draw(amounts),
        total=draw(amounts),
        count=draw(st.sampled_from((None, "", "1", "2"))) if held.limits.count else None,
        per_period=tuple("" for _ in held.limits.per_period),
        expires=draw(st.sampled_from((None, date(2026, 3, 1), held.expires.date()))),
    )


def _broader(held: DelegationDetails, less: DelegationDetails) -> list[str]:
    # The same depth is no broader for the same agent, and a member that is gone allows nothing.
    gone = {"locations": less.locations, "datatypes": less.datatypes, "limits": less.limits}
    gone |= {"merchants": less.merchants, "redelegation.depth": None, "approval": None}
    return [
        found.constraint
        for found in widenings(held, less, VOCABULARY)
        if gone.get(found.constraint, gone.get(found.constraint.split(".")[0], "")) is not None
    ]


def _lets_in(merchants: Merchants) -> tuple[set[str], set[str]]:
    out = merchants.excluded
    countries = {code for one in merchants.countries for code in countries_of(one, VOCABULARY)}
    kinds = {kind for entry in merchants.categories for kind in kinds_of(entry)}
    if out is not None:
        countries -= {code for one in out.countries for code in countries_of(one, VOCABULARY)}
        kinds -= {kind for entry in out.categories for kind in kinds_of(entry)}
    return countries, kinds


@settings(NO_HURRY, max_examples=300)
@given(forms(), st.sampled_from(("strict", "balanced", "trust")))
def test_A119_no_form_makes_anything_broader_and_what_was_left_out_is_out(
    form: tuple[DelegationDetails, Choice] | None, preset: Any
) -> None:
    if form is None:
        return
    held, choice = form
    try:
        less = narrowed(held, choice, VOCABULARY, BEGIN)
        answers = [
            less,
            chosen(held, choice, preset, VOCABULARY, BEGIN),
            lowered(held, choice, None, VOCABULARY, BEGIN),
        ]
    except (NotChosen, Refusal):
        return
    # Where no merchant is left at all, what is granted says so in another way: `narrowed` alone is no answer then.
    nobody = less.merchants is not None and lets_nobody_in(less.merchants)
    for answer in answers[1 if nobody else 0 :]:
        assert _broader(held, answer) == []
        assert answer.redelegation_depth == (held.redelegation_depth if choice.hand_on else 0)
    assert less.merchants is not None
    countries, kinds = _lets_in(less.merchants)
    assert not countries & {*choice.without_countries}
    assert not kinds & {*choice.without_categories}
    seen = {name for one in less.datatypes or () for name in CONTAINS.get(one, ())}
    assert not seen & {*choice.without_datatypes}


@pytest.mark.parametrize(
    ("asked", "ticked", "without", "left"),
    [
        (["contact"], ["contact"], [], ("contact",)),
        (["contact"], ["contact"], ["email"], ("phone",)),
        (["contact", "email"], ["contact"], [], ("phone",)),  # unticked beside what contains it
        (["contact", "email"], ["email"], [], ("email",)),  # kept beside what contained it
        (["profile"], ["profile"], ["email"], ("addresses", "birth_date", "name", "phone", "preferences")),
        (["profile", "contact"], ["profile"], [], ("addresses", "birth_date", "name", "preferences")),
        (["contact"], ["contact"], ["email", "phone"], ()),
        (["name"], ["name"], ["profile"], ()),
    ],
)
def test_what_is_left_of_data(
    asked: list[str], ticked: list[str], without: list[str], left: tuple[str, ...]
) -> None:
    assert datatypes_left(asked, ticked, without, CONTAINS) == left
