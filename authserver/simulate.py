"""What other policies would have said: the recorded decisions of a period, asked again with the facts of their time.

Nothing is changed. What a request was refused for by its delegation stays refused; only the policies are others.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

from sqlalchemy import Connection, func, select

from authserver import strict_json
from authserver.actors import resource_servers
from authserver.audit.events import Event, count_between, events_between
from authserver.delegations.records import Chain, DelegationRecord, load_chain
from authserver.ledger.steps import EFFECTS
from authserver.policies import judging
from authserver.policies.files import InForce
from authserver.policy.cedar import PolicyAnswer
from authserver.policy.cedar_text import Policy
from authserver.policy.decide import Allowance, Situation, Spent, with_facts
from authserver.policy.details import ActionDetails, stored_action
from authserver.policy.facts import Facts
from authserver.policy.reading import instant_text, read_instant
from authserver.schema import Action, Delegation, Transfer, table_of
from authserver.services import Services

DECISIONS = ("exchange.permitted", "exchange.refused", "exchange.deferred")
PERMIT, FORBID, APPROVAL = "permit", "forbid", "approval"

# What is told of a decision, whether or not a policy reads it.
_ALWAYS_TOLD = frozenset(
    {"amount", "currency", "merchant", "category", "country", "chain_depth", "dpop", "task"}
)
_WEEK, _EARLIEST = timedelta(days=7), datetime.min.replace(tzinfo=UTC)
_TRANSFERS, _ACTIONS, _DELEGATIONS = table_of(Transfer), table_of(Action), table_of(Delegation)


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` and before `until`."""

    since: datetime
    until: datetime

    @classmethod
    def read(cls, unverified_since: str | None, unverified_until: str | None, now: datetime) -> Self:
        """Read one; by default it ends now, and begins a week before its end. Raises `NotAValue`."""
        until = read_instant(unverified_until) if unverified_until else now
        # There is no week before the first year.
        week_before = max(until, _EARLIEST + _WEEK) - _WEEK
        return cls(read_instant(unverified_since) if unverified_since else week_before, until)


@dataclass(frozen=True, slots=True)
class Change:
    """One decision that would have been another. `policies` are those that would have decided."""

    event: Event
    before: str
    after: str
    policies: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """For output."""
        return {
            "event": self.event.id,
            "at": instant_text(self.event.at),
            "client_id": self.event.client_id,
            "before": self.before,
            "after": self.after,
            "policies": list(self.policies),
            "asked": self.event.data["asked"],
        }


@dataclass(frozen=True, slots=True)
class Known:
    """Behind one decision: the policies that decided, as they read today, None for those that are gone; and what they
    knew then, None where what it was about is gone.
    """

    policies: Mapping[str, Policy | None]
    context: Mapping[str, object] | None


@dataclass(slots=True)
class Simulation:
    """What a simulation has found so far. `skipped` could not be asked again: what they were about is gone."""

    examples: int
    decisions: int = 0
    skipped: int = 0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (before, after): how many
    by_policy: Counter[str] = field(default_factory=Counter)
    shown: list[Change] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """How many decisions would have been others."""
        return self.changes.total()

    def to_json(self) -> dict[str, object]:
        """The counts, for output."""
        counts = sorted(self.changes.items())
        return {
            "decisions": self.decisions,
            "skipped": self.skipped,
            "changed": self.changed,
            "changes": [{"before": b, "after": a, "count": count} for (b, a), count in counts],
            "by_policy": dict(self.by_policy.most_common()),
        }

    def add(self, change: Change | None) -> None:
        """Count one decision; None where nothing would have changed."""
        self.decisions += 1
        if change is None:
            return
        self.changes[change.before, change.after] += 1
        self.by_policy.update(change.policies)
        if len(self.shown) < self.examples:
            self.shown.append(change)


def how_many(connection: Connection, period: Period) -> int:
    """How many decisions the period has."""
    return count_between(connection, DECISIONS, period.since, period.until)


def simulate(
    services: Services,
    connection: Connection,
    policies: InForce,
    period: Period,
    simulation: Simulation,
    beyond: int = 0,
) -> Iterator[None]:
    """Ask `policies` again for each decision of the period, and count in `simulation`; yields after each.

    With `beyond`, only for those after the event of that id.
    """
    replay = Replay(services, connection)
    for event in events_between(connection, DECISIONS, period.since, period.until, after=beyond):
        before = outcome_of(event)
        if before is None:
            simulation.add(None)  # refused before any policy was asked
        elif (answer := replay.answer(event, policies)) is None:
            simulation.skipped += 1
        else:
            after = _after(event, before, answer)
            same = after == before
            simulation.add(None if same else Change(event, before, after, answer.decided_by))
        yield


def known_of(services: Services, connection: Connection, event: Event) -> Known:
    """What is known of a recorded decision."""
    there, names = services.policies.current.enforced.policies, event.data.get("policies")
    policies = {str(name): there.get(str(name)) for name in names} if isinstance(names, list) else {}
    is_exchange = event.event.startswith(("exchange.", "deferred."))
    return Known(policies, _context(services, connection, event) if is_exchange else None)


