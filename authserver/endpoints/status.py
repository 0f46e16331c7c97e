"""`GET /oauth/status/{list}`: Token Status Lists as signed JWTs (draft-ietf-oauth-status-list §5.1)."""

import hashlib
import threading
import time
from dataclasses import dataclass
from datetime import datetime

from flask import Request, Response

from authserver import jose
from authserver.endpoints.answers import error_answer
from authserver.errors import Refusal
from authserver.introspect import ended_indices
from authserver.issuing import status_list_uri
from authserver.services import Services
from authserver.tokens import status_lists

TTL = 15  # seconds; contract §7
# Who asks again within so long is told that nothing changed, if nothing did, and keeps what they have.
_SIGNED_ANEW_SECONDS = 5
# Anyone may ask, and an answer reads many rows: one is computed at a time, and serves for this long.
_FRESH_SECONDS = 0.2
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class _Served:
    """A list as it was a moment ago: signed, and the tag that stands for what it says."""

    made_at: float
    signed: str
    etag: str


class StatusEndpoint:
    """Serves status lists; an answer is at most a fifth of a second old."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._answers: dict[int, _Served] = {}

    def respond(self, request: Request, list_id: int) -> Response:
        """The list, 304 for who has it already, or 404 where there is none."""
        with self._lock:
            served = self._recent(list_id) or self._made(list_id)
        if served is None:
            return error_answer(Refusal("not_found", "there is no such status list", status=404))
        response = Response(served.signed, mimetype="application/statuslist+jwt")
        response.headers["Cache-Control"] = f"public, max-age={TTL}"
        # Two processes sign the same list in two ways, so the tag is a weak one (RFC 9110 §8.8.1).
        response.set_etag(served.etag, weak=True)
        response.make_conditional(request)
        return response

    def _recent(self, list_id: int) -> _Served | None:
        served = self._answers.get(list_id)
        return served if served and time.monotonic() - served.made_at < _FRESH_SECONDS else None

    def _made(self, list_id: int) -> _Served | None:
        services, now = self._services, self._services.clock.now()
        ended = services.database.read(
            lambda connection: (
                ended_indices(services, connection, list_id, now)
                if status_lists.exists(connection, list_id)
                else None
            )
        )
        if ended is None:
            return None
        key, lst = services.signing_keys.active(), status_lists.encode(ended)
        etag = _etag(key, lst, now)
        before = self._answers.get(list_id)
        # Signed anew only where it says something new.
        signed = before.signed if before and before.etag == etag else self._signed(list_id, lst, key, now)
        while len(self._answers) >= _REMEMBERED:
            del self._answers[next(iter(self._answers))]
        self._answers[list_id] = served = _Served(time.monotonic(), signed, etag)
        return served

    def _signed(self, list_id: int, lst: str, key: jose.SigningKey, now: datetime) -> str:
        issued_at = int(now.timestamp())
        claims = {
            "iss": self._services.issuer,
            "sub": status_list_uri(self._services, list_id),
            "iat": issued_at,
            "exp": issued_at + 4 * TTL,
            "ttl": TTL,
            "status_list": {"bits": 1, "lst": lst},
        }
        return jose.sign(claims, key=key, typ="statuslist+jwt")


def _etag(key: jose.SigningKey, lst: str, now: datetime) -> str:
    """What the answer says, whichever process gives it: the bits, by which key, and from when, to a few seconds."""
    period = int(now.timestamp()) // _SIGNED_ANEW_SECONDS
    return hashlib.sha256(f"{key.kid} {period} {lst}".encode()).hexdigest()[:32]
