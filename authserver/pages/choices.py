"""What a person can take away of what was asked or stands: lower a number, untick a box, leave out a single thing.

The consent page and "Allow less" show the same; what comes back is read here too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from authserver.endpoints.forms import Form
from authserver.names import shown_name
from authserver.pages import words
from authserver.policy.catalogue import Catalogue
from authserver.policy.choosing import Choice, NotChosen
from authserver.policy.delegation_details import DelegationDetails, Limits, Merchants
from authserver.policy.leaving_out import countries_of, kinds_of
from authserver.policy.reading import ANY, Vocabulary
from authserver.texts import _
from authserver.values import CategoryRange, Money

_MOST_KINDS = 40  # of a range, to be left out one by one


@dataclass(frozen=True, slots=True)
class Box:
    """One thing that can be ticked off."""

    value: str
    label: str
    note: str
    ticked: bool


@dataclass(frozen=True, slots=True)
class Boxes:
    """One list of the delegation; `member` is the name of its fields, `wrong` why the person must choose again.

    `single` are the things in its groups that can be left out one by one, as fields `without_MEMBER`.
    """

    member: str
    title: str
    boxes: tuple[Box, ...]
    wrong: str | None
    single: tuple[Box, ...] = ()

    @property
    def has_left_out(self) -> bool:
        """Whether the person has left something out already."""
        return any(box.ticked for box in self.single)


@dataclass(frozen=True, slots=True)
class Number:
    """One number that can be lowered; `most` is what was asked, in words."""

    member: str
    label: str
    value: str
    most: str
    wrong: str | None


@dataclass(frozen=True, slots=True)
class Choices:
    """All of it, for a page."""

    numbers: tuple[Number, ...]
    lists: tuple[Boxes, ...]
    expires: Number
    earliest: str
    latest: datetime


@dataclass(frozen=True, slots=True)
class Typed:
    """What the person entered before, where the page is shown again, and what of it cannot stand."""

    form: Form | None
    wrong: NotChosen | None

    def value(self, name: str, asked: str) -> str:
        """What is in a field."""
        values = () if self.form is None else self.form.parameters.get(name, ())
        return values[0][:40] if values else asked

    def ticked(self, name: str, value: str) -> bool:
        """Whether something is kept."""
        return self.form is None or value in self.form.parameters.get(name, ())

    def left_out(self, name: str, value: str) -> bool:
        """Whether something is left out."""
        return self.form is not None and value in self.form.parameters.get(f"without_{name}", ())

    def wrong_with(self, member: str) -> str | None:
        """Why the person must choose again."""
        if self.wrong is None or self.wrong.member != member:
            return None
        return {
            "empty": _("Leave at least one of these."),
            "no_amount": _("Enter a number such as 25.00, more than nothing."),
            "no_date": _("Enter a day that is still to come."),
            "spent": _("More than this was spent or is held already."),
            "too_high": _("You can lower this, not raise it."),
            "too_late": _("You can end it sooner, not later."),
        }[self.wrong.why]


@dataclass(frozen=True, slots=True)
class Names:
    """What places and shops are called here, by their identifiers and ids, where they are registered."""

    places: Mapping[str, str]
    shops: Mapping[str, str]

    def place(self, identifier: str) -> str:
        """A place, by its name if it has one."""
        return shown_name(self.places.get(identifier, identifier)).text

    def shop(self, merchant_id: str) -> str:
        """A shop, by its name if it is registered."""
        name = self.shops.get(merchant_id)
        return merchant_id if name is None else f"{shown_name(name).text} ({merchant_id})"


def choices(
    details: DelegationDetails, names: Names, vocabulary: Vocabulary, now: datetime, typed: Typed
) -> Choices:
    """What of `details` can be taken away."""
    ends = f"{details.expires:%Y-%m-%d}"
    return Choices(
        numbers=tuple(_numbers(details.limits, typed)),
        lists=tuple(_lists(details, names, vocabulary, typed)),
        expires=Number(
            "expires", _("Ends on"), typed.value("expires", ends), ends, typed.wrong_with("expires")
        ),
        earliest=f"{now:%Y-%m-%d}",
        latest=details.expires,
    )


def ask_above(details: DelegationDetails, typed: Typed) -> Number | None:
    """From which amount on the person is asked; None where nothing is spent."""
    if details.limits is None:
        return None
    above = details.approval.above if details.approval else None
    label = _("%(limit)s (%(currency)s)", limit=_("Ask me above"), currency=details.limits.currency)
    value = typed.value("ask_above", above.text if above else "")
    most = words.amount_in_words(above) if above else ""
    return Number("ask_above", label, value, most, typed.wrong_with("approval.above"))


# --- what comes back ------------------------------------------------------------------------------------------------


def read(form: Form) -> Choice:
    """What the person chose. Raises `NotChosen` for a day that is none."""
    said = form.parameters
    periods = [name for name in said if name.startswith("per_period.")]
    return Choice(
        actions=said.get("actions", ()),
        locations=said.get("locations"),
        categories=said.get("categories"),
        countries=said.get("countries"),
        ids=said.get("ids"),
        datatypes=said.get("datatypes"),
        without_categories=said.get("without_categories", ()),
        without_countries=said.get("without_countries", ()),
        without_datatypes=said.get("without_datatypes", ()),
        hand_on=form.one("hand_on") is not None,
        per_action=amount(form, "per_action"),
        total=amount(form, "total"),
        count=amount(form, "count"),
        per_period=tuple(amount(form, f"per_period.{place}") or "" for place in range(len(periods))),
        expires=_day(form),
    )


def amount(form: Form, name: str) -> str | None:
    """A number as it was typed, with the point that we write."""
    value = form.one(name)
    return None if value is None else value.strip().replace(",", ".")  # as many languages write it


def _day(form: Form) -> date | None:
    text = form.one("expires")
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise NotChosen("expires", "no_date") from error


# --- what is shown --------------------------------------------------------------------------------------------------


def _numbers(limits: Limits | None, typed: Typed) -> Iterable[Number]:
    if limits is None:
        return
    yield _money("per_action", "limits.per_action", _("At most at a time"), limits.per_action, typed)
    yield _money("total", "limits.total", _("At most in all"), limits.total, typed)
    for place, rule in enumerate(limits.per_period):
        label = _("At most each %(period)s", period=words.period_name(rule.period))
        if rule.categories:
            label = _("%(limit)s at %(shops)s", limit=label, shops=words.categories_in_words(rule.categories))
        if rule.ids:
            label = _("%(limit)s at %(shops)s", limit=label, shops=words.or_list(rule.ids))
        yield _money(f"per_period.{place}", "limits.per_period", label, rule.amount, typed)
    if limits.count is not None:
        value = typed.value("count", str(limits.count))
        wrong = typed.wrong_with("limits.count")
        yield Number("count", _("Payments at most"), value, str(limits.count), wrong)


def _money(name: str, member: str, label: str, most: Money, typed: Typed) -> Number:
    label = _("%(limit)s (%(currency)s)", limit=label, currency=most.currency)
    value = typed.value(name, most.text)
    return Number(name, label, value, words.amount_in_words(most), typed.wrong_with(member))


def _lists(details: DelegationDetails, names: Names, vocabulary: Vocabulary, typed: Typed) -> Iterable[Boxes]:
    actions = [
        (name, words.action_name(name, vocabulary.catalogue), _of_action(name, vocabulary.catalogue))
        for name in details.actions
    ]
    yield _boxes("actions", "actions", _("What it may do"), actions, typed)
    if details.merchants is not None:
        yield from _merchants(details.merchants, names, vocabulary, typed)
    if details.datatypes is not None:
        shown = _("Any of your data") if details.datatypes == ANY else ""
        data = [
            (name, shown or _title(words.datatype_name(name)), _contained(name, vocabulary))
            for name in details.datatypes
        ]
        inside = {one for name in details.datatypes for one in _below(name, vocabulary)}
        single = [(name, _title(words.datatype_name(name))) for name in sorted(inside)]
        yield _boxes("datatypes", "datatypes", _("What it may see of you"), data, typed, single)
    if details.locations is not None:
        places = [(name, *_place(name, names)) for name in details.locations]
        yield _boxes("locations", "locations", _("Where"), places, typed)
    if details.redelegation_depth:
        hand_on = [("yes", _("Hand on a part of this"), _("within the same limits"))]
        yield _boxes("hand_on", "redelegation", _("To other agents"), hand_on, typed)


def _merchants(merchants: Merchants, names: Names, vocabulary: Vocabulary, typed: Typed) -> Iterable[Boxes]:
    kinds = [
        (entry.text, words.category_name(entry.text), entry.text if entry.text != "any" else "")
        for entry in merchants.categories
    ]
    single = [(code, words.category_name(code)) for entry in merchants.categories for code in _kinds(entry)]
    yield _boxes("categories", "merchants.categories", _("Kinds of shops"), kinds, typed, single)
    countries = [
        (name, _title(words.country_name(name)), _members(name, vocabulary)) for name in merchants.countries
    ]
    grouped = {
        code for name in merchants.countries for code in countries_of(name, vocabulary) if code != name
    }
    by_name = sorted((_title(words.country_name(code)), code) for code in grouped)
    single = [(code, name) for name, code in by_name]
    yield _boxes("countries", "merchants.countries", _("Countries of the shops"), countries, typed, single)
    if merchants.ids is not None:
        shops = [(one, names.shop(one), "") for one in merchants.ids]
        yield _boxes("ids", "merchants.ids", _("Only these shops"), shops, typed)


def _boxes(
    name: str,
    member: str,
    title: str,
    entries: Sequence[tuple[str, str, str]],
    typed: Typed,
    single: Sequence[tuple[str, str]] = (),
) -> Boxes:
    return Boxes(
        name,
        title,
        tuple(Box(value, label, note, typed.ticked(name, value)) for value, label, note in entries),
        typed.wrong_with(member),
        tuple(Box(value, label, "", typed.left_out(name, value)) for value, label in single),
    )


def _of_action(name: str, catalogue: Catalogue) -> str:
    entry = catalogue.get(name)
    if entry is None:
        return ""
    if entry.approval == "always":
        return _("asks every time")
    if entry.moves_money:
        return _("spends money") if entry.budget == "debit" else _("brings money back")
    return _("shows personal data") if "datatypes" in entry.needs else ""


def _kinds(entry: CategoryRange) -> Sequence[str]:
    kinds = () if entry.low == entry.high or entry.text == "any" else tuple(kinds_of(entry))
    return kinds if len(kinds) <= _MOST_KINDS else ()


def _members(name: str, vocabulary: Vocabulary) -> str:
    if not vocabulary.country_groups.contains(name):
        return ""
    return words.and_list(sorted(words.country_name(code) for code in countries_of(name, vocabulary)))


def _below(name: str, vocabulary: Vocabulary) -> frozenset[str]:
    return vocabulary.datatypes.contains.get(name, frozenset()) - {name}


def _contained(name: str, vocabulary: Vocabulary) -> str:
    below = sorted(_below(name, vocabulary))
    return words.and_list(map(words.datatype_name, below)) if below else ""


def _place(name: str, names: Names) -> tuple[str, str]:
    if name == "any":
        return _("Anywhere that takes this server's tokens"), ""
    return names.place(name), name


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]
