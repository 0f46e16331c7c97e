"""Who calls, and which delegation they hold: a workload's assertion, a delegation grant and a proof, read together.

Contract §3 and §6. Whatever is done with a grant begins here.
"""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from authserver import dpop, jose
from authserver.actors import agents, replay
from authserver.actors.agents import Agent
from authserver.actors.client_authentication import ClientCredentials, authenticate, failed, prepare
from authserver.actors.trust_domains import Workload
from authserver.audit.events import Record
from authserver.delegations.records import Chain, load_chain
from authserver.delegations.standing import ending
from authserver.errors import Refusal
from authserver.ledger import idempotency
from authserver.ledger.idempotency import Earlier, Request
from authserver.services import Services
from authserver.tokens.action_tokens import Actor
from authserver.tokens.grants import Grant


@dataclass(frozen=True, slots=True)
class Presented:
    """What a caller shows of itself; nothing in it is believed yet."""

    unverified_subject_token: str = field(repr=False)
    unverified_actor_token: str = field(repr=False)
    unverified_proof: str | None = field(repr=False)
    credentials: ClientCredentials = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proven:
    """What the signatures prove."""

    workload: Workload
    grant: Grant
    proof: dpop.Proof | None
    credentials: ClientCredentials = field(repr=False)


@dataclass(slots=True)
class Attempt:
    """One request in progress: what its audit event will say, and which `jti`s are used up whatever comes of it."""

    event: str = "exchange"
    record: Record = field(init=False)
    used: list[tuple[str, str, datetime]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Forget what a try that was rolled back had learned."""
        self.record, self.used = Record(self.event), []

    def use_up(self, connection: Connection, issuer: str, jti: str, expires_at: datetime) -> None:
        """Use up a `jti`; what this request showed before is one use. Raises `replay.Replayed`."""
        use = (issuer, jti, expires_at)
        if use in self.used:
            return  # one assertion as actor_token and as client_assertion is one use
        replay.remember(connection, issuer, jti, expires_at)
        self.used.append(use)


def prove(services: Services, presented: Presented, now: datetime) -> Proven:
    """Check every signature, before any transaction. Raises `Refusal`."""
    proven = Proven(
        workload=read_workload(services, presented.unverified_actor_token, now),
        grant=_grant(services, presented, now),
        proof=read_proof(services, presented.unverified_proof, services.token_endpoint, now),
        credentials=presented.credentials,
    )
    prepare(presented.credentials, services.trust_domains, now, services.issuer)
    return proven


def refused(services: Services, attempt: Attempt, refusal: Refusal, now: datetime) -> None:
    """Write the audit event of a request that was refused; the `jti`s that it showed stay used."""

    def write(connection: Connection) -> None:
        for issuer, jti, expires_at in attempt.used:
            replay.remember_quietly(connection, issuer, jti, expires_at)
        attempt.record.refused(connection, now, refusal)

    services.database.write(write)


def read_workload(services: Services, unverified_actor_token: str, now: datetime) -> Workload:
    """Which workload an actor_token proves. Raises `Refusal`."""
    try:
        return services.trust_domains.verify(
            unverified_actor_token, now, audiences=frozenset({services.issuer})
        )
    except jose.TokenRefused as error:
        raise bad_actor(error.reason) from error


def _grant(services: Services, presented: Presented, now: datetime) -> Grant:
    try:
        return services.grants.read(presented.unverified_subject_token, now)
    except jose.TokenRefused as error:
        raise _bad_grant(f"grant.{error.reason}") from error


def read_proof(services: Services, unverified: str | None, url: str, now: datetime) -> dpop.Proof | None:
    """The DPoP proof that came with a POST to `url`, where one did. Raises `Refusal`."""
    if unverified is None:
        return None
    nonces = services.nonces if services.settings.dpop.require_nonce else None
    return dpop.read_proof(unverified, method="POST", url=url, now=now, nonces=nonces)


def bad_actor(rule: str) -> Refusal:
    """The refusal of an actor_token; `rule` is for the audit."""
    # One answer for an assertion that is forged and for a workload that nobody registered (A32).
    return Refusal("invalid_request", "the actor_token is not acceptable", rule=f"actor.{rule}")


def _bad_grant(rule: str) -> Refusal:
    # One answer for a grant that is forged and for one that names another agent (A23).
    return Refusal("invalid_request", "the subject_token is not acceptable", rule=rule)


@dataclass(frozen=True, slots=True)
class Holder:
    """A workload that shows a grant, inside one transaction; each method is one rule and raises `Refusal`."""

    services: Services
    connection: Connection
    proven: Proven
    attempt: Attempt
    now: datetime

    def chain(self) -> Chain:
        """What was delegated to the workload that calls: the grant names it, and no other may act (RFC 8693 §4.4)."""
        grant, workload = self.proven.grant, self.proven.workload
        chain = load_chain(self.connection, grant.delegation_id, self.services.stored)
        if chain is None:
            raise self._stranger("grant.unknown")
        leaf = chain.leaf
        if (leaf.trust_domain, leaf.subject) != (workload.trust_domain, workload.subject):
            raise self._stranger("grant.may_act")
        if leaf.agent_disabled_at is not None:
            raise bad_actor("agent_disabled")
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
            return bad_actor("unknown_agent")
        if agent.disabled_at is not None:
            return bad_actor("agent_disabled")
        self.attempt.record.client_id = agent.client_id
        return _bad_grant(rule)

    def same_client(self, client_id: str) -> None:
        """Contract §3: client_id and client_assertion may be sent too and must then name the actor's agent."""
        credentials = self.proven.credentials
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

    def task(self, chain: Chain, asked: str | None) -> str | None:
        """The task that this is for: what was handed on for one task serves no other."""
        if chain.task_id is not None and asked not in (None, chain.task_id):
            raise Refusal("invalid_request", "the delegation is for another task", rule="task.other")
        return chain.task_id or asked

    def standing(self, chain: Chain, task_id: str | None) -> None:
        """Neither the delegation nor the task has ended."""
        if ended := ending(self.connection, chain, self.now, task_id):
            raise Refusal("invalid_request", ended.reason, rule=ended.rule)

    def fresh(self) -> None:
        """Use up what may be shown only once."""
        workload, proof = self.proven.workload, self.proven.proof
        if workload.refuse_repeated_jti:
            if workload.jti is None:
                raise bad_actor("jti_missing")
            self._use(workload.issuer, workload.jti, workload.expires_at, bad_actor("replayed"))
        if proof is not None:
            replayed = Refusal("invalid_dpop_proof", "the DPoP proof was used before", rule="dpop.replayed")
            self._use(f"dpop:{proof.jkt}", proof.jti, proof.forget_at, replayed)

    def earlier(self, chain: Chain, sent: Request | None) -> Earlier | None:
        """What the same key and request led to before. Raises `Refusal` where the key stood for another request."""
        request = self._repeatable(sent)
        earlier = idempotency.find(self.connection, chain.leaf.client_id, request.key) if request else None
        if request is None or earlier is None:
            return None
        if earlier.request_hash != request.fingerprint:
            raise Refusal(
                "invalid_request",
                "the Idempotency-Key stood for another request",
                rule="idempotency_key.reused",
            )
        return earlier

    def remember(
        self, chain: Chain, sent: Request | None, *, root_id: str, action_id: str, ends_at: datetime
    ) -> None:
        """Bind the key, where one was sent, to what it leads to, which ends at `ends_at`. Raises `Conflict`."""
        if request := self._repeatable(sent):
            idempotency.remember(
                self.connection,
                chain.leaf.client_id,
                request,
                root_id=root_id,
                action_id=action_id,
                expires_at=ends_at + idempotency.KEPT,
            )

    def _repeatable(self, sent: Request | None) -> Request | None:
        # Contract §6: a retry may bring fresh assertions and a fresh proof; the DPoP key stays.
        if sent is None or self.proven.proof is None:
            return sent
        return Request(sent.key, sent.fingerprint + self.proven.proof.jkt.encode())

    def _use(self, issuer: str, jti: str, expires_at: datetime, replayed: Refusal) -> None:
        try:
            self._use_up(issuer, jti, expires_at)
        except replay.Replayed as error:
            raise replayed from error

    def _use_up(self, issuer: str, jti: str, expires_at: datetime) -> None:
        self.attempt.use_up(self.connection, issuer, jti, expires_at)
