"""From a committed action to what its token says: one place, for minting, retries and introspection."""

import json

from authserver.approvals.binding import details_hash
from authserver.delegations.records import Chain
from authserver.ledger.actions import ActionRecord
from authserver.services import Services
from authserver.tokens.action_tokens import ActionClaims, Actor, ApprovalClaim


def claims_of(services: Services, chain: Chain, action: ActionRecord, audience: str) -> ActionClaims:
    """The claims of the action's token; `audience` is the identifier of its resource server.

    INVARIANT: they follow from committed rows alone, so that a retry tells the same
    (test_a_retry_with_the_same_key_gets_the_same_action).
    """
    party = action.resource_server_id
    return ActionClaims(
        issuer=services.issuer,
        subject=services.pairwise.user(chain.leaf.user_id, party),
        audience=audience,
        client_id=action.client_id,
        actors=_actors(services, chain),
        issued_at=action.issued_at,
        expires_at=action.expires_at,
        jti=action.id,
        authorization_details=(json.loads(action.details),),
        grant_id=services.pairwise.grant(action.delegation_id, party),
        status_uri=status_list_uri(services, action.status_list),
        status_index=action.status_index,
        task_id=action.task_id,
        jkt=action.jkt,
        scope=action.action if action.scope else None,
        approval=_approval(action),
    )


def _approval(action: ActionRecord) -> ApprovalClaim | None:
    # INVARIANT: what was shown is what the token says: the hash of the one is that of the other, or none is issued
    # (test_A80_what_changed_while_waiting_is_not_what_was_shown).
    if action.approval_id is None:
        return None
    return ApprovalClaim(action.approval_id, details_hash(action.details))


def status_list_uri(services: Services, list_id: int) -> str:
    """Where a status list is served; also its `sub`."""
    return f"{services.issuer}/oauth/status/{list_id}"


def _actors(services: Services, chain: Chain) -> tuple[Actor, ...]:
    # RFC 8693 §4.1: the current actor is outermost; the agents above in the chain are nested, for information only.
    return tuple(services.actor(link.trust_domain, link.subject) for link in reversed(chain.links))
