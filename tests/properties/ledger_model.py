"""What the ledger must do, told a second time in plain Python and as simply as possible.

Nothing is kept as a running total: what a delegation has spent is counted from its actions whenever it is asked for.
Amounts are in minor units of the one currency that a tree of delegations has. No code of the server is used here.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

Kind = Literal["payment.finalize", "refund.initiate", "order.checkout", "catalog.search"]
LIFETIMES: dict[Kind, int] = {
    "payment.finalize": 120,
    "refund.initiate": 120,
    "order.checkout": 120,
    "catalog.search": 300,
}
SETTLE_WITHIN = timedelta(days=7)
KEY_KEPT = timedelta(days=1)
ENDED = ("voided", "expired")


@dataclass(frozen=True)
class Merchant:
    """A merchant in the words of the contract."""

    id: str
    category: str
    country: str


@dataclass(frozen=True)
class Rule:
    """A `per_period` rule: so much in each window of so many hours, for these categories or for all."""

    amount: int
    hours: int
    categories: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Bounds:
    """What one delegation allows."""

    currency: str
    per_action: int
    total: int
    count: int | None
    rules: tuple[Rule, ...]
    categories: tuple[str, ...]
    countries: tuple[str, ...]
    not_before: datetime
    expires: datetime


@dataclass(eq=False)
class Delegation:
    """A delegation; `born` is how many revocations there had been when its root was made."""

    id: str
    agent: str
    user: str
    bounds: Bounds
    born: int
    parent: "Delegation | None"

    @property
    def chain(self) -> "list[Delegation]":
        """All delegations from the root to this one."""
        return [*(self.parent.chain if self.parent else ()), self]


@dataclass(frozen=True)
class Ask:
    """An exchange as an agent asks for it. `place` is a resource server's name."""

    kind: Kind
    place: str
    amount: int
    currency: str
    merchant: Merchant
    reference: str = "cart-1"
    task: str | None = None


@dataclass(eq=False)
class Action:
    """A token and what became of it."""

    id: str
    delegation: Delegation
    ask: Ask
    merchant: Merchant
    issued: datetime
    expires: datetime
    ends: datetime | None
    state: str = "reserved"
    authorized: int = 0
    captured: int = 0
    refunded: int = 0

    @property
    def is_debit(self) -> bool:
        """Whether it counts against budgets."""
        return self.ask.kind == "payment.finalize"

    @property
    def held(self) -> int:
        """What it takes from `total`."""
        amounts = {"reserved": self.ask.amount, "authorized": self.authorized}
        return amounts.get(self.state, self.captured - self.refunded)

    @property
    def in_window(self) -> int:
        """What it takes from `per_period`: a refund gives nothing back there."""
        return self.captured if self.state in ("captured", "refunded") else self.held

    def is_due(self, now: datetime) -> bool:
        """Whether it has lapsed, although nobody may have written so yet."""
        return self.state in ("reserved", "authorized") and self.ends is not None and self.ends <= now


@dataclass(frozen=True)
class Revocation:
    """One revocation; `name` is a delegation's id, an agent, a user, a trust domain, a task, or nothing for `all`."""

    kind: str
    name: str

    def covers(self, link: Delegation, domain: str) -> bool:
        """Whether it ends that delegation and all below it."""
        names = {"delegation": link.id, "agent": link.agent, "user": link.user, "trust_domain": domain}
        return self.kind == "all" or names.get(self.kind) == self.name


@dataclass(frozen=True)
class Refused:
    """An exchange that must be refused, with exactly these constraints."""

    error: str
    constraints: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Settled:
    """The answer to a redemption or a step of one."""

    status: int
    state: str | None = None
    amount: int | None = None
    voided: bool = False