def _context(services: Services, connection: Connection, event: Event) -> Mapping[str, object] | None:
    replay = Replay(services, connection)
    action = replay.asked(event)
    if action is None:
        return None
    uses = services.policies.current.enforced.uses(action.action) | _ALWAYS_TOLD
    facts = replay.facts(event, uses)
    if facts is None:
        return None
    context: dict[str, object] = json.loads(facts.context(uses))
    return context


def outcome_of(event: Event) -> str | None:
    """What was decided, in the words of policies; None where it was refused for something else."""
    if event.event == "exchange.permitted":
        return PERMIT
    if "asked" not in event.data:
        return None
    if "because" in event.data:
        return APPROVAL
    return FORBID if event.data.get("violations") else None


def _after(event: Event, before: str, answer: PolicyAnswer) -> str:
    without = _without_policies(event, before)
    if FORBID in (without, answer.outcome):
        return FORBID
    return APPROVAL if APPROVAL in (without, answer.outcome) else PERMIT


def _without_policies(event: Event, before: str) -> str:
    """What the delegation and the catalogue alone had said, as far as it was recorded."""
    if before == APPROVAL:
        return PERMIT if str(event.data["because"]).startswith("policy:") else APPROVAL
    return PERMIT if all(crossed.startswith("policy:") for crossed in _crossed(event)) else FORBID


def _crossed(event: Event) -> Iterator[str]:
    violations = event.data.get("violations")
    for violation in violations if isinstance(violations, list) else ():
        yield str(violation["constraint"])


class Replay:
    """Recorded requests with the facts of their time, as far as they are still there."""

    def __init__(self, services: Services, connection: Connection) -> None:
        self._services, self._connection = services, connection
        self._chains = dict[str, Chain | None]()

    def answer(self, event: Event, policies: InForce) -> PolicyAnswer | None:
        """What `policies` say of the request; None where what it was about is gone."""
        action = self.asked(event)
        if action is None:
            return None
        constant = policies.enforced.constant(action.action)
        if constant is not None:
            return constant
        facts = self.facts(event, policies.enforced.uses(action.action))
        return None if facts is None else policies.enforced.judge(facts)

    def facts(self, event: Event, uses: frozenset[str]) -> Facts | None:
        """The facts that policies which use `uses` would have had."""
        action, chain = self.asked(event), self._chain(event)
        server = resource_servers.find_by_identifier(self._connection, str(event.data.get("resource_server")))
        if action is None or chain is None or server is None:
            return None
        vocabulary = self._services.vocabulary
        situation = Situation(server.identifier, server.merchant, None)
        request = judging.Request(
            chain=chain,
            allowances=self._allowances(chain, event.at) if "budget_left" in uses else (),
            action=with_facts(action, vocabulary.catalogue.entries[action.action], situation),
            platform=server.merchant is None,
            task_id=_text(event.data.get("task_id")),
            dpop=event.data.get("dpop") is True,
            now=event.at,
        )
        return judging.gather(self._connection, request, uses, vocabulary.datatypes, before=event.at)

    def asked(self, event: Event) -> ActionDetails | None:
        """What was asked for; None where it was not read that far, or the catalogue has lost the action."""
        if "asked" not in event.data:
            return None
        asked = stored_action(strict_json.write(event.data["asked"]))
        return asked if self._services.vocabulary.catalogue.get(asked.action) is not None else None

    def _chain(self, event: Event) -> Chain | None:
        name = event.delegation_id or ""
        if name not in self._chains:
            self._chains[name] = load_chain(self._connection, name, self._services.stored)
        return self._chains[name]

    def _allowances(self, chain: Chain, at: datetime) -> tuple[Allowance, ...]:
        spent = (Spent(self._spent_before(link, at), 0, ()) for link in chain.links)
        return tuple(Allowance(link.details, of) for link, of in zip(chain.links, spent, strict=True))

    def _spent_before(self, link: DelegationRecord, at: datetime) -> int:
        """What the delegation and all below it had reserved and spent, in minor units: the sum of its transfers."""
        path = " ".join(link.path)
        of_this = (_ACTIONS.c.root_id == _TRANSFERS.c.root_id) & (_ACTIONS.c.id == _TRANSFERS.c.action_id)
        below = (_DELEGATIONS.c.path == path) | _DELEGATIONS.c.path.startswith(f"{path} ", autoescape=True)
        rows = self._connection.execute(
            select(_TRANSFERS.c.kind, func.sum(_TRANSFERS.c.amount).label("amount"))
            .join(_ACTIONS, of_this)
            .join(
                _DELEGATIONS,
                (_DELEGATIONS.c.root_id == _ACTIONS.c.root_id)
                & (_DELEGATIONS.c.id == _ACTIONS.c.delegation_id),
            )
            .where(_TRANSFERS.c.root_id == link.root_id, _TRANSFERS.c.at < at, below)
            .group_by(_TRANSFERS.c.kind)
        )
        effects = ((EFFECTS[row.kind], int(row.amount)) for row in rows)
        return sum(amount * (e.reserved + e.authorized + e.captured - e.refunded) for e, amount in effects)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
