"""`/revocations`: the end of all that one delegation, agent, user, trust domain or task holds, or everybody."""

from dataclasses import asdict
from typing import cast

from authserver import revoke
from authserver.admin.bodies import NewRevocation
from authserver.admin.operations import Call, Operation, Reply
from authserver.admin.shapes import Ended
from authserver.administration.roles import Permission
from authserver.administration.targets import target_of
from authserver.delegations.standing import Kind
from authserver.values import NotAValue


def create(call: Call) -> Reply:
    """End it, or count what that would end."""
    body = call.sent(NewRevocation)
    if len(body.named) != 1:
        raise NotAValue("takes exactly one of delegation, agent, user, trust_domain, task and all")
    kind = cast(Kind, body.named[0])
    name = str(getattr(body, kind))
    target = call.services.database.read(lambda connection: target_of(call.services, connection, kind, name))
    ended = (
        revoke.would_end(call.services, target, call.now)
        if body.dry_run
        else revoke.revoke(call.services, target, reason=body.reason, by=call.caller.by, now=call.now)
    )
    return Reply({"kind": target.kind, "target": target.name, **asdict(ended), "dry_run": body.dry_run})


OPERATIONS = (
    Operation(
        "revocations.create",
        "POST",
        "/revocations",
        Permission.REVOKE,
        "End all that a delegation, an agent, a user, a trust domain, a task or everybody holds; or count it.",
        create,
        Ended,
        body=NewRevocation,
        once=True,
    ),
)
