"""A user allows less than before: the same delegation, narrower. Nothing here can make it broader."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from authserver.errors import Refusal, Violation
from authserver.policy.catalogue import Catalogue
from authserver.policy.delegation_details import ApprovalRule, DelegationDetails, Limits, PeriodRule
from authserver.values import Money


@dataclass(frozen=True, slots=True)
class Wish:
    """What a user wants to be left. None leaves a number as it is; the lists are what is kept.

    `per_period` has one amount for each rule of the delegation. Amounts are in the delegation's currency.
    """

    actions: Collection[str]
    datatypes: Collection[str]
    per_action: Money | None = None
    total: Money | None = None
    per_period: tuple[Money | None, ...] = ()
    ask_above: Money | None = None


def lowered(details: DelegationDetails, wish: Wish, catalogue: Catalogue) -> DelegationDetails:
    """`details` with what the wish takes away. Raises `Refusal` with every member that would be broader, or empty."""
    violations = [*_broader(details, wish)]
    actions = tuple(name for name in details.actions if name in wish.actions)
    if not actions:
        violations.append(Violation("actions", [], list(details.actions)))
    if violations:
        raise Refusal(
            "invalid_authorization_details", "it can only be lowered", "lower.broader", tuple(violations)
        )
    datatypes = details.datatypes and tuple(name for name in details.datatypes if name in wish.datatypes)
    return replace(
        details,
        actions=actions,
        datatypes=datatypes or None,
        limits=details.limits and _limits(details.limits, wish),
        approval=_approval(details, wish, catalogue),
    )


def _broader(details: DelegationDetails, wish: Wish) -> Iterator[Violation]:
    for name in sorted({*wish.actions} - {*details.actions}):
        yield Violation("actions", name, list(details.actions))
    for name in sorted({*wish.datatypes} - {*(details.datatypes or ())}):
        yield Violation("datatypes", name, list(details.datatypes or ()))
    for constraint, wanted, held in _numbers(details, wish):
        if wanted is not None and (
            held is None or wanted.currency != held.currency or wanted.minor > held.minor
        ):
            yield Violation(constraint, wanted.text, held and held.text)


def _numbers(details: DelegationDetails, wish: Wish) -> Iterator[tuple[str, Money | None, Money | None]]:
    limits = details.limits
    yield "limits.per_action", wish.per_action, limits.per_action if limits else None
    yield "limits.total", wish.total, limits.total if limits else None
    rules = limits.per_period if limits else ()
    for number, wanted in enumerate(wish.per_period):
        yield "limits.per_period", wanted, rules[number].amount if number < len(rules) else None
    # To be asked from a lower amount on is less; where there was no such amount, any is.
    above = details.approval and details.approval.above
    yield "approval.above", wish.ask_above, above or wish.ask_above if limits else None


def _limits(limits: Limits, wish: Wish) -> Limits:
    wanted = (*wish.per_period, *(None for _ in limits.per_period))
    return replace(
        limits,
        per_action=wish.per_action or limits.per_action,
        total=wish.total or limits.total,
        per_period=tuple(
            _rule(rule, amount) for rule, amount in zip(limits.per_period, wanted, strict=False)
        ),
    )


def _rule(rule: PeriodRule, amount: Money | None) -> PeriodRule:
    return replace(rule, amount=amount) if amount else rule


def _approval(details: DelegationDetails, wish: Wish, catalogue: Catalogue) -> ApprovalRule | None:
    if wish.ask_above is None:
        return details.approval
    if details.approval is not None:
        return replace(details.approval, above=wish.ask_above)
    # Where nothing was said, the catalogue asks for some actions by itself; what is said now must not end that.
    asked = (entry for name in details.actions if (entry := catalogue.get(name)))
    return ApprovalRule(wish.ask_above, tuple(e.name for e in asked if e.approval == "unless_delegated"))
