"""The tables. Money is an integer in minor units; an instant is kept as microseconds since 1970 in UTC.

A delegation and everything below it share `root_id`, which is part of every key of the ledger's tables, so that a
transaction of the ledger never leaves one root and the tables can be distributed by it.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """An aware datetime, kept as whole microseconds: the same order and precision on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + value * _MICROSECOND


# Names for every constraint, so that migrations can speak of them on both databases.
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite counts rows by itself only in a column that is INTEGER to the letter.
_Serial = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """What all tables share."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map: ClassVar = {datetime: Instant, int: BigInteger, bytes: LargeBinary, str: String}


def table_of(row: type[Base]) -> Table:
    """The table behind a row class, for statements of SQLAlchemy Core."""
    return cast(Table, row.__table__)


class User(Base):
    """A person whose authority is delegated."""

    __tablename__ = "users"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    role: Mapped[str | None]
    groups: Mapped[str]  # a JSON array of names
    password_hash: Mapped[str | None]
    enrolment_hash: Mapped[bytes | None]
    enrolment_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class Agent(Base):
    """An OAuth client bound to one workload identity. It has no secret."""

    __tablename__ = "agents"
    __table_args__ = (
        Index("uq_agents_workload", "trust_domain", "subject", unique=True),
        Index(
            "ix_agents_document",
            "document_due_at",
            sqlite_where=text("document_due_at IS NOT NULL"),
            postgresql_where=text("document_due_at IS NOT NULL"),
        ),
    )
    client_id: Mapped[str] = mapped_column(primary_key=True)
    trust_domain: Mapped[str]
    subject: Mapped[str]
    name: Mapped[str]
    owner: Mapped[str | None]
    actions: Mapped[str | None]  # a JSON array; null: whatever users delegate
    redirect_uris: Mapped[str]  # a JSON array
    jwks: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    risk: Mapped[str | None]  # low | medium | high, as the operator thinks of it
    # Where the client_id is the address of a metadata document: when it was read last, and is to be read next.
    document_read_at: Mapped[datetime | None]
    document_due_at: Mapped[datetime | None]


class ResourceServer(Base):
    """Who validates and redeems action tokens."""

    __tablename__ = "resource_servers"
    id: Mapped[str] = mapped_column(primary_key=True)
    identifier: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    merchant: Mapped[str | None] = mapped_column(Text)  # JSON; null: a platform of many merchants
    auth_method: Mapped[str]
    secret_hash: Mapped[bytes | None]
    jwks: Mapped[str | None] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    previous_secret_hash: Mapped[bytes | None]  # taken as well, until the instant below
    previous_secret_until: Mapped[datetime | None]


class Delegation(Base):
    """What one user allows one agent. Never deleted; ended by a revocation or by time."""

    __tablename__ = "delegations"
    __table_args__ = (
        Index("ix_delegations_id", "id"),
        Index("ix_delegations_user_id", "user_id"),
        Index("ix_delegations_client_id", "client_id"),
        Index(
            "ix_delegations_task",
            "task_id",
            sqlite_where=text("task_id IS NOT NULL"),
            postgresql_where=text("task_id IS NOT NULL"),
        ),
    )
    root_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(Text)  # the ids from the root to this one, with spaces between
    user_id: Mapped[str]
    client_id: Mapped[str]
    details: Mapped[str] = mapped_column(Text)  # agent_delegation, as granted
    not_before: Mapped[datetime]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    # The newest revocation when it was made: only later ones can end it, whatever any clock says.
    revocations_before: Mapped[int]
    paused_at: Mapped[datetime | None]
    task_id: Mapped[str | None]  # the one task it was handed on for


class Budget(Base):
    """The running totals of one delegation, in minor units. `ledger` is the only code that moves them."""

    __tablename__ = "budgets"
    __table_args__ = (
        CheckConstraint(
            "reserved >= 0 AND authorized >= 0 AND captured >= 0 AND refunded >= 0", name="signs"
        ),
        CheckConstraint("refunded <= captured", name="refund"),
        CheckConstraint("reserved + authorized + captured - refunded <= total_limit", name="total"),
        CheckConstraint("action_count >= 0 AND action_count <= count_limit", name="count"),
        CheckConstraint("open_count >= 0 AND open_count <= action_count", name="open"),
    )
    root_id: Mapped[str] = mapped_column(primary_key=True)
    delegation_id: Mapped[str] = mapped_column(primary_key=True)
    total_limit: Mapped[int | None]
    reserved: Mapped[int] = mapped_column(server_default=text("0"))
    authorized: Mapped[int] = mapped_column(server_default=text("0"))
    captured: Mapped[int] = mapped_column(server_default=text("0"))
    refunded: Mapped[int] = mapped_column(server_default=text("0"))
    count_limit: Mapped[int | None]
    action_count: Mapped[int] = mapped_column(server_default=text("0"))
    open_count: Mapped[int] = mapped_column(
        server_default=text("0")
    )  # those of them that are still `reserved`


class BudgetWindow(Base):
    """What counts towards one `per_period` rule in one of its windows, in minor units."""

    __tablename__ = "budget_windows"
    __table_args__ = (CheckConstraint("spent >= 0 AND spent <= spend_limit", name="period"),)
    root_id: Mapped[str] = mapped_column(primary_key=True)
    delegation_id: Mapped[str] = mapped_column(primary_key=True)
    rule: Mapped[int] = mapped_column(Integer, primary_key=True)
    window: Mapped[int] = mapped_column(Integer, primary_key=True)
    spend_limit: Mapped[int]
    spent: Mapped[int] = mapped_column(server_default=text("0"))


class Action(Base):
    """One action token, and what became of it. The row is committed before the token is signed."""

    __tablename__ = "actions"
    __table_args__ = (
        CheckConstraint(
            "state IN ('reserved', 'authorized', 'captured', 'refunded', 'voided', 'expired')", name="state"
        ),
        CheckConstraint("captured >= 0 AND refunded >= 0 AND refunded <= captured", name="refund"),
        CheckConstraint("authorized <= amount AND captured <= amount", name="amount"),
        Index("ix_actions_id", "id"),
        Index("ix_actions_delegation", "root_id", "delegation_id", "issued_at"),
        Index("ix_actions_status", "status_list"),
        # What can still expire; the rest of a long history is not in it.
        Index(
            "ix_actions_open",
            "ends_at",
            sqlite_where=text("ends_at IS NOT NULL"),
            postgresql_where=text("ends_at IS NOT NULL"),
        ),
        Index(
            "ix_actions_task",
            "task_id",
            sqlite_where=text("task_id IS NOT NULL"),
            postgresql_where=text("task_id IS NOT NULL"),
        ),
    )
    root_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    delegation_id: Mapped[str]
    client_id: Mapped[str]
    resource_server_id: Mapped[str]
    action: Mapped[str]
    budget: Mapped[str]  # debit | credit | check | none, as the catalogue said when it was issued
    state: Mapped[str]
    details: Mapped[str] = mapped_column(Text)  # agent_action, as granted
    scope: Mapped[bool] = mapped_column(Boolean)
    amount: Mapped[int] = mapped_column(server_default=text("0"))
    authorized: Mapped[int] = mapped_column(server_default=text("0"))
    captured: Mapped[int] = mapped_column(server_default=text("0"))
    refunded: Mapped[int] = mapped_column(server_default=text("0"))
    reference: Mapped[str | None]
    task_id: Mapped[str | None]
    jkt: Mapped[str | None]
    status_list: Mapped[int]
    status_index: Mapped[int] = mapped_column(Integer)
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    # When it ends by itself if nothing more happens; null once it has ended.
    ends_at: Mapped[datetime | None]
    approval_id: Mapped[str | None]  # the approval that it came of, where one was due


class Transfer(Base):
    """One movement of the ledger, never changed. Every total can be computed again from these rows."""

    __tablename__ = "transfers"
    __table_args__ = (CheckConstraint("amount >= 0", name="amount"),)
    root_id: Mapped[str] = mapped_column(primary_key=True)
    action_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    kind: Mapped[str]  # as `ledger.steps` names them
    amount: Mapped[int]
    at: Mapped[datetime]


class IdempotencyKey(Base):
    """Which request a caller's `Idempotency-Key` stood for, and what it led to."""

    __tablename__ = "idempotency_keys"
    caller: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[bytes]
    root_id: Mapped[str]
    action_id: Mapped[str]
    answer: Mapped[str | None] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class SeenToken(Base):
    """A `jti` that must not be used again: client assertions, DPoP proofs, some workload assertions."""

    __tablename__ = "seen_tokens"
    issuer: Mapped[str] = mapped_column(primary_key=True)
    jti_hash: Mapped[bytes] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Revocation(Base):
    """One row ends everything that it covers, at whatever level (`delegations.standing` decides)."""

    __tablename__ = "revocations"
    __table_args__ = (Index("ix_revocations_target", "kind", "target"),)
    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    kind: Mapped[str]  # delegation | agent | user | trust_domain | task | all
    target: Mapped[str]
    reason: Mapped[str]
    revoked_by: Mapped[str]
    revoked_at: Mapped[datetime]


