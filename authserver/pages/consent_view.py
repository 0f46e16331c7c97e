"""What the consent page shows: all of it from details that were parsed, in words, with what was chosen so far."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from authserver.answer import Opened
from authserver.endpoints.forms import Form
from authserver.pages import words
from authserver.policy.catalogue import Catalogue
from authserver.policy.choosing import PRESETS, NotChosen, Preset, asking
from authserver.policy.delegation_details import ApprovalRule, DelegationDetails, Limits
from authserver.policy.reading import ANY, Vocabulary
from authserver.texts import _
from authserver.values import Money


@dataclass(frozen=True, slots=True)
class Box:
    """One thing that can be ticked off."""

    value: str
    label: str
    note: str
    ticked: bool


@dataclass(frozen=True, slots=True)
class Boxes:
    """One list of the delegation; `member` is the name of its fields, `wrong` why the person must choose again."""

    member: str
    title: str
    boxes: tuple[Box, ...]
    wrong: str | None


@dataclass(frozen=True, slots=True)
class Number:
    """One number that can be lowered; `most` is what was asked, in words."""

    member: str
    label: str
    value: str
    most: str
    wrong: str | None


@dataclass(frozen=True, slots=True)
class Asks:
    """One answer to when the person is asked."""

    preset: Preset
    title: str
    explanation: str
    ticked: bool


@dataclass(frozen=True, slots=True)
class Consent:
    """All of the page that follows from the request."""

    sentence: str
    numbers: tuple[Number, ...]
    lists: tuple[Boxes, ...]
    notes: tuple[str, ...]
    presets: tuple[Asks, ...]
    expires: Number
    earliest: str


def consent(
    seen: Opened,
    names: dict[str, str],
    vocabulary: Vocabulary,
    now: datetime,
    form: Form | None,
    wrong: NotChosen | None,
) -> Consent:
    """The page of a request; `names` are of resource servers, `form` is what was sent and cannot stand."""
    details, typed = seen.details, _Typed(form, wrong)
    agent = words.shown_name(seen.agent.name).text
    return Consent(
        sentence=words.in_plain_words(details, agent, vocabulary.catalogue),
        numbers=tuple(_numbers(details.limits, typed)),
        lists=tuple(_lists(details, names, vocabulary, typed)),
        notes=tuple(_notes(details)),
        presets=tuple(_presets(details, vocabulary.catalogue, typed)),
        expires=Number(
            "expires",
            _("Ends on"),
            typed.value("expires", f"{details.expires:%Y-%m-%d}"),
            f"{details.expires:%Y-%m-%d}",
            typed.wrong_with("expires"),
        ),
        earliest=f"{now:%Y-%m-%d}",
    )


@dataclass(frozen=True, slots=True)
class _Typed:
    """What the person entered before, where the page is shown again."""

    form: Form | None
    wrong: NotChosen | None

    def value(self, name: str, asked: str) -> str:
        values = () if self.form is None else self.form.parameters.get(name, ())
        return values[0][:40] if values else asked

    def ticked(self, name: str, value: str) -> bool:
        return self.form is None or value in self.form.parameters.get(name, ())

    def wrong_with(self, member: str) -> str | None:
        if self.wrong is None or self.wrong.member != member:
            return None
        return {
            "empty": _("Leave at least one of these, or say no."),
            "no_amount": _("Enter a number such as 25.00, more than nothing."),
            "no_date": _("Enter a day that is still to come."),
            "spent": _("More than this was spent or is held already."),
            "too_high": _("You can lower this, not raise it."),
            "too_late": _("You can end it sooner, not later."),
        }[self.wrong.why]


def _numbers(limits: Limits | None, typed: _Typed) -> Iterable[Number]:
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


def _money(name: str, member: str, label: str, most: Money, typed: _Typed) -> Number:
    label = _("%(limit)s (%(currency)s)", limit=label, currency=most.currency)
    value = typed.value(name, most.text)
    return Number(name, label, value, words.amount_in_words(most), typed.wrong_with(member))


def _lists(
    details: DelegationDetails, names: dict[str, str], vocabulary: Vocabulary, typed: _Typed
) -> Iterable[Boxes]:
    actions = [
        (name, words.action_name(name, vocabulary.catalogue), _of_action(name, vocabulary.catalogue))
        for name in details.actions
    ]
    yield _boxes("actions", "actions", _("What it may do"), actions, typed)
    if details.merchants is not None:
        kinds = [
            (entry.text, words.category_name(entry.text), entry.text if entry.text != "any" else "")
            for entry in details.merchants.categories
        ]
        yield _boxes("categories", "merchants.categories", _("Kinds of shops"), kinds, typed)
        countries = [
            (name, _title(words.country_name(name)), _members(name, vocabulary))
            for name in details.merchants.countries
        ]
        yield _boxes("countries", "merchants.countries", _("Countries of the shops"), countries, typed)
    if details.datatypes is not None:
        shown = _("Any of your data") if details.datatypes == ANY else ""
        data = [
            (name, shown or _title(words.datatype_name(name)), _contained(name, vocabulary))
            for name in details.datatypes
        ]
        yield _boxes("datatypes", "datatypes", _("What it may see of you"), data, typed)
    if details.locations is not None:
        places = [(name, *_place(name, names)) for name in details.locations]
        yield _boxes("locations", "locations", _("Where"), places, typed)


def _boxes(
    name: str, member: str, title: str, entries: Sequence[tuple[str, str, str]], typed: _Typed
) -> Boxes:
    boxes = tuple(Box(value, label, note, typed.ticked(name, value)) for value, label, note in entries)
    return Boxes(name, title, boxes, typed.wrong_with(member))


def _of_action(name: str, catalogue: Catalogue) -> str:
    entry = catalogue.get(name)
    if entry is None:
        return ""
    if entry.approval == "always":
        return _("asks every time")
    if entry.moves_money:
        return _("spends money") if entry.budget == "debit" else _("brings money back")
    return _("shows personal data") if "datatypes" in entry.needs else ""


def _members(name: str, vocabulary: Vocabulary) -> str:
    group = vocabulary.country_groups.groups.get(name)
    if group is None:
        return ""
    return words.and_list(sorted(words.country_name(country.code) for country in group))


def _contained(name: str, vocabulary: Vocabulary) -> str:
    below = sorted(vocabulary.datatypes.contains.get(name, frozenset()) - {name})
    return words.and_list(map(words.datatype_name, below)) if below else ""


def _place(name: str, names: dict[str, str]) -> tuple[str, str]:
    if name == "any":
        return _("Anywhere that takes this server's tokens"), ""
    return words.shown_name(names.get(name, name)).text, name


def _notes(details: DelegationDetails) -> Iterable[str]:
    merchants = details.merchants
    if merchants and merchants.ids:
        yield _("Only these shops: %(shops)s.", shops=words.and_list(merchants.ids))
    if merchants and (excluded := merchants.excluded):
        never = [
            *(words.category_name(entry.text) for entry in excluded.categories),
            *map(words.country_name, excluded.countries),
            *excluded.ids,
        ]
        if never:
            yield _("Never: %(shops)s.", shops=words.and_list(never))
    if details.redelegation_depth:
        yield _("It may hand on a part of this to other agents, within the same limits.")


def _presets(details: DelegationDetails, catalogue: Catalogue, typed: _Typed) -> Iterable[Asks]:
    titles = {
        "strict": _("Strict: ask me each time"),
        "balanced": _("Balanced: ask me about the larger things"),
        "trust": _("Trust: ask me as little as it proposes"),
    }
    chosen = typed.value("preset", "balanced")
    for preset in PRESETS:
        rule = asking(details, details.approval, preset, catalogue)
        yield Asks(preset, titles[preset], _when(rule, catalogue), preset == chosen)


def _when(rule: ApprovalRule | None, catalogue: Catalogue) -> str:
    if rule is None:
        return _("It asks only where this server's rules always ask.")
    named = [words.action_name(name, catalogue) for name in rule.actions]
    if rule.above is None:
        return _("It asks before: %(actions)s.", actions=words.and_list(named))
    amount = words.amount_in_words(rule.above)
    if not named:
        return _("It asks above %(amount)s.", amount=amount)
    return _(
        "It asks above %(amount)s, and before: %(actions)s.", amount=amount, actions=words.and_list(named)
    )


def _title(text: str) -> str:
    return text[:1].upper() + text[1:]
