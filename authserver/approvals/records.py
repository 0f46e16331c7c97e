"""Approvals as rows; every step from one state to the next is a conditional update."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Update,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from authserver.db import Conflict
from authserver.schema import Approval, ApprovalAnswer, Delegation, table_of

_TABLE, _ANSWERS, _DELEGATIONS = table_of(Approval), table_of(ApprovalAnswer), table_of(Delegation)

State = Literal["waiting", "approved", "refused", "expired", "used"]
Said = Literal["approve", "refuse"]


@dataclass(frozen=True, slots=True)
class Step:
    """`to` (`user`, `group:NAME`) is asked as well from `at` on."""

    to: str
    at: datetime


def written(steps: Sequence[Step]) -> str | None:
    """Those after the first, as they are kept."""
    return json.dumps([(step.to, step.at.isoformat()) for step in steps]) if steps else None


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """One exact action that an agent waits for: `details` is the `agent_action` as it is shown, in JSON."""

    id: str
    code_hash: bytes
    delegation_id: str
    user_id: str
    client_id: str
    resource_server_id: str
    action: str
    details: str
    details_hash: str
    scope: bool
    task_id: str | None
    jkt: str | None
    idempotency_key: str | None
    request_hash: bytes | None
    because: str
    approver: str
    escalate_to: str
    escalate_at: datetime
    escalated_at: datetime | None
    required: int
    state: State
    created_at: datetime
    expires_at: datetime
    answered_at: datetime | None
    poll_interval: int
    polled_at: datetime | None
    action_id: str | None
    later_steps: str | None
    later_due_at: datetime | None

    @property
    def seats(self) -> tuple[str, ...]:
        """Who has to agree: each seat is another person's."""
        return tuple(self.approver.split(" "))

    @property
    def steps(self) -> tuple[Step, ...]:
        """Who may stand in, each from when on; in this order."""
        later = json.loads(self.later_steps) if self.later_steps is not None else ()
        return (
            Step(self.escalate_to, self.escalate_at),
            *(Step(to, datetime.fromisoformat(at)) for to, at in later),
        )

    def state_at(self, now: datetime) -> State:
        """Its state; no answer in time is a refusal, whether or not anybody has written that down yet."""
        late = self.state in ("waiting", "approved") and now >= self.expires_at
        return "expired" if late else self.state


@dataclass(frozen=True, slots=True)
class Answer:
    """What one person said."""

    user_id: str
    answer: Said
    at: datetime


_NAMES = tuple(ApprovalRecord.__dataclass_fields__)
_ALL = select(*(_TABLE.c[name] for name in _NAMES))
_BY_CODE = _ALL.where(_TABLE.c.code_hash == bindparam("hash")).with_for_update()
_BY_ID = _ALL.where(_TABLE.c.id == bindparam("approval"))
_BY_KEY = _ALL.where(_TABLE.c.client_id == bindparam("client"), _TABLE.c.idempotency_key == bindparam("key"))


def code_of(secret: bytes, approval_id: str) -> str:
    """The `deferral_code`: 256 bits that follow from the id's 128 random ones under a key that all processes share.

    The row keeps only its hash, and an agent whose answer was lost is told the same code again.
    """
    code = hmac.digest(secret, b"deferral_code:" + approval_id.encode(), hashlib.sha256)
    return urlsafe_b64encode(code).rstrip(b"=").decode()


def hash_of(unverified_code: str) -> bytes:
    """What is kept of a code."""
    return hashlib.sha256(unverified_code.encode()).digest()


def insert(connection: Connection, approval: ApprovalRecord) -> None:
    """Write a new one. Raises `Conflict` where the same `Idempotency-Key` has another just now."""
    try:
        connection.execute(_TABLE.insert(), {name: getattr(approval, name) for name in _NAMES})
    except IntegrityError as error:
        raise Conflict from error


def by_code(connection: Connection, unverified_code: str) -> ApprovalRecord | None:
    """The approval of a deferral code, locked until the transaction ends: two polls are one after the other."""
    return _one(connection, _BY_CODE, hash=hash_of(unverified_code))


def find(connection: Connection, approval_id: str, *, lock: bool = False) -> ApprovalRecord | None:
    """The approval of that id; with `lock`, nobody else answers it until the transaction ends."""
    if "\x00" in approval_id:
        return None  # PostgreSQL would not even look for it
    return _one(connection, _BY_ID.with_for_update() if lock else _BY_ID, approval=approval_id)


