"""A request that waits: opened once, within limits, told again to an agent whose answer was lost."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

from authserver import strict_json
from authserver.approvals import limits, records
from authserver.approvals.asking import asks_of
from authserver.approvals.binding import details_hash
from authserver.approvals.records import ApprovalRecord, Step, code_of, hash_of, written
from authserver.config import ApprovalsSettings
from authserver.delegations.records import Chain
from authserver.errors import Refusal
from authserver.ids import new_id
from authserver.ledger.idempotency import Request
from authserver.policy.decide import NeedsApproval


@dataclass(frozen=True, slots=True)
class Asking:
    """What an agent asks for, as the server has checked it; `repeatable` leaves the DPoP key out, which is `jkt`."""

    chain: Chain
    resource_server_id: str
    needs: NeedsApproval
    by_scope: bool
    task_id: str | None
    jkt: str | None
    repeatable: Request | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that waits, and the code that its agent polls with."""

    approval: ApprovalRecord
    code: str = field(repr=False)
    is_new: bool


def open_request(
    connection: Connection, secret: bytes, settings: ApprovalsSettings, asking: Asking, now: datetime
) -> Opened:
    """Write the request, or find the one of the same `Idempotency-Key`. Raises `Refusal`."""
    if (earlier := _earlier(connection, asking)) is not None:
        _still_open(earlier, now)
        return Opened(earlier, code_of(secret, earlier.id), is_new=False)
    leaf = asking.chain.leaf
    limits.check(connection, settings, leaf.client_id, leaf.user_id, now)
    approval = _new(secret, settings, asking, now)
    records.insert(connection, approval)
    return Opened(approval, code_of(secret, approval.id), is_new=True)


def _earlier(connection: Connection, asking: Asking) -> ApprovalRecord | None:
    request = asking.repeatable
    if request is None:
        return None
    earlier = records.by_key(connection, asking.chain.leaf.client_id, request.key)
    if earlier is not None and (earlier.request_hash, earlier.jkt) != (request.fingerprint, asking.jkt):
        raise Refusal(
            "invalid_request", "the Idempotency-Key stood for another request", rule="idempotency_key.reused"
        )
    return earlier


def _still_open(approval: ApprovalRecord, now: datetime) -> None:
    state = approval.state_at(now)
    if state == "refused":
        raise refused()
    if state == "expired":
        raise Refusal("expired_token", "nobody answered in time", rule="approval.expired")
    if state == "used":
        raise Refusal(
            "invalid_request", "the token of this Idempotency-Key has ended", rule="idempotency_key.ended"
        )


def refused() -> Refusal:
    """The answer of a person who said no."""
    return Refusal("access_denied", "the approval was refused", rule="approval.refused")


def _new(secret: bytes, settings: ApprovalsSettings, asking: Asking, now: datetime) -> ApprovalRecord:
    asks, leaf, request = asks_of(asking.needs), asking.chain.leaf, asking.repeatable
    approval_id, details = new_id(), strict_json.write(asking.needs.action.to_json())
    ends = [link.expires_at for link in asking.chain.links]
    first, *later = (Step(step.to, at=now + step.after) for step in asks.escalation)
    return ApprovalRecord(
        id=approval_id,
        code_hash=hash_of(code_of(secret, approval_id)),
        delegation_id=leaf.id,
        user_id=leaf.user_id,
        client_id=leaf.client_id,
        resource_server_id=asking.resource_server_id,
        action=asking.needs.action.action,
        details=details,
        details_hash=details_hash(details),
        scope=asking.by_scope,
        task_id=asking.task_id,
        jkt=asking.jkt,
        idempotency_key=request.key if request else None,
        request_hash=request.fingerprint if request else None,
        because=asks.because,
        approver=" ".join(asks.seats),
        escalate_to=first.to,
        escalate_at=first.at,
        escalated_at=None,
        required=len(asks.seats),
        state="waiting",
        created_at=now,
        expires_at=min(now + timedelta(seconds=settings.lifetime), *ends),
        answered_at=None,
        poll_interval=settings.interval,
        polled_at=None,
        action_id=None,
        later_steps=written(later),
        later_due_at=later[0].at if later else None,
    )
