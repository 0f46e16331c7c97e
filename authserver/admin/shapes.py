"""What operations answer besides the records themselves, as the document shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from authserver.administration.items import Shown

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class PageOf(Generic[Item]):
    """Some items of a list, and the cursor with which it goes on; null at its end."""

    items: Sequence[Item]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Violation:
    """One limit that was crossed."""

    constraint: str
    requested: object = None
    allowed: object = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class WrongMember:
    """One member of the request that does not fit."""

    member: str
    detail: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why not (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    violations: Sequence[Violation] = ()
    errors: Sequence[WrongMember] = ()
    problems: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class IssuedServer:
    """A new resource server. The secret is shown this once; there is one for client_secret_basic only."""

    id: str
    identifier: str
    client_secret: str | None = None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A new user, and the link, good once within a day, with which they set a passkey or a password."""

    user_id: str
    username: str
    enrolment_url: str


@dataclass(frozen=True, slots=True)
class Granted:
    """A new delegation and the grant that names it, for its agent."""

    grant_id: str
    grant: str


@dataclass(frozen=True, slots=True)
class Ended:
    """What was ended, or would be: delegations and live tokens with whose they are; `authorized` may still be taken."""

    kind: Literal["delegation", "agent", "user", "trust_domain", "task", "all"]
    target: str
    delegations: int
    tokens: int
    authorized: int
    agents: int
    users: int
    tasks: int
    dry_run: bool


@dataclass(frozen=True, slots=True)
class EscalationItem(Shown):
    """Who is asked as well where nobody has answered `after` so many seconds."""

    to: str
    after: int


@dataclass(frozen=True, slots=True)
class CatalogueItem(Shown):
    """One sensitive action with who answers for it; `gaps` are the roles that nobody can play now."""

    name: str
    title: str
    owner: str
    approver: str
    approvals: int
    approval: Literal["delegation", "unless_delegated", "always"]
    escalation: Sequence[EscalationItem]
    needs: Sequence[str]
    budget: Literal["debit", "credit", "check", "none"]
    lifetime: int
    redeem: bool
    sender_constraint: Literal["optional", "required"]
    members: Mapping[str, int]
    gaps: Sequence[str]
    datatypes: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class PolicySet(Shown):
    """One set of policies and how far it has come."""

    set: str
    state: Literal["draft", "observe", "enforce"]
    policies: Sequence[str]


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """What is wrong in a set; `line` 0 is the file as a whole."""

    file: str
    line: int
    problem: str
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether the policies are sound, and which actions no policy permits."""

    ok: bool
    problems: Sequence[PolicyProblem]
    policies: int = 0
    unpermitted: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ChangeCount:
    """How many decisions would have gone from one outcome to another."""

    before: Literal["permit", "forbid", "approval"]
    after: Literal["permit", "forbid", "approval"]
    count: int


@dataclass(frozen=True, slots=True)
class ChangedDecision:
    """One decision that would have been another."""

    event: int
    at: str
    before: Literal["permit", "forbid", "approval"]
    after: Literal["permit", "forbid", "approval"]
    policies: Sequence[str]
    asked: Mapping[str, Any]
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class Simulated:
    """What other policies would have said; `whole` is false where there was no time to ask again for all."""

    decisions: int
    skipped: int
    changed: int
    changes: Sequence[ChangeCount]
    by_policy: Mapping[str, int]
    examples: Sequence[ChangedDecision]
    whole: bool


@dataclass(frozen=True, slots=True)
class MovedSet:
    """A set, the state that it was in, and the one that it is in now."""

    set: str
    before: Literal["draft", "observe", "enforce"]
    state: Literal["draft", "observe", "enforce"]


@dataclass(frozen=True, slots=True)
class VerifiedAudit:
    """Whether the audit is as it was written: what is wrong, in words, and how much was looked at."""

    ok: bool
    sealed: int
    unsealed: int
    removed_by_retention: int
    heads: int
    lost_in_restores: Sequence[Sequence[int]]
    root_hash: str
    problems: Sequence[str]
