"""A user allows less than before: the same delegation, narrower. Nothing here can make it broader."""

from dataclasses import replace
from datetime import datetime

from authserver.policy.catalogue import Catalogue
from authserver.policy.choosing import Choice, NotChosen, lets_nobody_in, narrowed
from authserver.policy.delegation_details import ApprovalRule, DelegationDetails
from authserver.policy.reading import Vocabulary
from authserver.values import Money, NotAValue


def lowered(
    standing: DelegationDetails, choice: Choice, ask_above: str | None, vocabulary: Vocabulary, now: datetime
) -> DelegationDetails:
    """`standing` without what the choice takes away; above `ask_above`, as it was typed, the user is asked from now on.

    Raises `NotChosen` where the person must choose again, and `Refusal` where the form was tampered with.
    """
    less = narrowed(standing, choice, vocabulary, now)
    if less.merchants is not None and lets_nobody_in(less.merchants):
        # Nothing that is left moves money. The limits stay, so that what was spent of them can be seen.
        less = replace(less, merchants=standing.merchants)
    return replace(less, approval=_approval(less, ask_above, vocabulary.catalogue))


def _approval(details: DelegationDetails, typed: str | None, catalogue: Catalogue) -> ApprovalRule | None:
    if not typed or details.limits is None:
        return details.approval
    above, before = _amount(details.limits.currency, typed), details.approval
    if before is None:
        # Where nothing was said, the catalogue asks for some actions by itself; what is said now must not end that.
        asked = (entry for name in details.actions if (entry := catalogue.get(name)))
        return ApprovalRule(above, tuple(e.name for e in asked if e.approval == "unless_delegated"))
    # To be asked from a lower amount on is less; where there was no such amount, any is.
    if before.above is not None and above.minor > before.above.minor:
        raise NotChosen("approval.above", "too_high")
    return replace(before, above=above)


def _amount(currency: str, typed: str) -> Money:
    try:
        return Money.parse(currency, typed)
    except NotAValue as error:
        raise NotChosen("approval.above", "no_amount") from error
