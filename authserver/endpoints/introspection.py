"""`POST /oauth/introspect` (RFC 7662), as JSON or as a signed JWT (RFC 9701)."""

from datetime import datetime

from flask import Request, Response

from authserver import jose
from authserver.actors.resource_servers import ResourceServer
from authserver.audit.events import Record
from authserver.endpoints.answers import json_answer
from authserver.endpoints.clients import client_of, form_of
from authserver.endpoints.token import credentials
from authserver.errors import Refusal
from authserver.introspect import introspect
from authserver.services import Services
from authserver.tokens.action_tokens import ActionClaims

MEDIA_TYPE = "application/token-introspection+jwt"


def respond(services: Services, request: Request) -> Response:
    """Answer one request. Raises `Refusal`, audited, where it is malformed or nobody knows the caller."""
    try:
        return _respond(services, request)
    except Refusal as refusal:
        if refusal.status < 500:
            failed, now = refusal, services.clock.now()
            services.database.write(
                lambda connection: Record("introspection").refused(connection, now, failed)
            )
        raise


def _respond(services: Services, request: Request) -> Response:
    form, now = form_of(request), services.clock.now()
    token = form.required("token")
    caller = client_of(services, credentials(form, request.headers), now)
    if not isinstance(caller, ResourceServer):
        return json_answer(_answer(None))
    claims = introspect(services, token, caller, now)
    if request.accept_mimetypes.best == MEDIA_TYPE:
        return _signed(services, _answer(claims), caller, now)
    return json_answer(_answer(claims))


def _answer(claims: ActionClaims | None) -> dict[str, object]:
    if claims is None:
        return {"active": False}
    token_type = "DPoP" if claims.jkt is not None else "Bearer"
    return {"active": True, "token_type": token_type} | claims.to_json()


def _signed(services: Services, answer: dict[str, object], caller: ResourceServer, now: datetime) -> Response:
    # RFC 9701 §5: the answer inside a JWT for the caller alone.
    claims = {
        "iss": services.issuer,
        "aud": caller.identifier,
        "iat": int(now.timestamp()),
        "token_introspection": answer,
    }
    signed = jose.sign(claims, key=services.signing_keys.active(), typ="token-introspection+jwt")
    response = Response(signed, mimetype=MEDIA_TYPE)
    response.headers["Cache-Control"] = "no-store"
    return response
