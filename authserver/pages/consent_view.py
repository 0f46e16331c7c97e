"""What the consent page shows: all of it from details that were parsed, in words, with what was chosen so far."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from authserver.answer import Opened
from authserver.pages import words
from authserver.pages.choices import Choices, Names, Typed, choices
from authserver.policy.catalogue import Catalogue
from authserver.policy.choosing import PRESETS, Preset, asking
from authserver.policy.delegation_details import ApprovalRule, DelegationDetails
from authserver.policy.reading import Vocabulary
from authserver.texts import _


@dataclass(frozen=True, slots=True)
class Asks:
    """One answer to when the person is asked."""

    preset: Preset
    title: str
    explanation: str
    ticked: bool


@dataclass(frozen=True, slots=True)
class Consent:
    """All of the page that follows from the request. `sentence` and `facts` are about what is chosen so far."""

    sentence: str
    facts: tuple[str, ...]
    before: str | None  # what stands today, and would be replaced
    choices: Choices
    presets: tuple[Asks, ...]


def consent(
    seen: Opened,
    chosen: DelegationDetails,
    names: Names,
    vocabulary: Vocabulary,
    now: datetime,
    typed: Typed,
) -> Consent:
    """The page of a request, of which `chosen` is what the person has kept so far: all of it, at first."""
    agent, catalogue = words.shown_name(seen.agent.name).text, vocabulary.catalogue
    standing = None
    if seen.standing is not None:
        standing = words.in_plain_words(seen.standing.details, agent, catalogue)
    return Consent(
        sentence=words.headline(chosen, agent, catalogue),
        facts=tuple(words.facts(chosen, names.shop, catalogue)),
        before=standing,
        choices=choices(seen.details, names, vocabulary, now, typed),
        presets=tuple(_presets(chosen, seen.details.approval, catalogue, typed)),
    )


def _presets(
    details: DelegationDetails, proposed: ApprovalRule | None, catalogue: Catalogue, typed: Typed
) -> Iterable[Asks]:
    titles = {
        "strict": _("Strict: ask me each time"),
        "balanced": _("Balanced: ask me about the larger things"),
        "trust": _("Trust: ask me as little as it proposes"),
    }
    chosen = typed.value("preset", "balanced")
    for preset in PRESETS:
        rule = asking(details, proposed, preset, catalogue)
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
