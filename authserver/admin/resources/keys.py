"""`/keys`: the server's signing keys."""

from authserver import rotate_keys
from authserver.admin.bodies import ListQuery, Nothing
from authserver.admin.operations import Call, Operation, Reply
from authserver.admin.resources.listing import Resource
from authserver.administration import lists
from authserver.administration.items import KeyItem
from authserver.administration.roles import Permission

_KEYS = Resource("/keys", "key", lists.KEYS, KeyItem, ListQuery, "kid")


def rotate(call: Call) -> Reply:
    """Make a new key."""
    key = rotate_keys.rotate(call.services, by=call.caller.by, now=call.now)
    reply = _KEYS.one_of(call, key.kid)
    return Reply(reply.body, reply.etag, f"/keys/{key.kid}")


OPERATIONS = (
    *_KEYS.reads(),
    Operation(
        "keys.rotate",
        "POST",
        "/keys/rotate",
        Permission.OWN,
        "Make a new signing key: published now, it signs in a while, and the present ones stop then.",
        rotate,
        KeyItem,
        201,
        body=Nothing,
        shows_etag=True,
        once=True,
    ),
)
