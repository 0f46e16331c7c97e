"""The policies' say in one request: the facts are gathered, the policies asked, the audit told which decided."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from authserver.actors import agents
from authserver.audit.events import Record
from authserver.db import one_at_a_time
from authserver.delegations.records import Chain
from authserver.policies.files import InForce
from authserver.policies.history import Past, history_of
from authserver.policy.cedar import PolicyAnswer, PolicySet, narrowed
from authserver.policy.decide import Allowance, NeedsApproval, Permit, Refuse
from authserver.policy.details import ActionDetails
from authserver.policy.facts import COUNTED, OWNER, RISK, Caller, Facts, with_contained
from authserver.values import Datatypes


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it is judged: `action` with the facts on record, and what is around it.

    `approved_by` has agreed to it already: `user`, `group:NAME`.
    """

    chain: Chain
    allowances: tuple[Allowance, ...]
    action: ActionDetails
    platform: bool
    task_id: str | None
    dpop: bool
    now: datetime
    approved_by: frozenset[str] = frozenset()


Answer = Permit | Refuse | NeedsApproval


def judge(
    answer: Answer,
    policies: InForce,
    action: str,
    request: Callable[[], Request],
    datatypes: Datatypes,
    connection: Connection,
    record: Record,
) -> Answer:
    """What the delegation's `answer` becomes under the policies; `record` tells which of them decided.

    `request` is made only where a policy has something to say of this `action`.
    """
    observed = policies.observed
    watching = observed is not None and not policies.enforced.same(observed, action)
    said = policies.enforced.constant(action)
    if said is None or watching:
        facts = gather(connection, request(), _uses(policies, action), datatypes)
        said = policies.enforced.judge(facts)
        if watching and observed is not None:
            record.data["observed"] = _told(observed.judge(facts))
    record.data |= {name: value for name, value in _told(said).items() if name != "outcome"}
    return narrowed(answer, said)


def gather(
    connection: Connection,
    request: Request,
    uses: frozenset[str],
    datatypes: Datatypes,
    before: datetime | None = None,
) -> Facts:
    """The facts that policies which use `uses` need; with `before`, of the past only what was issued before."""
    if before is None and not uses.isdisjoint(COUNTED):
        # Whoever pays meanwhile under this root waits, so that none of two at once is left out of the count.
        one_at_a_time(connection, request.chain.root_id)
    leaf, action = request.chain.leaf, request.action
    caller = Caller(leaf.client_id, leaf.trust_domain)
    if not uses.isdisjoint((OWNER, RISK)) and (agent := agents.find(connection, leaf.client_id)):
        caller = replace(caller, owner=agent.owner, risk=agent.risk)
    return Facts(
        caller=caller,
        resource_server=action.location or "",
        platform=request.platform,
        action=action,
        datatypes=with_contained(action.datatypes, datatypes),
        user=leaf.user_id,
        at=request.now,
        dpop=request.dpop,
        task=request.task_id,
        chain_depth=len(request.chain.links) - 1,
        budget_left=_budget_left(request.allowances),
        approved_by=request.approved_by,
        history=history_of(Past(connection, request.chain.root_id, request.now, before), action, uses),
    )


def _uses(policies: InForce, action: str) -> frozenset[str]:
    sets: tuple[PolicySet | None, ...] = (policies.enforced, policies.observed)
    return frozenset().union(*(chosen.uses(action) for chosen in sets if chosen is not None))


def _budget_left(allowances: tuple[Allowance, ...]) -> int | None:
    """The least that any delegation of the chain has left of its total, in minor units."""
    left = [a.details.limits.total.minor - a.spent.total for a in allowances if a.details.limits is not None]
    return min(left, default=None)


def _told(answer: PolicyAnswer) -> dict[str, object]:
    told: dict[str, object] = {"outcome": answer.outcome, "policies": list(answer.decided_by)}
    return told | {"policy_errors": list(answer.failed)} if answer.failed else told
