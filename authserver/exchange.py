"""The exchange: a workload shows a delegation grant, says what it is about to do, and gets a token for just that.

RFC 8693, contract §6. One transaction; the token is signed from the committed row.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

from authserver import strict_json
from authserver.actors import resource_servers
from authserver.actors.resource_servers import ResourceServer
from authserver.audit.events import Record
from authserver.db import hold_off_revocations
from authserver.delegations.records import Chain
from authserver.errors import Refusal, Violation
from authserver.holder import Attempt, Holder, Presented, prove
from authserver.ids import new_id
from authserver.issuing import claims_of
from authserver.ledger import actions, idempotency
from authserver.ledger.actions import ActionRecord
from authserver.ledger.idempotency import Request
from authserver.ledger.reservations import Reservation, release_expired_of, reserve
from authserver.ledger.spending import allowances
from authserver.policies import judging
from authserver.policy.catalogue import CatalogueEntry
from authserver.policy.decide import NeedsApproval, Permit, Refuse, Situation, decide, with_facts
from authserver.policy.details import ActionDetails
from authserver.policy.reading import without_absent
from authserver.services import Services
from authserver.tokens import action_tokens
from authserver.tokens.status_lists import StatusIndex

_KEY_KEPT = timedelta(days=1)  # how long an Idempotency-Key is remembered after its token has ended


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """A well-formed request: parameters are there, once, and of the right type; nothing in it is believed yet."""

    presented: Presented
    asked: ActionDetails
    by_scope: bool
    resource: str | None
    audience: str | None
    task_id: str | None
    repeatable: Request | None  # its Idempotency-Key, and what makes another request the same


@dataclass(frozen=True, slots=True)
class Issued:
    """An action that was committed, and its signed token."""

    action: ActionRecord
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Committed:
    action: ActionRecord
    chain: Chain
    audience: str
    is_new: bool


def exchange(services: Services, request: ExchangeRequest, attempt: Attempt, now: datetime) -> Issued:
    """Decide, reserve, record, sign. Raises `Refusal`; `holder.refused` then writes why."""
    proven = prove(services, request.presented, now)
    index = services.status_indexes.take()
    try:
        committed = services.database.write(
            lambda connection: _Exchange(
                services, connection, request, Holder(services, connection, proven, attempt, now), now
            ).run(index)
        )
    except Refusal as refusal:
        # After a 503 nobody knows what was committed: an index is lost rather than given twice.
        if refusal.status < 500:
            services.status_indexes.put_back(index)
        raise
    if not committed.is_new:
        services.status_indexes.put_back(index)
    claims = claims_of(services, committed.chain, committed.action, committed.audience)
    return Issued(committed.action, action_tokens.mint(claims, services.signing_keys))


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One transaction; `run` reads as contract §6."""

    services: Services
    connection: Connection
    request: ExchangeRequest
    holder: Holder
    now: datetime

    def run(self, index: StatusIndex) -> _Committed:
        self.holder.attempt.start()
        hold_off_revocations(self.connection)
        chain = self.holder.chain()
        self.holder.same_client(chain.leaf.client_id)
        self.holder.standing(chain, self.request.task_id)
        self.holder.fresh()
        target = self._target()
        if earlier := self._earlier(chain, target):
            return earlier
        self._sender_constrained()
        try:
            permit = self._decide(chain, target)
        except Refusal:
            # The same request may have been answered by another process since, and its action be what is in the way.
            if earlier := self._earlier(chain, target):
                return earlier
            raise
        action = self._action(chain, target, permit, index)
        self._reserve(chain, action, permit)
        return _Committed(action, chain, target.identifier, is_new=True)

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

    def _earlier(self, chain: Chain, target: ResourceServer) -> _Committed | None:
        """The action that the same key and request led to before."""
        request = self._repeatable()
        earlier = idempotency.find(self.connection, chain.leaf.client_id, request.key) if request else None
        if request is None or earlier is None:
            return None
        if earlier.request_hash != request.fingerprint:
            raise Refusal(
                "invalid_request",
                "the Idempotency-Key stood for another request",
                rule="idempotency_key.reused",
            )
        action = actions.find(self.connection, earlier.action_id)
        if action is None or not action.is_live(self.now):
            raise Refusal(
                "invalid_request", "the token of this Idempotency-Key has ended", rule="idempotency_key.ended"
            )
        record = Record("exchange.repeated", action.client_id, action.delegation_id, action.id)
        record.changed(self.connection, self.now)
        return _Committed(action, chain, target.identifier, is_new=False)

    def _repeatable(self) -> Request | None:
        # Contract §6: a retry may bring fresh assertions and a fresh proof; the DPoP key stays.
        request, proof = self.request.repeatable, self.holder.proven.proof
        if request is None or proof is None:
            return request
        return Request(request.key, request.fingerprint + proof.jkt.encode())

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

    def _decide(self, chain: Chain, target: ResourceServer) -> Permit:
        self.holder.attempt.record.data |= without_absent(
            resource_server=target.identifier,
            asked=self.request.asked.to_json(),
            task_id=self.request.task_id,
            dpop=True if self.holder.proven.proof is not None else None,
        )
        answer = self._answer(chain, target)
        if isinstance(answer, Refuse) and answer.budget_only:
            self._release_expired(chain)
            answer = self._answer(self.holder.chain(), target)
        if isinstance(answer, Refuse):
            raise Refusal(
                "invalid_authorization_details",
                _why_not(answer),
                rule=answer.violations[0].constraint,
                violations=answer.violations,
            )
        if isinstance(answer, NeedsApproval):
            self.holder.attempt.record.data["because"] = answer.because
            raise Refusal(
                "access_denied",
                f"approval is required: {answer.because}",
                rule="approval",
                violations=(Violation("approval"),),
            )
        return answer

    def _answer(self, chain: Chain, target: ResourceServer) -> Permit | Refuse | NeedsApproval:
        open_reservations = self.services.settings.ledger.open_reservations
        situation = Situation(target.identifier, target.merchant, chain.leaf.agent_actions, open_reservations)
        spent, vocabulary = allowances(self.connection, chain, self.now), self.services.vocabulary
        judged = judging.Request(
            chain=chain,
            allowances=spent,
            action=with_facts(self.request.asked, self._entry(), situation),
            platform=target.merchant is None,
            task_id=self.request.task_id,
            dpop=self.holder.proven.proof is not None,
            now=self.now,
        )
        return judging.judge(
            decide(spent, self.request.asked, situation, vocabulary),
            self.services.policies.current,
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
            task_id=self.request.task_id,
            jkt=proof.jkt if proof is not None else None,
            status_list=index.list_id,
            status_index=index.index,
            issued_at=self.now,
            expires_at=expires_at,
            ends_at=expires_at if entry.budget == "debit" else None,
        )

    def _reserve(self, chain: Chain, action: ActionRecord, permit: Permit) -> None:
        if request := self._repeatable():
            idempotency.remember(
                self.connection,
                action.client_id,
                request,
                root_id=action.root_id,
                action_id=action.id,
                expires_at=action.expires_at + _KEY_KEPT,
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
