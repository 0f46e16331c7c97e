"""The exchange: a workload shows a delegation grant, says what it is about to do, and gets a token for just that.

RFC 8693, contract §6. One transaction; the token is signed from the committed row.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

from authserver import dpop, jose, strict_json
from authserver.actors import agents, replay, resource_servers
from authserver.actors.agents import Agent
from authserver.actors.client_authentication import ClientCredentials, authenticate, failed, prepare
from authserver.actors.resource_servers import ResourceServer
from authserver.actors.trust_domains import Workload
from authserver.audit.events import Record
from authserver.db import hold_off_revocations
from authserver.delegations.records import Chain, load_chain
from authserver.delegations.standing import ending
from authserver.errors import Refusal, Violation
from authserver.ids import new_id
from authserver.issuing import claims_of
from authserver.ledger import actions, idempotency
from authserver.ledger.actions import ActionRecord
from authserver.ledger.idempotency import Request
from authserver.ledger.reservations import Reservation, release_expired_of, reserve
from authserver.ledger.spending import allowances
from authserver.policy.catalogue import CatalogueEntry
from authserver.policy.decide import NeedsApproval, Permit, Refuse, Situation, decide
from authserver.policy.details import ActionDetails
from authserver.services import Services
from authserver.tokens import action_tokens
from authserver.tokens.action_tokens import Actor
from authserver.tokens.grants import Grant
from authserver.tokens.status_lists import StatusIndex

_KEY_KEPT = timedelta(days=1)  # how long an Idempotency-Key is remembered after its token has ended


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """A well-formed request: parameters are there, once, and of the right type; nothing in it is believed yet."""

    unverified_subject_token: str = field(repr=False)
    unverified_actor_token: str = field(repr=False)
    unverified_proof: str | None = field(repr=False)
    credentials: ClientCredentials = field(repr=False)
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


@dataclass(slots=True)
class Attempt:
    """One exchange in progress: what its audit event will say, and which `jti`s are used up whatever comes of it."""

    record: Record = field(default_factory=lambda: Record("exchange"))
    used: list[tuple[str, str, datetime]] = field(default_factory=list)

    def start(self) -> None:
        """Forget what a try that was rolled back had learned."""
        self.record, self.used = Record("exchange"), []


@dataclass(frozen=True, slots=True)
class _Proven:
    """What the request's signatures prove."""

    workload: Workload
    grant: Grant
    proof: dpop.Proof | None


@dataclass(frozen=True, slots=True)
class _Committed:
    action: ActionRecord
    chain: Chain
    audience: str
    is_new: bool


