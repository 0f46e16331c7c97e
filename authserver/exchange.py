"""The exchange: a workload shows a delegation grant, says what it is about to do, and gets a token for just that.

RFC 8693, contract §6. One transaction; the token is signed from the committed row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection

from authserver import notify, strict_json, traces
from authserver.actors import resource_servers
from authserver.actors.resource_servers import ResourceServer
from authserver.approvals import rules
from authserver.approvals.asking import asks_of
from authserver.approvals.completing import held_to, not_approved
from authserver.approvals.opening import Asking, Opened, open_request
from authserver.approvals.records import ApprovalRecord
from authserver.audit.events import Record
from authserver.db import hold_off_revocations, one_at_a_time
from authserver.delegations.records import Chain
from authserver.errors import Refusal
from authserver.holder import Attempt, Holder, Presented, prove
from authserver.ids import new_id
from authserver.issuing import claims_of
from authserver.ledger import actions
from authserver.ledger.actions import ActionRecord
from authserver.ledger.idempotency import Request
from authserver.ledger.reservations import Reservation, release_expired_of, reserve
from authserver.ledger.spending import allowances
from authserver.policies import judging
from authserver.policy.catalogue import CatalogueEntry
from authserver.policy.decide import NeedsApproval, Permit, Refuse, Situation, decide, with_facts
from authserver.policy.details import ActionDetails, stored_action
from authserver.policy.reading import without_absent
from authserver.services import Services
from authserver.tokens import action_tokens
from authserver.tokens.status_lists import StatusIndex

Other = TypeVar("Other")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an agent asks for: parameters are there, once, and of the right type; nothing in it is believed yet."""

    asked: ActionDetails
    by_scope: bool
    resource: str | None
    audience: str | None
    task_id: str | None
    repeatable: Request | None  # its Idempotency-Key, and what makes another request the same
    waits: bool = False  # completion_mode=deferred: the agent is ready to wait for an approval


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """A well-formed request: who asks, and for what."""

    presented: Presented
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Issued:
    """An action that was committed, and its signed token."""

    action: ActionRecord
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Committed:
    """An action whose row is written, before its token is signed."""

    action: ActionRecord
    chain: Chain
    audience: str
    is_new: bool


def exchange(
    services: Services, request: ExchangeRequest, attempt: Attempt, now: datetime
) -> Issued | Opened:
    """Decide, reserve, record, sign; or record that the agent waits for an approval.

    Raises `Refusal`; `holder.refused` then writes why.
    """
    with traces.step("actor"):
        proven = prove(services, request.presented, now)

    def run(connection: Connection, index: StatusIndex) -> Committed | Opened:
        holder = Holder(services, connection, proven, attempt, now)
        return _Exchange(services, connection, request.wanted, holder, now).run(index)

    return issue(services, run)


def complete(
    services: Services, holder: Holder, approval: ApprovalRecord, index: StatusIndex, now: datetime
) -> Committed:
    """The same decision, with the answer that was waited for (contract §8). Raises `Refusal`.

    INVARIANT: all ways to mint go through one decision (test_A106_a_completion_decides_as_the_exchange_does).
    """
    request = None
    if approval.idempotency_key is not None and approval.request_hash is not None:
        request = Request(approval.idempotency_key, approval.request_hash)
    wanted = Wanted(
        asked=stored_action(approval.details),
        by_scope=approval.scope,
        resource=None,  # the details as they were shown name the place
        audience=None,
        task_id=approval.task_id,
        repeatable=request,
    )
    return _Exchange(services, holder.connection, wanted, holder, now, approval).complete(index)


