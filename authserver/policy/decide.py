"""The decision: does a delegation, and each one above it, allow this action here and now?"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain as concatenated

from authserver.errors import Violation
from authserver.policy.catalogue import CatalogueEntry
from authserver.policy.constraints import (
    Actions,
    Asked,
    AtMost,
    Categories,
    Constraint,
    CountLeft,
    Countries,
    Currency,
    DataTypes,
    ExceptCategories,
    ExceptCountries,
    ExceptIds,
    ForTheAction,
    Ids,
    Locations,
    Needs,
    NoLimits,
    OpenLeft,
    RegisteredFacts,
)
from authserver.policy.delegation_details import DelegationDetails, Limits, Merchants
from authserver.policy.details import ActionDetails, Merchant
from authserver.policy.reading import Vocabulary

_BUDGETS = frozenset({"limits.total", "limits.per_period", "limits.count", "catalogue.open_reservations"})
_NUMBERS = _BUDGETS | {"limits.per_action"}


@dataclass(frozen=True, slots=True)
class Spent:
    """What counts against one delegation at this instant, in minor units of its currency.

    `count` is the number of debits; `periods` has one sum for each `per_period` rule, of the window that holds now;
    `open` is how many of the debits have a token that was neither used nor given back.
    """

    total: int
    count: int
    periods: tuple[int, ...]
    open: int = 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """One delegation of a chain, with what has been spent of it."""

    details: DelegationDetails
    spent: Spent


@dataclass(frozen=True, slots=True)
class Situation:
    """Facts of the server's own: where the action is to happen, and as what agent and place are registered.

    `registered_merchant` is None for a platform, `agent_actions` is None for an agent registered without a list.
    `open_reservations` is how many debits of one delegation may be open at once; None is as many as there are.
    """

    resource_server: str
    registered_merchant: Merchant | None
    agent_actions: frozenset[str] | None
    open_reservations: int | None = None


@dataclass(frozen=True, slots=True)
class Permit:
    """Allowed: `action` is what the token says, with its place and the merchant's registered facts."""

    action: ActionDetails
    entry: CatalogueEntry


@dataclass(frozen=True, slots=True)
class Refuse:
    """Not allowed: every bound that is crossed, once each, with the tightest `allowed`.

    `budget_only`: only budgets are short, so that what expired reservations give back may help.
    """

    violations: tuple[Violation, ...]
    budget_only: bool


@dataclass(frozen=True, slots=True)
class NeedsApproval:
    """Allowed when someone agrees to exactly this; `because` is the path of the rule that asks.

    `approvers` are `user` or `group:NAME`; each of them must agree.
    """

    action: ActionDetails
    entry: CatalogueEntry
    because: str
    approvers: tuple[str, ...]


def decide(
    chain: Sequence[Allowance], request: ActionDetails, situation: Situation, vocabulary: Vocabulary
) -> Permit | Refuse | NeedsApproval:
    """Judge `request` against every delegation of `chain`, root first, at least one.

    A location that the request names has been matched to `situation.resource_server` by the caller, and the delegations
    are known to be alive. Raises `LookupError` for an action that the catalogue lacks (the parsers know no other).
    """
    if not chain:
        raise ValueError("nothing was delegated")
    entry = vocabulary.catalogue.entries[request.action]
    asked = Asked(with_facts(request, entry, situation), entry, vocabulary)
    constraints = concatenated(
        _outside(request, situation, entry),
        *(_inside(allowance, asked) for allowance in chain),
        _open_enough(chain, asked, situation),
    )
    violations = [violation for constraint in constraints for violation in constraint.check(asked)]
    if violations:
        return Refuse(
            _tightest(violations), all(violation.constraint in _BUDGETS for violation in violations)
        )
    if because := _approval_due(chain, asked):
        return NeedsApproval(asked.action, entry, because, (entry.approver,))
    return Permit(asked.action, entry)


def with_facts(request: ActionDetails, entry: CatalogueEntry, situation: Situation) -> ActionDetails:
    """The request with its place, and with the merchant's facts that are on record in place of what was said."""
    merchant, registered = request.merchant, situation.registered_merchant
    if registered is not None and (merchant is not None or "merchant" in entry.needs):
        said = merchant or Merchant()
        merchant = Merchant(
            registered.id or said.id,
            registered.category or said.category,
            registered.country or said.country,
            registered.name,  # never the agent's words where a registered merchant is shown to a person (A83)
        )
    return ActionDetails(
        request.action,
        situation.resource_server,
        request.amount,
        merchant,
        request.datatypes,
        request.reference,
    )