class SigningKey(Base):
    """One key of this server; what it may do follows from the times (`tokens.signing_keys`)."""

    __tablename__ = "signing_keys"
    kid: Mapped[str] = mapped_column(primary_key=True)
    public_jwk: Mapped[str] = mapped_column(Text)
    encrypted_private_key: Mapped[bytes]
    created_at: Mapped[datetime]
    activates_at: Mapped[datetime]
    retires_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]


class ServerSecret(Base):
    """A secret that all processes share and that never changes, encrypted at rest."""

    __tablename__ = "server_secrets"
    name: Mapped[str] = mapped_column(primary_key=True)
    encrypted_value: Mapped[bytes]
    created_at: Mapped[datetime]


class StatusListBlock(Base):
    """How many indices of each status list were handed out to processes."""

    __tablename__ = "status_lists"
    id: Mapped[int] = mapped_column(_Serial, primary_key=True)
    next_index: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime]


class AuditEvent(Base):
    """One decision, permitted or refused, or one change by an operator. Never changed, never a token."""

    __tablename__ = "audit_events"
    __table_args__ = (Index("ix_audit_events_delegation", "delegation_id", "id"),)
    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    event: Mapped[str]
    client_id: Mapped[str | None]
    delegation_id: Mapped[str | None]
    action_id: Mapped[str | None]
    rule: Mapped[str | None]
    data: Mapped[str] = mapped_column(Text)  # JSON


