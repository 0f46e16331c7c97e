"""What administrators are shown of each record: members as they stand in JSON; those that say nothing are left out.

The API's document is made of these classes.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from authserver import strict_json

Json = object


class Shown:
    """A record as it is shown."""

    __slots__ = ()

    def to_json(self) -> dict[str, object]:
        """The record as JSON has it."""
        members = ((field.name, getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]
        return {name: _plain(value) for name, value in members if value is not None}

    @property
    def etag(self) -> str:
        """What changes when anything that is shown does."""
        digest = hashlib.sha256(strict_json.write(self.to_json()).encode()).digest()
        return base64.urlsafe_b64encode(digest[:18]).decode()


def _plain(value: object) -> object:
    if isinstance(value, Shown):
        return value.to_json()
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True, slots=True)
class Amount(Shown):
    """An amount of money."""

    currency: str
    value: str


@dataclass(frozen=True, slots=True)
class AgentItem(Shown):
    """An agent: an OAuth client that is bound to one workload."""

    client_id: str
    trust_domain: str
    subject: str
    name: str
    redirect_uris: Sequence[str]
    created_at: str
    owner: str | None = None
    risk: Literal["low", "medium", "high"] | None = None
    actions: Sequence[str] | None = None
    jwks: Mapping[str, Json] | None = None
    disabled_at: str | None = None


@dataclass(frozen=True, slots=True)
class ResourceServerItem(Shown):
    """A resource server; without a merchant it is a platform of many. Never its secret."""

    id: str
    identifier: str
    name: str
    auth: Literal["client_secret_basic", "private_key_jwt", "jwt-spiffe"]
    created_at: str
    merchant: Mapping[str, Json] | None = None
    subject: str | None = None
    jwks: Mapping[str, Json] | None = None
    disabled_at: str | None = None


@dataclass(frozen=True, slots=True)
class TrustDomainItem(Shown):
    """A trust domain, and how this process stands with its keys."""

    name: str
    kind: Literal["spiffe", "kubernetes", "oidc"]
    issuer: str
    keys: int
    state: Literal["fresh", "stale", "unavailable"]
    read_at: str | None = None


@dataclass(frozen=True, slots=True)
class UserItem(Shown):
    """A person. Never a password nor an enrolment link."""

    user_id: str
    username: str
    name: str
    groups: Sequence[str]
    created_at: str
    role: str | None = None
    disabled_at: str | None = None


@dataclass(frozen=True, slots=True)
class Spent(Shown):
    """What is used of a delegation's limits, and how many of its tokens are still unused."""

    total: Amount
    count: int
    open: int


@dataclass(frozen=True, slots=True)
class DelegationItem(Shown):
    """A delegation and how it stands: `state` is active, or what ended it."""

    grant_id: str
    root_id: str
    user_id: str
    client_id: str
    state: str
    actions: Sequence[str]
    created_at: str
    created_by: str
    not_before: str
    expires_at: str
    authorization_details: Mapping[str, Json]
    user: str | None = None
    parent: str | None = None
    spent: Spent | None = None
    paused_at: str | None = None
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class ActionItem(Shown):
    """One action token, and what became of it. Never the token."""

    id: str
    delegation_id: str
    root_id: str
    client_id: str
    resource_server_id: str
    action: str
    state: str
    details: Mapping[str, Json]
    issued_at: str
    expires_at: str
    amount: Amount | None = None
    authorized: Amount | None = None
    captured: Amount | None = None
    refunded: Amount | None = None
    reference: str | None = None
    task_id: str | None = None
    approval_id: str | None = None


@dataclass(frozen=True, slots=True)
class TransferItem(Shown):
    """One movement of the ledger."""

    step: int
    kind: str
    at: str
    amount: Amount | None = None


@dataclass(frozen=True, slots=True)
class RedemptionItem(Shown):
    """The use of one action token at its resource server; its id is that of the action."""

    id: str
    delegation_id: str
    client_id: str
    resource_server_id: str
    action: str
    state: str
    transfers: Sequence[TransferItem]
    authorized: Amount | None = None
    captured: Amount | None = None
    refunded: Amount | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class ApprovalAnswerItem(Shown):
    """What one person said."""

    user_id: str
    answer: Literal["approve", "refuse"]
    at: str


@dataclass(frozen=True, slots=True)
class ApprovalItem(Shown):
    """One exact action that an agent waits for, and what people said."""

    id: str
    state: str
    delegation_id: str
    user_id: str
    client_id: str
    resource_server_id: str
    action: str
    details: Mapping[str, Json]
    because: str
    approver: Sequence[str]
    required: int
    escalate_to: str
    created_at: str
    expires_at: str
    answers: Sequence[ApprovalAnswerItem]
    escalated_at: str | None = None
    answered_at: str | None = None
    task_id: str | None = None
    action_id: str | None = None


@dataclass(frozen=True, slots=True)
class KeyItem(Shown):
    """One of the server's signing keys; never its private part."""

    kid: str
    state: Literal["pending", "active", "retired", "removed"]
    created_at: str
    activates_at: str
    public_jwk: Mapping[str, Json]
    retires_at: str | None = None
    removed_at: str | None = None


@dataclass(frozen=True, slots=True)
class EventItem(Shown):
    """One audit event as it was written."""

    id: int
    at: str
    event: str
    data: Mapping[str, Json]
    client_id: str | None = None
    delegation_id: str | None = None
    action_id: str | None = None
    rule: str | None = None
