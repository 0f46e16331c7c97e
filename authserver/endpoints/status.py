"""`GET /oauth/status/{list}`: Token Status Lists as signed JWTs (draft-ietf-oauth-status-list §5.1)."""

import threading
import time

from flask import Response

from authserver import jose
from authserver.endpoints.answers import json_answer
from authserver.introspect import ended_indices
from authserver.issuing import status_list_uri
from authserver.services import Services
from authserver.tokens import status_lists

TTL = 15  # seconds; contract §7
# Anyone may ask, and an answer reads many rows: one is computed at a time, and serves for this long.
_FRESH_SECONDS = 0.2
_REMEMBERED = 64


class StatusEndpoint:
    """Serves status lists; an answer is at most a fifth of a second old."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._answers: dict[int, tuple[float, str]] = {}

    def respond(self, list_id: int) -> Response:
        """The list, or 404 where there is none."""
        with self._lock:
            signed = self._recent(list_id) or self._made(list_id)
        if signed is None:
            body = {"error": "not_found", "error_description": "there is no such status list"}
            return json_answer(body, 404)
        response = Response(signed, mimetype="application/statuslist+jwt")
        response.headers["Cache-Control"] = f"public, max-age={TTL}"
        return response

    def _recent(self, list_id: int) -> str | None:
        made_at, signed = self._answers.get(list_id, (float("-inf"), None))
        return signed if time.monotonic() - made_at < _FRESH_SECONDS else None

    def _made(self, list_id: int) -> str | None:
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
        issued_at = int(now.timestamp())
        claims = {
            "iss": services.issuer,
            "sub": status_list_uri(services, list_id),
            "iat": issued_at,
            "exp": issued_at + 4 * TTL,
            "ttl": TTL,
            "status_list": {"bits": 1, "lst": status_lists.encode(ended)},
        }
        signed = jose.sign(claims, key=services.signing_keys.active(), typ="statuslist+jwt")
        while len(self._answers) >= _REMEMBERED:
            del self._answers[next(iter(self._answers))]
        self._answers[list_id] = (time.monotonic(), signed)
        return signed
