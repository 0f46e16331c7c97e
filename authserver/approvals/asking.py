"""Who has to agree to an action, and who is asked when nobody answers."""

from dataclasses import dataclass
from datetime import timedelta

from authserver.policy.decide import NeedsApproval

USER = "user"
_GROUP = "group:"


@dataclass(frozen=True, slots=True)
class Asks:
    """Whom a rule wants asked: each of `seats` is `user` or `group:NAME`, to be taken by another person who agrees.

    `escalate_to` may take the first seat, and those like it.
    """

    because: str
    seats: tuple[str, ...]
    escalate_to: str
    escalate_after: timedelta


def asks_of(needs: NeedsApproval) -> Asks:
    """What the catalogue, or whatever else asked for the approval, says about it: the one place that knows."""
    entry, first = needs.entry, needs.entry.approver
    others = tuple(approver for approver in needs.approvers if approver != first)
    if len(others) == len(
        needs.approvers
    ):  # a policy asks, and nobody whom the catalogue names stands in for that
        return Asks(needs.because, others, others[0], entry.escalate_after)
    seats = (*(first,) * entry.approvals, *others)
    return Asks(needs.because, seats, entry.escalate_to, entry.escalate_after)


def group_of(approver: str) -> str | None:
    """The group that `group:NAME` names; None for `user`."""
    return approver.removeprefix(_GROUP) if approver.startswith(_GROUP) else None