def by_key(connection: Connection, client_id: str, key: str) -> ApprovalRecord | None:
    """The approval that an agent's request with this `Idempotency-Key` led to."""
    return _one(connection, _BY_KEY, client=client_id, key=key)


def _one(connection: Connection, query: Select[Any], **parameters: object) -> ApprovalRecord | None:
    row = connection.execute(query, parameters).first()
    return None if row is None else ApprovalRecord(*row)


# --- steps --------------------------------------------------------------------------------------------------------

_OPEN = _TABLE.c.expires_at > bindparam("now")
_ANSWERED = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("approval"), _TABLE.c.state == "waiting", _OPEN)
    .values(state=bindparam("to"), answered_at=bindparam("now"))
)
_USED = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("approval"), _TABLE.c.state == "approved", _OPEN)
    .values(state="used", action_id=bindparam("used_by"))
)
_POLLED = (
    update(_TABLE)
    .where(_TABLE.c.id == bindparam("approval"))
    .values(polled_at=bindparam("now"), poll_interval=bindparam("seconds"))
)


def answered(connection: Connection, approval: ApprovalRecord, state: State, now: datetime) -> None:
    """From `waiting` to `approved` or `refused`. Raises `Conflict` where somebody else was quicker."""
    _step(connection, _ANSWERED, approval=approval.id, to=state, now=now)


def used(connection: Connection, approval: ApprovalRecord, action_id: str, now: datetime) -> None:
    """From `approved` to `used`, by that action. Raises `Conflict` where it was used already.

    INVARIANT: an approval yields one token (test_A81_two_polls_at_once_get_one_token).
    """
    _step(connection, _USED, approval=approval.id, used_by=action_id, now=now)


def polled(connection: Connection, approval: ApprovalRecord, interval: int, now: datetime) -> None:
    """Remember when the agent asked, and how long it has to wait now, in seconds."""
    _step(connection, _POLLED, approval=approval.id, seconds=interval, now=now)


def _step(connection: Connection, statement: Update, **parameters: object) -> None:
    if connection.execute(statement, parameters).rowcount != 1:
        raise Conflict


# --- answers ------------------------------------------------------------------------------------------------------


def answers_to(connection: Connection, approval_id: str) -> list[Answer]:
    """What people said, in time order."""
    query = select(_ANSWERS.c.user_id, _ANSWERS.c.answer, _ANSWERS.c.at)
    query = query.where(_ANSWERS.c.approval_id == approval_id).order_by(_ANSWERS.c.at, _ANSWERS.c.user_id)
    return [Answer(*row) for row in connection.execute(query)]


def say(connection: Connection, approval_id: str, answer: Answer) -> None:
    """Write one person's answer. Raises `Conflict` where the same person answered at the same moment."""
    row = {"approval_id": approval_id, "user_id": answer.user_id, "answer": answer.answer, "at": answer.at}
    try:
        connection.execute(_ANSWERS.insert(), row)
    except IntegrityError as error:
        raise Conflict from error


# --- lists --------------------------------------------------------------------------------------------------------


def waiting_for(
    connection: Connection, user_id: str, groups: Sequence[str], now: datetime
) -> list[ApprovalRecord]:
    """What a person may be able to answer now, oldest first: as the user, or as a member of a group that is asked.

    A step further down the chain may still be to come: `approvers.may_answer` says.
    """
    names = [f"group:{name}" for name in groups]
    escalated = _TABLE.c.escalate_at <= now
    mine = and_(
        _TABLE.c.user_id == user_id,
        or_(_has_a_seat("user"), and_(_TABLE.c.escalate_to == "user", escalated), _has_a_step("user")),
    )
    ours = and_(
        _TABLE.c.user_id != user_id,  # nobody answers for a group what was asked on their own behalf (A85)
        or_(
            *map(_has_a_seat, names),
            and_(_TABLE.c.escalate_to.in_(names), escalated),
            *map(_has_a_step, names),
        ),
    )
    query = _ALL.where(_TABLE.c.state == "waiting", _TABLE.c.expires_at > now, or_(mine, ours))
    return [
        ApprovalRecord(*row) for row in connection.execute(query.order_by(_TABLE.c.created_at, _TABLE.c.id))
    ]


