"""The one place that knows whether a delegation still stands, for every path that uses one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, bindparam, select, tuple_

from authserver.delegations.records import Chain, DelegationRecord
from authserver.schema import Revocation, table_of

_REVOCATIONS = table_of(Revocation)
_COVERING = select(_REVOCATIONS.c.id, _REVOCATIONS.c.kind, _REVOCATIONS.c.target).where(
    tuple_(_REVOCATIONS.c.kind, _REVOCATIONS.c.target).in_(bindparam("covering", expanding=True))
)
Kind = Literal["delegation", "agent", "user", "trust_domain", "task", "all"]


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a delegation cannot be used: `rule` for the audit, `reason` for the agent that the grant names."""

    rule: str
    reason: str


def ending(connection: Connection, chain: Chain, now: datetime, task_id: str | None = None) -> Ending | None:
    """What ended the chain's last delegation, or None while it stands.

    INVARIANT: every use of a delegation or of its tokens asks here (test_a_revocation_at_any_level_ends_every_path).
    """
    for link in chain.links:
        if found := _by_itself(link, now):
            return found
    return _by_revocation(connection, chain, task_id)


def _by_itself(link: DelegationRecord, now: datetime) -> Ending | None:
    if link.user_disabled_at is not None:
        return Ending("delegation.user_disabled", "the delegation has ended")
    if link.agent_disabled_at is not None:
        return Ending("delegation.agent_disabled", "the delegation has ended")
    if now >= link.expires_at:
        return Ending("delegation.expired", "the delegation has expired")
    if now < link.not_before:
        return Ending("delegation.not_yet_valid", "the delegation is not valid yet")
    if link.paused_at is not None:
        return Ending("delegation.paused", "the delegation is paused")
    return None


def _by_revocation(connection: Connection, chain: Chain, task_id: str | None) -> Ending | None:
    if task_id is None and all(chain.newest_revocation <= link.revocations_before for link in chain.links):
        return None  # nothing at all was revoked since
    covering = {target for link in chain.links for target in covering_targets(link)}
    if task_id is not None:
        covering.add(("task", task_id))
    found = connection.execute(_COVERING, {"covering": sorted(covering)}).all()
    for revocation in found:
        if revocation.kind == "task":
            return Ending("task.ended", "the task has ended")
        for link in chain.links:
            newer = revocation.id > link.revocations_before
            if newer and (revocation.kind, revocation.target) in covering_targets(link):
                return Ending("delegation.revoked", "the delegation was revoked")
    return None


def covering_targets(link: DelegationRecord) -> tuple[tuple[Kind, str], ...]:
    """Every revocation that would end this delegation, as (kind, target)."""
    return (
        ("delegation", link.id),
        ("agent", link.client_id),
        ("user", link.user_id),
        ("trust_domain", link.trust_domain),
        ("all", ""),
    )