def exchange(services: Services, request: ExchangeRequest, attempt: Attempt, now: datetime) -> Issued:
    """Decide, reserve, record, sign. Raises `Refusal`; `refused` then writes why."""
    proven = _Proven(
        workload=_workload(services, request, now),
        grant=_grant(services, request, now),
        proof=_proof(services, request, now),
    )
    prepare(request.credentials, services.trust_domains, now, services.issuer)
    index = services.status_indexes.take()
    try:
        committed = services.database.write(
            lambda connection: _Exchange(services, connection, request, proven, attempt, now).run(index)
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


def refused(services: Services, attempt: Attempt, refusal: Refusal, now: datetime) -> None:
    """Write the audit event of an exchange that was refused; the `jti`s that it showed stay used."""

    def write(connection: Connection) -> None:
        for issuer, jti, expires_at in attempt.used:
            replay.remember_quietly(connection, issuer, jti, expires_at)
        attempt.record.refused(connection, now, refusal)

    services.database.write(write)


def _workload(services: Services, request: ExchangeRequest, now: datetime) -> Workload:
    try:
        return services.trust_domains.verify(
            request.unverified_actor_token, now, audiences=frozenset({services.issuer})
        )
    except jose.TokenRefused as error:
        raise _bad_actor(error.reason) from error


def _grant(services: Services, request: ExchangeRequest, now: datetime) -> Grant:
    try:
        return services.grants.read(request.unverified_subject_token, now)
    except jose.TokenRefused as error:
        raise _bad_grant(f"grant.{error.reason}") from error


def _proof(services: Services, request: ExchangeRequest, now: datetime) -> dpop.Proof | None:
    if request.unverified_proof is None:
        return None
    nonces = services.nonces if services.settings.dpop.require_nonce else None
    return dpop.read_proof(
        request.unverified_proof, method="POST", url=services.token_endpoint, now=now, nonces=nonces
    )


def _bad_actor(rule: str) -> Refusal:
    # One answer for an assertion that is forged and for a workload that nobody registered (A32).
    return Refusal("invalid_request", "the actor_token is not acceptable", rule=f"actor.{rule}")


def _bad_grant(rule: str) -> Refusal:
    # One answer for a grant that is forged and for one that names another agent (A23).
    return Refusal("invalid_request", "the subject_token is not acceptable", rule=rule)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One transaction; `run` reads as contract §6."""

    services: Services
    connection: Connection
    request: ExchangeRequest
    proven: _Proven
    attempt: Attempt
    now: datetime

    def run(self, index: StatusIndex) -> _Committed:
        self.attempt.start()
        hold_off_revocations(self.connection)
        chain = self._chain()
        self._same_client(chain.leaf.client_id)
        self._standing(chain)
        self._fresh()
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

    def _chain(self) -> Chain:
        """What was delegated to the workload that calls: the grant names it, and no other may act (RFC 8693 §4.4)."""
        grant, workload = self.proven.grant, self.proven.workload
        chain = load_chain(self.connection, grant.delegation_id, self.services.stored)
        if chain is None:
            raise self._stranger("grant.unknown")
        leaf = chain.leaf
        if (leaf.trust_domain, leaf.subject) != (workload.trust_domain, workload.subject):
            raise self._stranger("grant.may_act")
        if leaf.agent_disabled_at is not None:
            raise _bad_actor("agent_disabled")
        self.attempt.record.client_id = leaf.client_id
        if grant.may_act != Actor(workload.issuer, workload.subject):
            raise _bad_grant("grant.may_act")
        self.attempt.record.delegation_id = leaf.id
        return chain

    def _stranger(self, rule: str) -> Refusal:
        """Why a workload that the grant does not name is refused: it may not even be an agent."""
        workload = self.proven.workload
        agent = agents.find_by_workload(self.connection, workload.trust_domain, workload.subject)
        if agent is None:
            return _bad_actor("unknown_agent")
        if agent.disabled_at is not None:
            return _bad_actor("agent_disabled")
        self.attempt.record.client_id = agent.client_id
        return _bad_grant(rule)

    def _same_client(self, client_id: str) -> None:
        # Contract §3: client_id and client_assertion may be sent too and must then name the actor's agent.
        credentials = self.request.credentials
        if credentials.authorization is not None or credentials.client_assertion is not None:
            client = authenticate(
                self.connection,
                credentials,
                self.services.trust_domains,
                self.now,
                issuer=self.services.issuer,
                token_endpoint=self.services.token_endpoint,
                use_up=self._use_up,
            )
            if not isinstance(client, Agent) or client.client_id != client_id:
                raise failed("client.other_agent", credentials, self.services.issuer)
        if credentials.client_id not in (None, client_id):
            raise Refusal("invalid_request", "client_id is not the actor", rule="client.other_agent")

    def _standing(self, chain: Chain) -> None:
        if ended := ending(self.connection, chain, self.now, self.request.task_id):
            raise Refusal("invalid_request", ended.reason, rule=ended.rule)

    def _fresh(self) -> None:
        workload, proof = self.proven.workload, self.proven.proof
        if workload.refuse_repeated_jti:
            if workload.jti is None:
                raise _bad_actor("jti_missing")
            self._use(workload.issuer, workload.jti, workload.expires_at, _bad_actor("replayed"))
        if proof is not None:
            replayed = Refusal("invalid_dpop_proof", "the DPoP proof was used before", rule="dpop.replayed")
            self._use(f"dpop:{proof.jkt}", proof.jti, proof.forget_at, replayed)

    def _use(self, issuer: str, jti: str, expires_at: datetime, replayed: Refusal) -> None:
        try:
            self._use_up(issuer, jti, expires_at)
        except replay.Replayed as error:
            raise replayed from error

    def _use_up(self, issuer: str, jti: str, expires_at: datetime) -> None:
        use = (issuer, jti, expires_at)
        if use in self.attempt.used:
            return  # one assertion as actor_token and as client_assertion is one use
        replay.remember(self.connection, issuer, jti, expires_at)
        self.attempt.used.append(use)

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
        request, proof = self.request.repeatable, self.proven.proof
        if request is None or proof is None:
            return request
        return Request(request.key, request.fingerprint + proof.jkt.encode())

    def _entry(self) -> CatalogueEntry:
        entry = self.services.vocabulary.catalogue.get(self.request.asked.action)
        if entry is None:
            raise LookupError(self.request.asked.action)  # the parser knows no other
        return entry

    def _sender_constrained(self) -> None:
        if self._entry().sender_constraint == "required" and self.proven.proof is None:
            raise Refusal(
                "invalid_dpop_proof", "this action needs a DPoP proof", rule="catalogue.sender_constraint"
            )

    def _decide(self, chain: Chain, target: ResourceServer) -> Permit:
        self.attempt.record.data |= {
            "resource_server": target.identifier,
            "asked": self.request.asked.to_json(),
        }
        answer = self._answer(chain, target)
        if isinstance(answer, Refuse) and answer.budget_only:
            self._release_expired(chain)
            answer = self._answer(self._chain(), target)
        if isinstance(answer, Refuse):
            raise Refusal(
                "invalid_authorization_details",
                "the delegation does not allow this",
                rule=answer.violations[0].constraint,
                violations=answer.violations,
            )
        if isinstance(answer, NeedsApproval):
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
        spent = allowances(self.connection, chain, self.now)
        return decide(spent, self.request.asked, situation, self.services.vocabulary)

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
        proof = self.proven.proof
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
        record = self.attempt.record
        record.action_id, record.rule = action.id, "permit"
        reservation = Reservation(
            action, permit.action.merchant, self.services.settings.ledger.open_reservations
        )
        reserve(self.connection, chain, reservation, record.permitted_row(self.now))