# --- approvals ----------------------------------------------------------------------------------------------------


class Approval(Base):
    """One exact action that an agent waits for, and what became of it. It holds no budget."""

    __tablename__ = "approvals"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'approved', 'refused', 'expired', 'used')", name="state"),
        CheckConstraint("(state = 'used') = (action_id IS NOT NULL)", name="used"),
        CheckConstraint("required >= 1", name="required"),
        Index("uq_approvals_idempotency_key", "client_id", "idempotency_key", unique=True),
        Index("ix_approvals_user", "user_id", "state", "created_at"),
        Index("ix_approvals_client", "client_id", "created_at"),
        Index("ix_approvals_due", "state", "expires_at"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    code_hash: Mapped[bytes] = mapped_column(unique=True)
    delegation_id: Mapped[str]
    user_id: Mapped[str]
    client_id: Mapped[str]
    resource_server_id: Mapped[str]
    action: Mapped[str]
    details: Mapped[str] = mapped_column(Text)  # agent_action, as shown
    details_hash: Mapped[str]
    scope: Mapped[bool] = mapped_column(Boolean)
    task_id: Mapped[str | None]
    jkt: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    request_hash: Mapped[bytes | None]
    because: Mapped[str]  # the path of the rule that asked
    approver: Mapped[
        str
    ]  # user, group:NAME; several with spaces between, one for each person who has to agree
    escalate_to: Mapped[str]
    escalate_at: Mapped[datetime]
    escalated_at: Mapped[datetime | None]  # when the others were told
    required: Mapped[int] = mapped_column(Integer)  # how many different people have to agree
    state: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]
    poll_interval: Mapped[int] = mapped_column(Integer)  # seconds
    polled_at: Mapped[datetime | None]
    action_id: Mapped[str | None]
    later_steps: Mapped[str | None] = mapped_column(Text)  # JSON: who is asked after `escalate_to`, and when
    later_due_at: Mapped[datetime | None]  # when the next of those is to be told


