"""What a decision has to say for an approval to become a token."""

from collections import Counter

from authserver import strict_json
from authserver.approvals.asking import asks_of
from authserver.approvals.binding import details_hash
from authserver.approvals.records import ApprovalRecord
from authserver.errors import Refusal, Violation
from authserver.policy.decide import NeedsApproval, Permit


def held_to(approval: ApprovalRecord, decided: Permit | NeedsApproval) -> Permit:
    """What is decided now, if it is what was shown and those agreed who have to. Raises `Refusal`."""
    if details_hash(strict_json.write(decided.action.to_json())) != approval.details_hash:
        raise not_approved("what was shown is not what would happen now", "approval.details_hash")
    if isinstance(decided, NeedsApproval):
        asks = asks_of(decided)
        # Catalogue and policy may ask for others, or for more of them, than when it was opened.
        if not Counter(asks.seats) <= Counter(approval.seats):
            raise not_approved("others have to approve this now", "approval.approver")
    return Permit(decided.action, decided.entry)


def not_approved(description: str, rule: str) -> Refusal:
    """What needs an approval that it does not have (contract §8)."""
    return Refusal("access_denied", description, rule=rule, violations=(Violation("approval"),))
