"""Who has to agree to an action, and who is asked when nobody answers."""

from dataclasses import dataclass

from authserver.policy.catalogue import Escalation
from authserver.policy.decide import NeedsApproval

USER = "user"
_GROUP = "group:"


@dataclass(frozen=True, slots=True)
class Asks:
    """Whom a rule wants asked: each of `seats` is `user` or `group:NAME`, to be taken by another person who agrees.

    Whoever a step of `escalation` names may take the first seat, and those like it, from then on.
    """

    because: str
    seats: tuple[str, ...]
    escalation: tuple[Escalation, ...]


def asks_of(needs: NeedsApproval) -> Asks:
    """What the catalogue, or whatever else asked for the approval, says about it: the one place that knows."""
    entry, first = needs.entry, needs.entry.approver
    others = tuple(approver for approver in needs.approvers if approver != first)
    if len(others) == len(
        needs.approvers
    ):  # a policy asks, and nobody whom the catalogue names stands in for that
        return Asks(needs.because, others, (Escalation(others[0], entry.escalation[0].after),))
    seats = (*(first,) * entry.approvals, *others)
    return Asks(needs.because, seats, entry.escalation)


def group_of(approver: str) -> str | None:
    """The group that `group:NAME` names; None for `user`."""
    return approver.removeprefix(_GROUP) if approver.startswith(_GROUP) else None
