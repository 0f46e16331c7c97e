"""What a person sees of approvals: exactly what would happen, what is left of the budget, who asks."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from authserver.accounts import users
from authserver.accounts.users import User
from authserver.actors import agents, resource_servers
from authserver.actors.agents import Agent
from authserver.actors.resource_servers import ResourceServer
from authserver.approvals import approvers, records
from authserver.approvals.approvers import may_answer
from authserver.approvals.records import Answer, ApprovalRecord, State
from authserver.approvals.rules import Rule
from authserver.approve import can_be_lifted, unknown
from authserver.delegations.records import Chain, load_chain
from authserver.delegations.standing import Ending, ending
from authserver.policy.details import ActionDetails, stored_action
from authserver.services import Services
from authserver.values import Money

_LATELY = timedelta(days=7)
_MOST = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """One approval as it is shown: only what this server checked or registered, nothing of the agent's own words."""

    approval: ApprovalRecord
    state: State
    action: ActionDetails
    agent: Agent
    place: ResourceServer
    user: User  # whose delegation it is
    left: Money | None  # of the tightest total of the chain
    after: Money | None
    ended: Ending | None
    answers: tuple[Answer, ...]
    may_answer: bool
    may_rule: bool

    @property
    def version(self) -> str:
        """What changes when the page does."""
        said = (self.approval.id, self.state, len(self.answers), self.may_answer, self.ended is not None)
        return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Group:
    """Requests that differ in little: of one agent, for one action at one seller (threats A82); the newest first."""

    first: Asked
    others: tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """What waits for a person, and what was asked on their behalf lately."""

    waiting: tuple[Group, ...]
    lately: tuple[Asked, ...]

    @property
    def version(self) -> str:
        """What changes when the page does."""
        shown = [one.version for group in self.waiting for one in (group.first, *group.others)]
        shown += [one.version for one in self.lately]
        return hashlib.sha256(" ".join(shown).encode()).hexdigest()[:16]


def overview(services: Services, connection: Connection, user: User, now: datetime) -> Overview:
    """Everything that this person can answer, and their own of the last days."""
    who = approvers.person(connection, user.user_id, services.settings.groups.members)
    waiting = [] if who is None else records.waiting_for(connection, user.user_id, sorted(who.groups), now)
    lately = records.lately_of(connection, user.user_id, now - _LATELY, _MOST)
    groups: dict[tuple[str, ...], list[Asked]] = defaultdict(list)
    for approval in reversed(waiting):
        if who is None or not may_answer(approval, who, now):
            continue  # a step of its escalation that is still to come
        one = _asked(services, connection, approval, user, now)
        seller = one.action.merchant.id if one.action.merchant is not None else None
        groups[
            approval.client_id, approval.user_id, approval.action, approval.resource_server_id, seller or ""
        ].append(one)
    return Overview(
        tuple(Group(first, tuple(others)) for first, *others in groups.values()),
        tuple(_asked(services, connection, one, user, now) for one in lately),
    )


@dataclass(frozen=True, slots=True)
class ShownRule:
    """A rule by which somebody is not asked, with the names of the agent and of the place."""

    rule: Rule
    agent: Agent
    place: ResourceServer


def shown_rules(connection: Connection, standing: Iterable[Rule]) -> list[ShownRule]:
    """The rules as a page shows them: `rules.rules_of` a delegation, or `rules.made_by` a user."""
    shown = []
    for rule in standing:
        agent = agents.find(connection, rule.client_id)
        place = resource_servers.find(connection, rule.resource_server_id)
        if agent is not None and place is not None:
            shown.append(ShownRule(rule, agent, place))
    return shown


def one(services: Services, connection: Connection, approval_id: str, user: User, now: datetime) -> Asked:
    """One approval, for somebody who has to do with it. Raises `Refusal` (404)."""
    approval = records.find(connection, approval_id)
    if approval is None:
        raise unknown()
    asked = _asked(services, connection, approval, user, now)
    is_theirs = approval.user_id == user.user_id or asked.may_answer
    if not is_theirs and all(answer.user_id != user.user_id for answer in asked.answers):
        raise unknown()
    return asked


def _asked(
    services: Services, connection: Connection, approval: ApprovalRecord, viewer: User, now: datetime
) -> Asked:
    chain = load_chain(connection, approval.delegation_id, services.stored)
    agent = agents.find(connection, approval.client_id)
    place = resource_servers.find(connection, approval.resource_server_id)
    user = users.by_id(connection, approval.user_id)
    if chain is None or agent is None or place is None or user is None:
        raise unknown()
    action, state = stored_action(approval.details), approval.state_at(now)
    who = approvers.person(connection, viewer.user_id, services.settings.groups.members)
    answers = tuple(records.answers_to(connection, approval.id))
    ended = ending(connection, chain, now, approval.task_id)
    open_to_me = who is not None and may_answer(approval, who, now)
    left = _left(chain, action)
    return Asked(
        approval=approval,
        state=state,
        action=action,
        agent=agent,
        place=place,
        user=user,
        left=left,
        after=_after(services, left, action),
        ended=ended,
        answers=answers,
        may_answer=open_to_me
        and state == "waiting"
        and all(one.user_id != viewer.user_id for one in answers),
        may_rule=approval.user_id == viewer.user_id and can_be_lifted(approval),
    )


def _left(chain: Chain, action: ActionDetails) -> Money | None:
    if action.amount is None:
        return None
    totals = [
        link.details.limits.total.minor - link.total_spent
        for link in chain.links
        if link.details.limits is not None
    ]
    return Money(action.amount.currency, max(min(totals), 0)) if totals else None


def _after(services: Services, left: Money | None, action: ActionDetails) -> Money | None:
    entry = services.vocabulary.catalogue.get(action.action)
    if left is None or action.amount is None or entry is None or entry.budget != "debit":
        return None
    return Money(left.currency, max(left.minor - action.amount.minor, 0))