def count_waiting(connection: Connection, now: datetime) -> int:
    """How many approvals somebody could still answer."""
    waiting = select(func.count()).where(_TABLE.c.state == "waiting", _TABLE.c.expires_at > now)
    return connection.scalar(waiting) or 0


def _has_a_seat(name: str) -> ColumnElement[bool]:
    return literal(" ").concat(_TABLE.c.approver).concat(" ").contains(f" {name} ", autoescape=True)


def _has_a_step(name: str) -> ColumnElement[bool]:
    return _TABLE.c.later_steps.contains(f'"{name}"', autoescape=True)


def lately_of(connection: Connection, user_id: str, since: datetime, most: int) -> list[ApprovalRecord]:
    """What was asked on a user's behalf and is over, newest first."""
    query = _ALL.where(_TABLE.c.user_id == user_id, _TABLE.c.state != "waiting", _TABLE.c.created_at >= since)
    query = query.order_by(_TABLE.c.created_at.desc(), _TABLE.c.id).limit(most)
    return [ApprovalRecord(*row) for row in connection.execute(query)]


def refusals_since(connection: Connection, approval: ApprovalRecord, since: datetime) -> int:
    """How often people have refused what this delegation's agent asked."""
    query = select(func.count()).where(
        _TABLE.c.user_id == approval.user_id,
        _TABLE.c.state == "refused",
        _TABLE.c.delegation_id == approval.delegation_id,
        _TABLE.c.answered_at >= since,
    )
    return connection.scalar(query) or 0


def pause(connection: Connection, delegation_id: str, now: datetime) -> bool:
    """Pause the delegation; False where it was paused already."""
    paused = update(_DELEGATIONS).where(
        _DELEGATIONS.c.id == delegation_id, _DELEGATIONS.c.paused_at.is_(None)
    )
    return connection.execute(paused.values(paused_at=now)).rowcount == 1


# --- what time does -----------------------------------------------------------------------------------------------

_KEY_KEPT = timedelta(days=1)


def overdue(connection: Connection, now: datetime, most: int) -> list[ApprovalRecord]:
    """Those without an answer, or whose answer nobody fetched, when their time was over: `expired` from now on."""
    due = select(_TABLE.c.id).where(_TABLE.c.state.in_(("waiting", "approved")), _TABLE.c.expires_at <= now)
    ids = due.order_by(_TABLE.c.expires_at).limit(most).with_for_update(skip_locked=True)
    found = connection.scalars(ids).all()
    end = update(_TABLE).where(_TABLE.c.id.in_(found), _TABLE.c.state.in_(("waiting", "approved")))
    ended = end.values(state="expired").returning(*(_TABLE.c[name] for name in _NAMES))
    return [ApprovalRecord(*row) for row in connection.execute(ended)] if found else []


def due_for_escalation(connection: Connection, now: datetime, most: int) -> list[tuple[ApprovalRecord, Step]]:
    """Those that have waited so long that others are asked as well, with the step that is due; each is given once."""
    first = and_(_TABLE.c.escalate_at <= now, _TABLE.c.escalated_at.is_(None))
    due = _ALL.where(
        _TABLE.c.state == "waiting",
        _TABLE.c.expires_at > now,
        or_(first, and_(_TABLE.c.escalated_at.is_not(None), _TABLE.c.later_due_at <= now)),
    )
    rows = connection.execute(due.limit(most).with_for_update(skip_locked=True))
    return [_told(connection, ApprovalRecord(*row), now) for row in rows.all()]


def _told(connection: Connection, approval: ApprovalRecord, now: datetime) -> tuple[ApprovalRecord, Step]:
    """Mark the step that is due as told."""
    first, *later = approval.steps
    told, values = first, dict[str, object](escalated_at=now)
    if approval.escalated_at is not None:
        told, *left = (step for step in later if step.at >= (approval.later_due_at or now))
        values = {"later_due_at": left[0].at if left else None}
    connection.execute(update(_TABLE).where(_TABLE.c.id == approval.id).values(values))
    return approval, told


def forget_keys(connection: Connection, now: datetime, most: int) -> int:
    """Let go of idempotency keys whose time is over, at most so many; returns how many."""
    due = select(_TABLE.c.id).where(
        _TABLE.c.idempotency_key.is_not(None), _TABLE.c.expires_at <= now - _KEY_KEPT
    )
    forget = update(_TABLE).where(_TABLE.c.id.in_(due.limit(most))).values(idempotency_key=None)
    return connection.execute(forget).rowcount