@dataclass
class Ledger:
    """The whole state: what happened, and nothing that could be counted from it."""

    now: datetime
    domain: str
    registered: dict[str, Merchant | None]  # by place: the merchant on record, None for a platform
    open_most: int
    delegations: list[Delegation] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    revocations: list[Revocation] = field(default_factory=list)
    exchange_keys: dict[tuple[str, str], tuple[str, Ask, Action]] = field(default_factory=dict)
    settle_keys: dict[tuple[str, str], tuple[object, Settled, datetime]] = field(default_factory=dict)

    # --- what is spent -------------------------------------------------------------------------------------

    def debits(self, delegation: Delegation) -> list[Action]:
        """The debits of a delegation and of all below it that have not ended."""
        return [
            action
            for action in self.actions
            if action.is_debit and action.state not in ENDED and delegation in action.delegation.chain
        ]

    def totals(self, delegation: Delegation) -> dict[str, int]:
        """Each running total of a delegation, counted anew."""
        debits = self.debits(delegation)
        return {
            "reserved": sum(a.ask.amount for a in debits if a.state == "reserved"),
            "authorized": sum(a.authorized for a in debits),
            "captured": sum(a.captured for a in debits),
            "refunded": sum(a.refunded for a in debits),
            "action_count": len(debits),
            "open_count": sum(a.state == "reserved" for a in debits),
        }

    def windows(self, delegation: Delegation) -> dict[tuple[int, int], int]:
        """By rule and window: what counts towards it."""
        spent: dict[tuple[int, int], int] = {}
        for number, rule in enumerate(delegation.bounds.rules):
            for action in self.debits(delegation):
                if rule.categories is None or action.merchant.category in rule.categories:
                    key = number, window(delegation, rule, action.issued)
                    spent[key] = spent.get(key, 0) + action.in_window
        return {key: amount for key, amount in spent.items() if amount}

    # --- whether something still stands --------------------------------------------------------------------

    def has_ended(self, delegation: Delegation, task: str | None) -> bool:
        """Whether nothing may be done with the delegation any more, for that task."""
        if any(not link.bounds.not_before <= self.now < link.bounds.expires for link in delegation.chain):
            return True
        if task is not None and Revocation("task", task) in self.revocations:
            return True
        return any(
            revocation.covers(link, self.domain)
            for link in delegation.chain
            for revocation in self.revocations[link.born :]
        )

    def is_live(self, action: Action) -> bool:
        """Whether its token is worth anything."""
        lives = action.state == "reserved" and self.now < action.expires
        return lives and not self.has_ended(action.delegation, action.ask.task)

    # --- the exchange --------------------------------------------------------------------------------------

    def exchange(self, delegation: Delegation, ask: Ask, key: str | None) -> Refused | Action | None:
        """Refused, or the action of an earlier request with the same key, or None: it must be permitted."""
        if self.has_ended(delegation, ask.task):
            return Refused("invalid_request")
        earlier = self.exchange_keys.get((delegation.agent, key)) if key else None
        if earlier is not None:
            same = earlier[:2] == (delegation.id, ask) and self.is_live(earlier[2])
            return earlier[2] if same else Refused("invalid_request")
        crossed = self._crossed(delegation, ask)
        if crossed and crossed <= _BUDGETS:
            # What has lapsed is given back first; if that is not enough, it is as if nothing had been tried.
            lapsed = self._lapse(delegation.chain[0])
            crossed = self._crossed(delegation, ask)
            if crossed:
                for action, state in lapsed:
                    action.state = state
        return Refused("invalid_authorization_details", frozenset(crossed)) if crossed else None

    def permitted(self, delegation: Delegation, ask: Ask, key: str | None, action_id: str) -> Action:
        """Record what an exchange that was permitted led to."""
        ends = [link.bounds.expires for link in delegation.chain]
        expires = min(self.now + timedelta(seconds=LIFETIMES[ask.kind]), *ends)
        merchant = self.registered[ask.place] or ask.merchant
        debit = ask.kind == "payment.finalize"
        action = Action(action_id, delegation, ask, merchant, self.now, expires, expires if debit else None)
        self.actions.append(action)
        if key:
            self.exchange_keys[delegation.agent, key] = (delegation.id, ask, action)
        return action

    def _crossed(self, delegation: Delegation, ask: Ask) -> set[str]:
        if ask.kind == "catalog.search":
            return set()
        crossed: set[str] = set()
        for link in delegation.chain:
            crossed |= self._crossed_in(link, ask)
        on_record = self.registered[ask.place]
        if on_record is not None:
            crossed |= {
                constraint
                for constraint, fact in _FACTS.items()
                if getattr(ask.merchant, fact) != getattr(on_record, fact)
            }
        return crossed

    def _crossed_in(self, link: Delegation, ask: Ask) -> set[str]:
        bounds, crossed = link.bounds, outside(link, self.registered[ask.place] or ask.merchant)
        if ask.currency != bounds.currency:
            crossed.add("limits.currency")
        elif ask.amount > bounds.per_action:
            crossed.add("limits.per_action")
        if ask.kind != "refund.initiate":
            crossed |= self._crossed_budgets(link, ask)
        return crossed

    def _crossed_budgets(self, link: Delegation, ask: Ask) -> set[str]:
        bounds, totals, windows = link.bounds, self.totals(link), self.windows(link)
        spent = totals["reserved"] + totals["authorized"] + totals["captured"] - totals["refunded"]
        category = (self.registered[ask.place] or ask.merchant).category
        crossed: set[str] = set()
        if ask.currency == bounds.currency:
            if ask.amount > bounds.total - spent:
                crossed.add("limits.total")
            for number, rule in enumerate(bounds.rules):
                applies = rule.categories is None or category in rule.categories
                used = windows.get((number, window(link, rule, self.now)), 0)
                if applies and ask.amount > rule.amount - used:
                    crossed.add("limits.per_period")
        if bounds.count is not None and totals["action_count"] >= bounds.count:
            crossed.add("limits.count")
        if ask.kind == "payment.finalize" and totals["open_count"] >= self.open_most:
            crossed.add("catalogue.open_reservations")
        return crossed

    def _lapse(self, root: Delegation | None) -> list[tuple[Action, str]]:
        """Let what is due lapse, of one root or of all; what it was before."""
        due = [a for a in self.actions if a.is_due(self.now) and root in (None, a.delegation.chain[0])]
        before = [(action, action.state) for action in due]
        for action in due:
            action.state = "expired"
        return before

    # --- settling ------------------------------------------------------------------------------------------

    def redeem(
        self,
        action: Action,
        caller: str,
        amount: int | None,
        currency: str,
        merchant: Merchant | None,
        capture: bool,
    ) -> Settled:
        """Use a token; all that changes is written."""
        ask = action.ask
        if caller != ask.place:
            return Settled(404)
        if ask.kind not in ("payment.finalize", "refund.initiate") or not self.is_live(action):
            return Settled(409)
        if merchant is not None and any(outside(link, merchant) for link in action.delegation.chain):
            action.state = "voided"
            return Settled(409, voided=True)
        taken = ask.amount if amount is None else amount
        if taken > ask.amount or (amount is not None and currency != ask.currency):
            return Settled(409)
        if merchant not in (None, action.merchant):
            return Settled(409)
        if ask.kind == "refund.initiate":
            if not self._give_back(action, taken):
                return Settled(409)
            capture = True
        if capture:
            action.state, action.captured = "captured", taken
        else:
            action.state, action.authorized, action.ends = "authorized", taken, self.now + SETTLE_WITHIN
        return Settled(201, action.state, taken)

    def step(self, verb: str, action: Action, caller: str, amount: int | None) -> Settled:
        """Capture, void or refund; all that changes is written."""
        if caller != action.ask.place or action.state == "reserved":
            return Settled(404)  # a token that nobody has redeemed is no redemption
        if verb == "refund":
            return self._refund(action, amount)
        if action.state != "authorized" or action.is_due(self.now):
            return Settled(409)
        held = action.authorized
        if verb == "void":
            if amount not in (None, held):
                return Settled(409)
            action.state, action.authorized = "voided", 0
            return Settled(200, "voided", held)
        taken = held if amount is None else amount
        if taken > held:
            return Settled(409)
        action.state, action.authorized, action.captured = "captured", 0, taken
        return Settled(200, "captured", taken)

    def _refund(self, action: Action, amount: int | None) -> Settled:
        left = action.captured - action.refunded
        given = left if amount is None else amount
        if action.state != "captured" or not action.is_debit or given > left:
            return Settled(409)
        self._give(action, given)
        return Settled(200, action.state, given)

    def _give(self, action: Action, amount: int) -> None:
        action.refunded += amount
        action.state = "refunded" if action.refunded == action.captured else "captured"

    def _give_back(self, credit: Action, amount: int) -> bool:
        """Refund what was captured for the same reference, oldest first; False where that is less."""
        same = [
            a
            for a in self.actions
            if a.is_debit
            and a.state == "captured"
            and a.delegation.chain[0] is credit.delegation.chain[0]
            and (a.ask.place, a.ask.reference) == (credit.ask.place, credit.ask.reference)
        ]
        if amount > sum(a.captured - a.refunded for a in same):
            return False
        for paid in sorted(same, key=lambda a: a.issued):
            part = min(amount, paid.captured - paid.refunded)
            if part:
                self._give(paid, part)
                amount -= part
        return True

    # --- endings -------------------------------------------------------------------------------------------

    def revoke(self, revocation: Revocation) -> None:
        """End what it covers; what is only reserved is given back. A token that holds nothing ends without a mark."""
        self.revocations.append(revocation)
        for action in self.actions:
            holds = action.state == "reserved" and action.ends is not None
            if holds and self._is_ended_by(action, revocation):
                action.state = "voided"

    def _is_ended_by(self, action: Action, revocation: Revocation) -> bool:
        if revocation.kind == "task":
            return action.ask.task == revocation.name
        return any(revocation.covers(link, self.domain) for link in action.delegation.chain)

    def revoke_token(self, action: Action) -> None:
        """RFC 7009, by the agent whose token it is."""
        if action.state == "reserved":
            action.state = "voided"

    def tidy(self) -> None:
        """Upkeep: let everything lapse that is due, forget keys that are old."""
        self._lapse(None)
        exchanges = self.exchange_keys.items()
        self.exchange_keys = {k: v for k, v in exchanges if self.now < v[2].expires + KEY_KEPT}
        self.settle_keys = {k: v for k, v in self.settle_keys.items() if self.now < v[2] + KEY_KEPT}


_BUDGETS = {"limits.total", "limits.per_period", "limits.count", "catalogue.open_reservations"}
_FACTS = {"merchants.ids": "id", "merchants.categories": "category", "merchants.countries": "country"}


def window(delegation: Delegation, rule: Rule, at: datetime) -> int:
    """In which window of a rule an instant lies."""
    return (at - delegation.bounds.not_before) // timedelta(hours=rule.hours)


def outside(link: Delegation, merchant: Merchant) -> set[str]:
    """By which facts a merchant is outside what a delegation allows."""
    crossed = set()
    if merchant.category not in link.bounds.categories:
        crossed.add("merchants.categories")
    if merchant.country not in link.bounds.countries:
        crossed.add("merchants.countries")
    return crossed
