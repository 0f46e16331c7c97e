"""Who has to agree to an action, and who is asked when nobody answers."""

from dataclasses import dataclass
from datetime import timedelta

from authserver.policy.decide import NeedsApproval

USER = "user"
_GROUP = "group:"


@dataclass(frozen=True, slots=True)
class Asks:
    """Whom a rule wants asked: `user` or `group:NAME`; `required` different people have to agree."""

    because: str
    approver: str
    escalate_to: str
    escalate_after: timedelta
    required: int


def asks_of(needs: NeedsApproval) -> Asks:
    """What the catalogue, or whatever else asked for the approval, says about it: the one place that knows."""
    entry = needs.entry
    return Asks(needs.because, entry.approver, entry.escalate_to, entry.escalate_after, required=1)


def group_of(approver: str) -> str | None:
    """The group that `group:NAME` names; None for `user`."""
    return approver.removeprefix(_GROUP) if approver.startswith(_GROUP) else None