class ApprovalAnswer(Base):
    """What one person said to an approval; nobody answers twice."""

    __tablename__ = "approval_answers"
    __table_args__ = (CheckConstraint("answer IN ('approve', 'refuse')", name="answer"),)
    approval_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    answer: Mapped[str]
    at: Mapped[datetime]


class ApprovalRule(Base):
    """What a user chose for one delegation: not to be asked for this shop up to so much, in minor units."""

    __tablename__ = "approval_rules"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        Index("ix_approval_rules_delegation", "delegation_id"),
        Index("ix_approval_rules_created_by", "created_by"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    delegation_id: Mapped[str]
    client_id: Mapped[str]
    action: Mapped[str]
    resource_server_id: Mapped[str]
    merchant_id: Mapped[str]
    currency: Mapped[str]
    amount: Mapped[int]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    taken_back_at: Mapped[datetime | None]


class NotificationAddress(Base):
    """Where a user wants to be told that somebody waits: a browser's push endpoint, or an e-mail address."""

    __tablename__ = "notification_addresses"
    __table_args__ = (
        CheckConstraint("channel IN ('push', 'email')", name="channel"),
        Index("uq_notification_addresses_place", "user_id", "channel", "address_hash", unique=True),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    channel: Mapped[str]
    address_hash: Mapped[bytes]
    encrypted_address: Mapped[bytes]  # JSON
    confirmed_at: Mapped[datetime | None]  # null: the code that was mailed there has not come back
    language: Mapped[str | None]  # in which its person is written to
    created_at: Mapped[datetime]


class Notification(Base):
    """One message that is still to be delivered. The row goes when it was, or when nobody needs it any more."""

    __tablename__ = "notifications"
    __table_args__ = (Index("ix_notifications_due_at", "due_at"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    approval_id: Mapped[str | None]  # null: the message asks whether the address is right
    channel: Mapped[str]  # push | email | webhook
    address_id: Mapped[str | None]  # null: the one webhook
    event: Mapped[str]  # opened | escalated | confirm
    due_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(Integer)


# --- people who sign in ---------------------------------------------------------------------------------------------


class Session(Base):
    """One browser in which a person is signed in. The row is the session; the browser holds its secret."""

    __tablename__ = "sessions"
    secret_hash: Mapped[bytes] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(unique=True)  # what the person's list of sessions calls it
    user_id: Mapped[str] = mapped_column(index=True)
    amr: Mapped[str]  # a JSON array of RFC 8176's names
    acr: Mapped[str | None]
    address: Mapped[str]
    browser: Mapped[str]
    authenticated_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Tries(Base):
    """How often somebody tried to sign in, for one account or from one address, in the window that is running."""

    __tablename__ = "sign_in_tries"
    key_hash: Mapped[bytes] = mapped_column(primary_key=True)
    tries: Mapped[int] = mapped_column(Integer)
    window_ends_at: Mapped[datetime] = mapped_column(index=True)


class Passkey(Base):
    """A WebAuthn credential with which somebody signs in."""

    __tablename__ = "passkeys"
    credential_id: Mapped[bytes] = mapped_column(primary_key=True)
    passkey_id: Mapped[str] = mapped_column(unique=True)  # what pages call it
    user_id: Mapped[str] = mapped_column(index=True)
    public_key: Mapped[bytes]
    sign_count: Mapped[int]
    browser: Mapped[str]  # where it was made
    created_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class Challenge(Base):
    """What this server asked for once and takes once: a passkey's challenge, the state of an upstream sign-in."""

    __tablename__ = "sign_in_challenges"
    challenge_hash: Mapped[bytes] = mapped_column(primary_key=True)
    purpose: Mapped[str]  # enrol | passkey | upstream
    bound_to: Mapped[bytes]  # the hash of the browser's token against forged requests
    data: Mapped[str] = mapped_column(Text)  # JSON
    expires_at: Mapped[datetime] = mapped_column(index=True)


class UpstreamIdentity(Base):
    """Who a user is at the upstream OpenID provider: linked at the first sign-in, and by `sub` from then on."""

    __tablename__ = "upstream_identities"
    issuer: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(index=True)
    linked_at: Mapped[datetime]


# --- what agents ask people to allow --------------------------------------------------------------------------------


class AuthorizationRequest(Base):
    """What an agent asks a person to allow, by browser (RFC 9126) or device (RFC 8628), until it has its grant."""

    __tablename__ = "authorization_requests"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'allowed', 'denied', 'used')", name="state"),
        CheckConstraint("action IN ('create', 'merge', 'replace')", name="action"),
        CheckConstraint("(action = 'create') = (grant_id IS NULL)", name="grant"),
        Index(
            "ix_authorization_requests_waiting",
            "client_id",
            "expires_at",
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str]
    state: Mapped[str]
    handle_hash: Mapped[bytes] = mapped_column(unique=True)  # of the request_uri, or of the device_code
    user_code_hash: Mapped[bytes | None] = mapped_column(unique=True)
    code_hash: Mapped[bytes | None] = mapped_column(unique=True)
    details: Mapped[str] = mapped_column(Text)  # agent_delegation, as asked
    way: Mapped[str] = mapped_column(Text)  # JSON: where the answer goes, or which device asks
    action: Mapped[str]  # grant_management_action
    grant_id: Mapped[str | None]  # of the delegation that is to be changed
    user_id: Mapped[str | None]  # who opened it; nobody else answers
    delegation_id: Mapped[str | None]  # what it gave
    authenticated_at: Mapped[
        datetime | None
    ]  # when the person who allowed it had signed in (RFC 9470), and how
    acr: Mapped[str | None]
    interval: Mapped[int] = mapped_column(Integer)  # seconds between polls
    polled_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    # Until when the next step may be taken: to answer it, then to use the code.
    expires_at: Mapped[datetime] = mapped_column(index=True)


class PolicyState(Base):
    """How far a set of policies has come, where somebody has moved it; the policies themselves are files."""

    __tablename__ = "policy_states"
    __table_args__ = (CheckConstraint("state IN ('draft', 'observe', 'enforce')", name="state"),)
    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    changed_at: Mapped[datetime]
    changed_by: Mapped[str]


# --- tasks ---------------------------------------------------------------------------------------------------------


class EndedTask(Base):
    """A task that is over for one party, for good: for `agent:CLIENT_ID` or for `user:USER_ID`.

    Apart from `revocations`, since agents end tasks every day: a revocation makes every exchange look again.
    """

    __tablename__ = "ended_tasks"
    task_id: Mapped[str] = mapped_column(primary_key=True)
    party: Mapped[str] = mapped_column(primary_key=True)
    ended_by: Mapped[str]
    ended_at: Mapped[datetime]


# --- the audit, sealed ------------------------------------------------------------------------------------------------


class AuditBatch(Base):
    """Some events, sealed at once: leaves `first` and on of the Merkle tree, and the tree's head after them."""

    __tablename__ = "audit_batches"
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    event_ids: Mapped[bytes]  # 8 bytes each, most significant first
    leaf_hashes: Mapped[bytes]  # 32 bytes each
    peaks: Mapped[bytes]  # of the tree after them, 32 bytes each
    tree_size: Mapped[int]
    head: Mapped[str] = mapped_column(Text)  # signed
    sealed_at: Mapped[datetime]


class AuditRetention(Base):
    """From when on events are kept; each removal of older ones has a row, and an audit event that says the same."""

    __tablename__ = "audit_retention"
    below: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # a position in the tree
    highest_id: Mapped[int]
    removed_before: Mapped[datetime]


class AuditDelivery(Base):
    """How far a witness or a collector has come; moved on when it has taken something."""

    __tablename__ = "audit_deliveries"
    destination: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]  # how many leaves of the tree it has
    attempts: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[datetime]


# --- telling resource servers ---------------------------------------------------------------------------------------


class SecurityEvent(Base):
    """Something that ended or changed, once, at the level where it did; who is to hear of what follows from it."""

    __tablename__ = "security_events"
    # An id that was given once is never given again: streams have read up to one.
    __table_args__ = (
        CheckConstraint("kind IN ('revoked', 'paused', 'resumed', 'lowered')", name="kind"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    kind: Mapped[str]
    level: Mapped[str]  # a level of `revocations`, or token
    target: Mapped[str]
    party: Mapped[str]  # whose task it is; empty for everybody's, and for all else
    revocation_id: Mapped[int | None]
    initiator: Mapped[str]  # admin | user | system, as CAEP says it
    at: Mapped[datetime]


class EventStream(Base):
    """Where a resource server wants to hear, and how far it was told (OpenID Shared Signals Framework §8)."""

    __tablename__ = "event_streams"
    __table_args__ = (
        CheckConstraint("status IN ('enabled', 'paused', 'disabled')", name="status"),
        CheckConstraint("method IN ('push', 'poll')", name="method"),
        CheckConstraint("(method = 'push') = (endpoint_url IS NOT NULL)", name="endpoint"),
    )
    id: Mapped[str] = mapped_column(primary_key=True)
    resource_server_id: Mapped[str] = mapped_column(index=True)
    status: Mapped[str]
    reason: Mapped[str | None]
    method: Mapped[str]
    endpoint_url: Mapped[str | None]
    encrypted_authorization: Mapped[bytes | None]  # the header that goes with each push
    events_requested: Mapped[str | None] = mapped_column(Text)  # a JSON array; null: all there are
    description: Mapped[str | None]
    created_at: Mapped[datetime]
    # The last of `security_events` that was worked out for it, and how far within the next one: an id, or nothing.
    read_event: Mapped[int]
    read_within: Mapped[str]
    due_at: Mapped[datetime]  # when to push next
    failures: Mapped[int] = mapped_column(Integer)  # attempts since the last that arrived
    failing_since: Mapped[datetime | None]
    trouble: Mapped[str | None]  # why the last attempt failed
    verified_at: Mapped[datetime | None]  # when verification was last asked for
    heard_at: Mapped[datetime]  # when anything was last heard of the receiver


class PendingEvent(Base):
    """A Security Event Token for one stream that its receiver has not taken yet; signed when it is sent."""

    __tablename__ = "pending_events"
    __table_args__ = (
        Index("uq_pending_events_jti", "stream_id", "jti", unique=True),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(_Serial, primary_key=True, autoincrement=True)
    stream_id: Mapped[str]
    jti: Mapped[str]
    claims: Mapped[str] = mapped_column(Text)  # JSON: what tells this one from others of the stream
    created_at: Mapped[datetime]


# --- programs that administer ----------------------------------------------------------------------------------------


class ApiToken(Base):
    """What a program calls the administrators' API with. The row keeps only the token's hash."""

    __tablename__ = "api_tokens"
    __table_args__ = (CheckConstraint("role IN ('viewer', 'revoker', 'operator', 'owner')", name="role"),)
    id: Mapped[str] = mapped_column(primary_key=True)
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    name: Mapped[str]
    role: Mapped[str]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]  # null: when it is revoked
    used_at: Mapped[datetime | None]  # the last time, to the minute
    revoked_at: Mapped[datetime | None]