def issue(services: Services, run: Callable[[Connection, StatusIndex], Committed | Other]) -> Issued | Other:
    """Run one transaction and sign the token of what it committed; anything else that it gives is given back."""
    index, commit = services.status_indexes.take(), traces.Commit()

    def work(connection: Connection) -> Committed | Other:
        done = run(connection, index)
        commit.begins()
        return done

    try:
        committed = services.database.write(work)
    except Refusal as refusal:
        # After a 503 nobody knows what was committed: an index is lost rather than given twice.
        if refusal.status < 500:
            services.status_indexes.put_back(index)
        raise
    commit.is_done()
    if not isinstance(committed, Committed) or not committed.is_new:
        services.status_indexes.put_back(index)
    if not isinstance(committed, Committed):
        return committed
    with traces.step("sign"):
        claims = claims_of(services, committed.chain, committed.action, committed.audience)
        key = services.signing_keys.active()
        token = action_tokens.mint(claims, key)
    services.action_tokens.signed(token, key, claims.jti)
    return Issued(committed.action, token)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One transaction; `run` reads as contract §6."""

    services: Services
    connection: Connection
    request: Wanted
    holder: Holder
    now: datetime
    approval: ApprovalRecord | None = None  # the one that is being completed

    def run(self, index: StatusIndex) -> Committed | Opened:
        self.holder.attempt.start()
        hold_off_revocations(self.connection)
        with traces.step("delegation"):
            chain = self.holder.chain()
            self.holder.same_client(chain.leaf.client_id)
            self.holder.standing(chain, self._task(chain))
            self.holder.fresh()
        return self._decided(chain, index)

    def complete(self, index: StatusIndex) -> Committed:
        """The same from where the caller is known and may act: `defer` has seen to that."""
        decided = self._decided(self.holder.chain(), index)
        if isinstance(decided, Opened):
            raise LookupError(decided.approval.id)  # nothing waits twice  # noqa: TRY004
        return decided

    def _decided(self, chain: Chain, index: StatusIndex) -> Committed | Opened:
        target = self._target()
        if earlier := self._earlier(chain, target):
            return earlier
        self._sender_constrained()
        self._task_goes_on(chain)
        try:
            with traces.step("decide"):
                permit = self._decide(chain, target)
        except Refusal:
            # The same request may have been answered by another process since, and its action be what is in the way.
            if earlier := self._earlier(chain, target):
                return earlier
            raise
        if isinstance(permit, NeedsApproval):
            return self._waiting(chain, target, permit)
        action = self._action(chain, target, permit, index)
        with traces.step("reserve"):
            self._reserve(chain, action, permit)
        return Committed(action, chain, target.identifier, is_new=True)

    def _task(self, chain: Chain) -> str | None:
        return self.holder.task(chain, self.request.task_id)

    def _task_goes_on(self, chain: Chain) -> None:
        """The task is neither older than the configuration lets one be, nor has had all its tokens."""
        bounds = self.services.settings.tasks
        task_id = self._task(chain) if bounds.any else None
        if task_id is None:
            return
        one_at_a_time(self.connection, chain.root_id)
        issued, since = actions.of_task(self.connection, chain.root_id, task_id)
        if bounds.most_actions is not None and issued >= bounds.most_actions:
            raise Refusal("invalid_request", "the task has had all its tokens", rule="task.most_actions")
        if bounds.longest is not None and since and self.now >= since + timedelta(seconds=bounds.longest):
            raise Refusal("invalid_request", "the task has gone on for too long", rule="task.longest")

    def _target(self) -> ResourceServer:
        """The one resource server that `resource`, `audience` and `locations` agree on (RFC 8707)."""
        request, found = self.request, []
        for name in (request.resource, request.asked.location):
            if name is not None:
                found.append(self._resource_server(name, by_id=False))
        if request.audience is not None:
            found.append(self._resource_server(request.audience, by_id=True))
        if not found:
            raise Refusal("invalid_target", "no resource server is named", rule="target.missing")
        if any(server != found[0] for server in found):
            raise Refusal("invalid_target", "several resource servers are named", rule="target.several")
        return found[0]

    def _resource_server(self, name: str, *, by_id: bool) -> ResourceServer:
        server = resource_servers.find_by_identifier(self.connection, name)
        if server is None and by_id:
            server = resource_servers.find(self.connection, name)
        if server is None or server.disabled_at is not None:
            raise Refusal("invalid_target", "the resource server is unknown", rule="target.unknown")
        return server

    def _earlier(self, chain: Chain, target: ResourceServer) -> Committed | None:
        """The action that the same key and request led to before."""
        earlier = self.holder.earlier(chain, self.request.repeatable)
        if earlier is None:
            return None
        action = actions.find(self.connection, earlier.action_id)
        if action is None or not action.is_live(self.now):
            raise Refusal(
                "invalid_request", "the token of this Idempotency-Key has ended", rule="idempotency_key.ended"
            )
        record = Record("exchange.repeated", action.client_id, action.delegation_id, action.id)
        record.changed(self.connection, self.now)
        return Committed(action, chain, target.identifier, is_new=False)

    def _entry(self) -> CatalogueEntry:
        entry = self.services.vocabulary.catalogue.get(self.request.asked.action)
        if entry is None:
            raise LookupError(self.request.asked.action)  # the parser knows no other
        return entry

    def _sender_constrained(self) -> None:
        if self._entry().sender_constraint == "required" and self.holder.proven.proof is None:
            raise Refusal(
                "invalid_dpop_proof", "this action needs a DPoP proof", rule="catalogue.sender_constraint"
            )

    def _decide(self, chain: Chain, target: ResourceServer) -> Permit | NeedsApproval:
        self.holder.attempt.record.data |= without_absent(
            resource_server=target.identifier,
            asked=self.request.asked.to_json(),
            task_id=self._task(chain),
            dpop=True if self.holder.proven.proof is not None else None,
        )
        answer = self._answer(chain, target)
        if isinstance(answer, Refuse) and answer.budget_only:
            self._release_expired(chain)
            answer = self._answer(self.holder.chain(), target)
        if isinstance(answer, Refuse):
            raise Refusal(
                # What was approved and is not allowed any more is no mistake of the request's (A81).
                "access_denied" if self.approval else "invalid_authorization_details",
                _why_not(answer),
                rule=answer.violations[0].constraint,
                violations=answer.violations,
            )
        if self.approval is not None:
            return held_to(self.approval, answer)
        if isinstance(answer, NeedsApproval):
            self.holder.attempt.record.data["because"] = answer.because
            return self._lifted(chain, target, answer)
        return answer

    def _lifted(self, chain: Chain, target: ResourceServer, needs: NeedsApproval) -> Permit | NeedsApproval:
        """What needs an approval goes on by a rule of the user's, or waits where the agent does."""
        rule = rules.lifting(self.connection, chain.leaf.id, asks_of(needs), needs.action, target.id)
        if rule is not None:
            self.holder.attempt.record.data["approval_rule"] = rule.id
            return Permit(needs.action, needs.entry)
        if not self.request.waits:
            raise not_approved(f"approval is required: {needs.because}", "approval")
        return needs

    def _waiting(self, chain: Chain, target: ResourceServer, needs: NeedsApproval) -> Opened:
        request, proof = self.request, self.holder.proven.proof
        jkt = proof.jkt if proof is not None else None
        asking = Asking(chain, target.id, needs, request.by_scope, self._task(chain), jkt, request.repeatable)
        settings = self.services.settings.approvals
        opened = open_request(self.connection, self.services.approvals_secret, settings, asking, self.now)
        if opened.is_new:
            notify.opened(self.services, self.connection, opened.approval, self.now)
        record = self.holder.attempt.record
        record.event, record.rule = "exchange.deferred", needs.because
        record.changed(self.connection, self.now, approval=opened.approval.id)
        return opened

    def _answer(self, chain: Chain, target: ResourceServer) -> Permit | Refuse | NeedsApproval:
        open_reservations = self.services.settings.ledger.open_reservations
        situation = Situation(target.identifier, target.merchant, chain.agent_actions, open_reservations)
        spent, vocabulary = allowances(self.connection, chain, self.now), self.services.vocabulary

        def judged() -> judging.Request:
            return judging.Request(
                chain=chain,
                allowances=spent,
                action=with_facts(self.request.asked, self._entry(), situation),
                platform=target.merchant is None,
                task_id=self._task(chain),
                dpop=self.holder.proven.proof is not None,
                now=self.now,
                approved_by=frozenset(self.approval.seats if self.approval is not None else ()),
            )

        return judging.judge(
            decide(spent, self.request.asked, situation, vocabulary),
            self.services.policies.current,
            self.request.asked.action,
            judged,
            vocabulary.datatypes,
            self.connection,
            self.holder.attempt.record,
        )

    def _release_expired(self, chain: Chain) -> None:
        """Give back what expired tokens of this chain still hold; what was in the way may be gone."""
        release_expired_of(self.connection, chain.root_id, self.services.stored, self.now)

    def _action(
        self, chain: Chain, target: ResourceServer, permit: Permit, index: StatusIndex
    ) -> ActionRecord:
        entry, granted = permit.entry, permit.action
        ends = [link.expires_at for link in chain.links]
        expires_at = min(self.now + timedelta(seconds=entry.lifetime), *ends).replace(microsecond=0)
        if expires_at <= self.now:
            raise Refusal("invalid_request", "the delegation has expired", rule="delegation.expired")
        proof = self.holder.proven.proof
        return ActionRecord(
            root_id=chain.root_id,
            id=new_id(),
            delegation_id=chain.leaf.id,
            client_id=chain.leaf.client_id,
            resource_server_id=target.id,
            action=granted.action,
            budget=entry.budget,
            state="reserved",
            details=strict_json.write(granted.to_json()),
            scope=self.request.by_scope,
            amount=granted.amount.minor if granted.amount is not None else 0,
            authorized=0,
            captured=0,
            refunded=0,
            reference=granted.reference,
            task_id=self._task(chain),
            jkt=proof.jkt if proof is not None else None,
            status_list=index.list_id,
            status_index=index.index,
            issued_at=self.now,
            expires_at=expires_at,
            ends_at=expires_at if entry.budget == "debit" else None,
            approval_id=self.approval.id if self.approval is not None else None,
        )

    def _reserve(self, chain: Chain, action: ActionRecord, permit: Permit) -> None:
        self.holder.remember(
            chain,
            self.request.repeatable,
            root_id=action.root_id,
            action_id=action.id,
            ends_at=action.expires_at,
        )
        record = self.holder.attempt.record
        record.action_id, record.rule = action.id, "permit"
        reservation = Reservation(
            action, permit.action.merchant, self.services.settings.ledger.open_reservations
        )
        reserve(self.connection, chain, reservation, record.permitted_row(self.now))


def _why_not(answer: Refuse) -> str:
    forbidden = all(violation.constraint.startswith("policy:") for violation in answer.violations)
    return "a policy does not allow this" if forbidden else "the delegation does not allow this"
