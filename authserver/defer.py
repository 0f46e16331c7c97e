"""The agent comes back for what it waited for (draft-ietf-oauth-deferred-token-response, contract §8).

Nothing that it sends can change what was asked; all of that stands in the approval's row. Everything is decided anew.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

from authserver import dpop
from authserver.actors import agents, resource_servers
from authserver.actors.agents import Agent
from authserver.actors.client_authentication import ClientCredentials, authenticate, failed, prepare
from authserver.actors.trust_domains import Workload
from authserver.approvals import records
from authserver.approvals.opening import refused
from authserver.approvals.records import ApprovalRecord
from authserver.db import hold_off_revocations
from authserver.delegations.records import Chain
from authserver.errors import Refusal
from authserver.exchange import Committed, Issued, complete, issue
from authserver.holder import Attempt, Holder, Proven, bad_actor, read_proof, read_workload
from authserver.ledger import actions
from authserver.services import Services
from authserver.tokens.grants import Grant
from authserver.tokens.status_lists import StatusIndex

_SLOWER = 5  # seconds that asking too soon adds


@dataclass(frozen=True, slots=True)
class Poll:
    """A well-formed question; nothing in it is believed yet."""

    unverified_code: str = field(repr=False)
    unverified_actor_token: str | None = field(repr=False)
    unverified_proof: str | None = field(repr=False)
    credentials: ClientCredentials = field(repr=False)


@dataclass(frozen=True, slots=True)
class StillWaiting:
    """Nobody has answered yet; `too_soon` where the agent asked before its `interval` (seconds) was over."""

    interval: int
    expires_in: int
    too_soon: bool


def poll(services: Services, request: Poll, attempt: Attempt, now: datetime) -> Issued | StillWaiting:
    """The token, once somebody has agreed. Raises `Refusal`; `holder.refused` then writes why."""
    shown = request.unverified_actor_token
    workload = None if shown is None else read_workload(services, shown, now)
    proof = read_proof(services, request.unverified_proof, services.token_endpoint, now)
    prepare(request.credentials, services.trust_domains, now, services.issuer)

    def run(connection: Connection, index: StatusIndex) -> Committed | StillWaiting:
        return _Poll(services, connection, request, workload, proof, attempt, now).run(index)

    return issue(services, run)


@dataclass(frozen=True, slots=True)
class _Poll:
    """One transaction."""

    services: Services
    connection: Connection
    request: Poll
    workload: Workload | None
    proof: dpop.Proof | None
    attempt: Attempt
    now: datetime

    def run(self, index: StatusIndex) -> Committed | StillWaiting:
        self.attempt.start()
        hold_off_revocations(self.connection)
        agent = self._agent()
        approval = self._approval(agent)
        holder = self._holder(agent, approval)
        if self.workload is not None:
            holder.same_client(agent.client_id)
        holder.fresh()
        self._same_key(approval)
        state = approval.state_at(self.now)
        if state == "refused":
            raise refused()
        if state == "expired":
            raise Refusal("expired_token", "nobody answered in time", rule="approval.expired")
        chain = holder.chain()
        holder.standing(chain, holder.task(chain, approval.task_id))
        if state == "waiting":
            return self._wait(approval)
        if state == "used":
            return self._again(approval, chain)
        return self._complete(holder, approval, index)

    def _agent(self) -> Agent:
        """Who asks: the workload of an actor_token, or the client of an assertion. Raises `Refusal`."""
        if self.workload is None:
            return self._authenticated()
        agent = agents.find_by_workload(self.connection, self.workload.trust_domain, self.workload.subject)
        if agent is None or agent.disabled_at is not None:
            raise bad_actor("unknown_agent" if agent is None else "agent_disabled")
        self.attempt.record.client_id = agent.client_id
        return agent

    def _authenticated(self) -> Agent:
        credentials, services = self.request.credentials, self.services
        client = authenticate(
            self.connection,
            credentials,
            services.trust_domains,
            self.now,
            issuer=services.issuer,
            token_endpoint=services.token_endpoint,
            use_up=lambda *use: self.attempt.use_up(self.connection, *use),
        )
        if not isinstance(client, Agent):
            raise failed("client.not_an_agent", credentials, services.issuer)
        self.attempt.record.client_id = client.client_id
        return client

    def _approval(self, agent: Agent) -> ApprovalRecord:
        approval = records.by_code(self.connection, self.request.unverified_code)
        # One answer for a code that nobody was given and for one that another was (A80, A86).
        if approval is None or approval.client_id != agent.client_id:
            raise Refusal(
                "invalid_grant", "the deferral_code is not acceptable", rule="approval.unknown_code"
            )
        record = self.attempt.record
        record.delegation_id, record.data["approval"] = approval.delegation_id, approval.id
        return approval

    def _holder(self, agent: Agent, approval: ApprovalRecord) -> Holder:
        """The agent as the holder of the delegation that the approval is about: it showed the grant when it asked."""
        actor = self.services.actor(agent.trust_domain, agent.subject)
        workload = self.workload or Workload(
            agent.trust_domain, actor.issuer, agent.subject, None, None, self.now, refuse_repeated_jti=False
        )
        grant = Grant(approval.delegation_id, actor, agent.client_id)
        proven = Proven(workload, grant, self.proof, self.request.credentials)
        return Holder(self.services, self.connection, proven, self.attempt, self.now)

    def _same_key(self, approval: ApprovalRecord) -> None:
        if (self.proof.jkt if self.proof is not None else None) != approval.jkt:
            raise Refusal(
                "invalid_dpop_proof",
                "the request was made with another DPoP key, or with none",
                rule="approval.dpop_key",
            )

    def _wait(self, approval: ApprovalRecord) -> StillWaiting:
        interval, last = approval.poll_interval, approval.polled_at
        too_soon = last is not None and self.now < last + timedelta(seconds=interval)
        if too_soon:
            interval += _SLOWER
        records.polled(self.connection, approval, interval, self.now)
        return StillWaiting(interval, int((approval.expires_at - self.now).total_seconds()), too_soon)

    def _again(self, approval: ApprovalRecord, chain: Chain) -> Committed:
        """The token that the approval became, to an agent whose answer was lost; while it lives."""
        action = actions.find(self.connection, approval.action_id or "")
        if action is None or not action.is_live(self.now):
            raise Refusal("access_denied", "the approval was used", rule="approval.used")
        server = resource_servers.find(self.connection, action.resource_server_id)
        if server is None:
            raise Refusal("access_denied", "the approval was used", rule="approval.used")
        record = self.attempt.record
        record.event, record.action_id = "deferred.repeated", action.id
        record.changed(self.connection, self.now)
        return Committed(action, chain, server.identifier, is_new=False)

    def _complete(self, holder: Holder, approval: ApprovalRecord, index: StatusIndex) -> Committed:
        committed = complete(self.services, holder, approval, index, self.now)
        records.used(self.connection, approval, committed.action.id, self.now)
        return committed
