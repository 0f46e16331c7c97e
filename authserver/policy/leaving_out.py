"""What a person leaves out of a group that they allow: a country of the European Union, a kind of shop, a kind of data.

Whoever unticks a thing means it, also where a group beside it would let it in again.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from authserver.policy.reading import Vocabulary
from authserver.values import CategoryRange, MerchantCategory, NotAValue


def countries_of(entry: str, vocabulary: Vocabulary) -> frozenset[str]:
    """The codes that an entry of `merchants.countries` stands for; none for `any`."""
    if entry == "any":
        return frozenset()
    group = vocabulary.country_groups.groups.get(entry)
    return frozenset({entry}) if group is None else frozenset(country.code for country in group)


def countries_left_out(
    asked: Iterable[str], ticked: Collection[str], without: Iterable[str], vocabulary: Vocabulary
) -> tuple[str, ...]:
    """The codes that a ticked group would let in, and the person does not want: named, or unticked beside it."""
    kept = {entry for entry in ticked if not vocabulary.country_groups.contains(entry)}
    unticked = {code for entry in asked if entry not in ticked for code in countries_of(entry, vocabulary)}
    let_in = {code for entry in ticked for code in countries_of(entry, vocabulary)}
    return tuple(sorted(((unticked - kept) | {*without}) & let_in))


def kinds_of(entry: CategoryRange) -> Iterator[str]:
    """The codes of ISO 18245 in a range."""
    for code in range(entry.low, entry.high + 1):
        try:
            yield MerchantCategory.parse(f"{code:04}").code
        except NotAValue:
            continue


def datatypes_left(
    asked: Iterable[str],
    ticked: Collection[str],
    without: Iterable[str],
    contains: Mapping[str, frozenset[str]],
) -> tuple[str, ...]:
    """What is left of the ticked kinds of data without what was unticked or named: a kind, or the kinds in it."""
    out = {name for one in without for name in _in(one, contains)}
    for unticked in asked:
        if unticked not in ticked:
            inside = _in(unticked, contains)
            out |= inside - {name for one in ticked if one in inside for name in _in(one, contains)}
    return tuple(dict.fromkeys(name for one in ticked for name in _whole(one, out, contains)))


def _in(name: str, contains: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return contains.get(name, frozenset({name}))


def _whole(name: str, out: set[str], contains: Mapping[str, frozenset[str]]) -> list[str]:
    """The widest kinds in `name` in which nothing is left out."""
    good = sorted(one for one in _in(name, contains) if not _in(one, contains) & out)
    return [one for one in good if not any(one != other and one in _in(other, contains) for other in good)]
