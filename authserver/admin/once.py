"""`Idempotency-Key`: a request that is sent again gets the answer of the first, and does nothing.

The key is taken before anything is done, and keeps the answer, sealed, when it is done. One that was taken and has no
answer stands for a request that is under way, or that was cut short: nobody knows what came of it, so it is not done
again. What was refused leaves its key free. So does what failed with 503, unless it makes something new: the commit may
be there although its answer was lost, and to end or to pause something twice harms nobody.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from authserver import strict_json
from authserver.admin.operations import Call, Operation, Reply, conflict
from authserver.errors import Refusal
from authserver.ledger import idempotency
from authserver.ledger.idempotency import KEPT, Earlier, Request
from authserver.services import Services


@dataclass(frozen=True, slots=True)
class _Owned:
    services: Services
    caller: str
    request: Request

    @property
    def purpose(self) -> str:
        """For which the answer is sealed: it may hold a secret that is shown once."""
        return f"api-answer:{self.caller}:{self.request.key}"


def once(call: Call, operation: Operation, body: Mapping[str, object], run: Callable[[], Reply]) -> Reply:
    """Run it, or give the answer of its first run. Raises `Refusal`: 409 and 422 for the key, and what `run` raises."""
    key = idempotency.parse_key(call.request.headers.get("Idempotency-Key"))
    if key is None:
        return run()
    same = json.dumps([operation.name, dict(call.path), body], sort_keys=True).encode()
    owned = _Owned(call.services, f"api:{call.caller.by}", Request(key, hashlib.sha256(same).digest()))
    earlier = call.services.database.write(lambda connection: _take(connection, owned, call.now))
    if earlier is not None:
        return _again(owned, earlier)
    try:
        reply = run()
    except Refusal as refusal:
        if refusal.status < 500 or operation.status != 201:
            call.services.database.write(lambda connection: idempotency.forget(connection, owned.caller, key))
        raise
    sealed = _sealed(owned, reply)
    call.services.database.write(
        lambda connection: idempotency.answered(connection, owned.caller, key, sealed, call.now + KEPT)
    )
    return reply


def _take(connection: Connection, owned: _Owned, now: datetime) -> Earlier | None:
    earlier = idempotency.find(connection, owned.caller, owned.request.key)
    if earlier is None:
        idempotency.remember(
            connection, owned.caller, owned.request, root_id="", action_id="", expires_at=now + KEPT
        )
    return earlier


def _again(owned: _Owned, earlier: Earlier) -> Reply:
    if earlier.request_hash != owned.request.fingerprint:
        raise Refusal(
            "idempotency_key_reused",
            "the Idempotency-Key stood for another request",
            rule="api.idempotency_key",
            status=422,
        )
    if earlier.answer is None:
        raise conflict(
            "the request with this Idempotency-Key is under way, or was cut short: look what came of it",
            "api.under_way",
        )
    plain = owned.services.seal.open(base64.b64decode(earlier.answer), owned.purpose)
    kept = json.loads(plain)
    return Reply(kept["body"], kept["etag"], kept["location"])


def _sealed(owned: _Owned, reply: Reply) -> str:
    kept = strict_json.write({"body": reply.body, "etag": reply.etag, "location": reply.location})
    return base64.b64encode(owned.services.seal.close(kept.encode(), owned.purpose)).decode()