def _outside(request: ActionDetails, situation: Situation, entry: CatalogueEntry) -> Iterator[Constraint]:
    """What bounds a request whatever was delegated."""
    yield Needs()
    if entry.datatypes is not None and request.datatypes:
        yield ForTheAction(entry.datatypes)
    if situation.agent_actions is not None:
        yield Actions(situation.agent_actions)
    if request.merchant is not None and situation.registered_merchant is not None:
        yield RegisteredFacts(request.merchant, situation.registered_merchant)


def _inside(allowance: Allowance, asked: Asked) -> Iterator[Constraint]:
    """What one delegation bounds."""
    details = allowance.details
    yield Actions(details.actions)
    yield Locations(details.locations)
    yield DataTypes(details.datatypes)
    if asked.action.merchant is not None:
        yield from _merchant_bounds(details.merchants)
    if details.limits is None:
        yield NoLimits()
    else:
        yield Currency(details.limits.currency)
        yield AtMost("limits.per_action", details.limits.currency, details.limits.per_action.minor)
        if asked.entry.budget in ("debit", "check"):  # only debits count towards the rest (contract §4)
            yield from _budgets(details.limits, allowance.spent, asked.action.merchant)


def _merchant_bounds(merchants: Merchants | None) -> Iterator[Constraint]:
    if merchants is None:
        yield from (Categories(()), Countries(()))
        return
    yield Categories(merchants.categories)
    yield Countries(merchants.countries)
    if merchants.ids is not None:
        yield Ids(merchants.ids)
    if merchants.excluded is not None:
        yield ExceptCategories(merchants.excluded.categories)
        yield ExceptCountries(merchants.excluded.countries)
        yield ExceptIds(merchants.excluded.ids)


def _budgets(limits: Limits, spent: Spent, merchant: Merchant | None) -> Iterator[Constraint]:
    yield AtMost("limits.total", limits.currency, limits.total.minor - spent.total)
    for rule, used in zip(limits.per_period, spent.periods, strict=True):
        if rule.applies_to(merchant):
            yield AtMost("limits.per_period", limits.currency, rule.amount.minor - used)
    if limits.count is not None:
        yield CountLeft(limits.count - spent.count)


def _open_enough(chain: Sequence[Allowance], asked: Asked, situation: Situation) -> Iterator[Constraint]:
    """What bounds the debits that are open at once: as many below one delegation, at whatever depth (A78)."""
    if asked.entry.budget == "debit" and situation.open_reservations is not None:
        for allowance in chain:
            yield OpenLeft(situation.open_reservations - allowance.spent.open)


def _tightest(found: Iterable[Violation]) -> tuple[Violation, ...]:
    by_constraint: dict[str, Violation] = {}
    for violation in found:
        if _is_tighter(violation, by_constraint.get(violation.constraint)):
            by_constraint[violation.constraint] = violation
    return tuple(by_constraint.values())


def _is_tighter(violation: Violation, other: Violation | None) -> bool:
    if other is None:
        return True
    if violation.constraint in _NUMBERS:
        return _number(violation.allowed) < _number(other.allowed)
    # A registered fact is one value and final; of lists the later is the child's, which is never the wider.
    return not isinstance(other.allowed, str)


def _number(allowed: object) -> Decimal:
    return Decimal(-1) if allowed is None else Decimal(str(allowed))


def _approval_due(chain: Sequence[Allowance], asked: Asked) -> str | None:
    if asked.entry.approval == "always":
        return "catalogue.approval"
    for allowance in chain:
        rule, amount = allowance.details.approval, asked.action.amount
        if rule is None:
            if asked.entry.approval == "unless_delegated":
                return "catalogue.approval"
        elif asked.action.action in rule.actions:
            return "approval.actions"
        elif rule.above is not None and amount is not None and amount.minor > rule.above.minor:
            return "approval.above"
    return None


def merchant_violations(
    chain: Sequence[DelegationDetails], action: ActionDetails, vocabulary: Vocabulary
) -> tuple[Violation, ...]:
    """Where the merchant of `action` is outside what a delegation of `chain` allows: judged anew at redemption."""
    asked = Asked(action, vocabulary.catalogue.entries[action.action], vocabulary)
    bounds = concatenated(*(_merchant_bounds(details.merchants) for details in chain))
    return _tightest(violation for bound in bounds for violation in bound.check(asked))
