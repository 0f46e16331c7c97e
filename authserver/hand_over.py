"""Hand-over: the holder of a delegation gives another agent a part of it (contract §9).

The same exchange as for an action, for a delegation grant instead: whoever calls holds a grant and is the workload that
it names, and what is handed on is no broader in any member. The child draws on its own limits and on all above it.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from authserver import consent
from authserver.actors import agents
from authserver.actors.agents import Agent
from authserver.audit.events import Record
from authserver.consent import Granted
from authserver.db import hold_off_revocations
from authserver.delegations.records import Chain, DelegationRecord, NewDelegation, load_chain
from authserver.delegations.standing import agent_party, ending
from authserver.errors import Refusal
from authserver.holder import Attempt, Holder, Presented, prove
from authserver.ledger.idempotency import Request
from authserver.policy.delegation_details import DelegationDetails
from authserver.policy.narrowing import widenings
from authserver.services import Services

_STANDS_STILL = ("delegation.not_yet_valid", "delegation.paused")


@dataclass(frozen=True, slots=True)
class HandOver:
    """A well-formed request; nothing in it is believed yet.

    `requested_actor` is the other agent's client id or its workload's subject.
    """

    presented: Presented
    requested_actor: str
    details: DelegationDetails
    task_id: str | None
    repeatable: Request | None


def hand_over(services: Services, request: HandOver, attempt: Attempt, now: datetime) -> Granted:
    """Record the child, and sign its grant from the committed row. Raises `Refusal`; `holder.refused` writes why."""
    proven = prove(services, request.presented, now)
    child = services.database.write(
        lambda connection: _HandOver(
            services, connection, request, Holder(services, connection, proven, attempt, now), now
        ).run()
    )
    return consent.signed(services, child, child.created_at)


@dataclass(frozen=True, slots=True)
class _HandOver:
    """One transaction; `run` reads as contract §9."""

    services: Services
    connection: Connection
    request: HandOver
    holder: Holder
    now: datetime

    def run(self) -> DelegationRecord:
        self.holder.attempt.start()
        hold_off_revocations(self.connection)
        parent = self.holder.chain()
        self.holder.same_client(parent.leaf.client_id)
        task_id = self.holder.task(parent, self.request.task_id)
        self.holder.standing(parent, task_id)
        self.holder.fresh()
        if earlier := self._earlier(parent):
            return earlier
        receiver = self._receiver()
        details = self._narrowed(parent)
        return self._recorded(parent, receiver, details, task_id)

    def _earlier(self, parent: Chain) -> DelegationRecord | None:
        """What the same key and request led to before."""
        earlier = self.holder.earlier(parent, self.request.repeatable)
        if earlier is None:
            return None
        chain = load_chain(self.connection, earlier.action_id, self.services.stored)
        ended = chain and ending(self.connection, chain, self.now)
        if chain is None or (ended and ended.rule not in _STANDS_STILL):
            raise Refusal(
                "invalid_request", "the grant of this Idempotency-Key has ended", rule="idempotency_key.ended"
            )
        Record("hand_over.repeated", parent.leaf.client_id, chain.leaf.id).changed(self.connection, self.now)
        return chain.leaf

    def _receiver(self) -> Agent:
        """The agent that is meant: by client id, or by the subject of its workload where only one has it."""
        named = self.request.requested_actor
        found = agents.find_named(self.connection, named, self.services.trust_domains.names)
        if len(found) != 1 or found[0].disabled_at is not None:
            raise Refusal(
                "invalid_request", "requested_actor names no agent", rule="hand_over.requested_actor"
            )
        return found[0]

    def _narrowed(self, parent: Chain) -> DelegationDetails:
        held = parent.leaf.details
        final = replace(self.request.details, not_before=self._begins(parent.leaf))
        self.holder.attempt.record.data["asked"] = final.to_json()
        if violations := widenings(
            replace(held, not_before=parent.leaf.not_before), final, self.services.vocabulary
        ):
            raise Refusal(
                "invalid_authorization_details",
                "this is broader than what is held",
                rule=violations[0].constraint,
                violations=violations,
            )
        return consent.bounded(self.services, final, self.now)

    def _begins(self, above: DelegationRecord) -> datetime:
        """Contract §4: left out is now. Under rules for periods it is what the parent has, so that its windows are
        the child's too; nothing can be done before this is recorded anyway.
        """
        if self.request.details.not_before is not None:
            return self.request.details.not_before
        limits = above.details.limits
        return above.not_before if limits and limits.per_period else self.now.replace(microsecond=0)

    def _recorded(
        self, parent: Chain, receiver: Agent, details: DelegationDetails, task_id: str | None
    ) -> DelegationRecord:
        above = parent.leaf
        new = NewDelegation(
            user_id=above.user_id,
            client_id=receiver.client_id,
            details=details,
            not_before=details.not_before or self.now,
            created_by=agent_party(above.client_id),
            above=above,
            task_id=task_id,
        )
        child = consent.record(self.services, self.connection, new, self.now)
        self.holder.remember(
            parent,
            self.request.repeatable,
            root_id=child.root_id,
            action_id=child.id,
            ends_at=child.expires_at,
        )
        return child
