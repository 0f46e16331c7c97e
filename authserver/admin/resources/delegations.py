"""`/delegations`: what users allowed agents."""

from authserver import consent, manage_delegation, revoke
from authserver.admin.bodies import DelegationsQuery, NewDelegation, Nothing, Reason
from authserver.admin.operations import Call, Operation, Reply
from authserver.admin.resources.listing import Resource
from authserver.admin.shapes import Granted
from authserver.administration import lists
from authserver.administration.items import DelegationItem
from authserver.administration.roles import Permission
from authserver.manage_delegation import Operator
from authserver.policy.delegation_details import parse_delegation
from authserver.revoke import Target

_DELEGATIONS = Resource(
    "/delegations", "delegation", lists.DELEGATIONS, DelegationItem, DelegationsQuery, "grant_id"
)


def create(call: Call) -> Reply:
    """Record a delegation."""
    body = call.sent(NewDelegation)
    granted = consent.grant(
        call.services,
        user=body.user,
        agent=body.agent,
        details=parse_delegation(body.authorization_details[0], call.services.vocabulary),
        by=call.caller.by,
        now=call.now,
    )
    return Reply(
        {"grant_id": granted.grant_id, "grant": granted.grant}, location=f"/delegations/{granted.grant_id}"
    )


def pause(call: Call) -> Reply:
    """Pause it."""
    manage_delegation.pause(call.services, Operator(call.caller.by), call.name, call.now)
    return _DELEGATIONS.one_of(call, call.name)


def resume(call: Call) -> Reply:
    """Let it go on."""
    manage_delegation.resume(call.services, Operator(call.caller.by), call.name, call.now)
    return _DELEGATIONS.one_of(call, call.name)


def end(call: Call) -> Reply:
    """Revoke it."""
    reason = call.sent(Reason).reason or "revoked by an operator"
    target = Target("delegation", call.name)
    revoke.revoke(call.services, target, reason=reason, by=call.caller.by, now=call.now)
    return _DELEGATIONS.one_of(call, call.name)


OPERATIONS = (
    *_DELEGATIONS.reads(),
    Operation(
        "delegations.create",
        "POST",
        "/delegations",
        Permission.CHANGE,
        "Record a delegation without the user's consent; its grant is shown this once.",
        create,
        Granted,
        201,
        body=NewDelegation,
        once=True,
    ),
    Operation(
        "delegations.pause",
        "POST",
        "/delegations/{grant_id}/pause",
        Permission.REVOKE,
        "Let nothing be done with a delegation, nor with those below it, until it is resumed.",
        pause,
        DelegationItem,
        body=Nothing,
        shows_etag=True,
        once=True,
    ),
    Operation(
        "delegations.resume",
        "POST",
        "/delegations/{grant_id}/resume",
        Permission.CHANGE,
        "Let a paused delegation go on.",
        resume,
        DelegationItem,
        body=Nothing,
        shows_etag=True,
        once=True,
    ),
    Operation(
        "delegations.revoke",
        "POST",
        "/delegations/{grant_id}/revoke",
        Permission.REVOKE,
        "End a delegation, its tokens, and all below it.",
        end,
        DelegationItem,
        body=Reason,
        shows_etag=True,
        once=True,
    ),
)
