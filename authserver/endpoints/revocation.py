"""`POST /oauth/revoke` (RFC 7009): an agent ends its own action token or its delegation."""

from flask import Request, Response

from authserver.actors.agents import Agent
from authserver.actors.client_authentication import Client
from authserver.audit.events import Record
from authserver.endpoints.answers import json_answer
from authserver.endpoints.clients import client_of, form_of
from authserver.endpoints.token import credentials
from authserver.errors import Refusal
from authserver.revoke import revoke_token
from authserver.services import Services


def respond(services: Services, request: Request) -> Response:
    """Answer one request: 200 for every token (§2.2). Raises `Refusal` where it is malformed or cannot be recorded."""
    record, now = Record("token_revocation"), services.clock.now()
    try:
        form = form_of(request)
        token = form.required("token")
        caller = client_of(services, credentials(form, request.headers), now)
        revoke_token(services, token, _agent(caller), record, now)
    except Refusal as refusal:
        if refusal.status < 500:
            failed = refusal
            services.database.write(lambda connection: record.refused(connection, now, failed))
        if refusal.status != 200:
            raise
    return json_answer({})


def _agent(caller: Client) -> Agent:
    if not isinstance(caller, Agent):
        raise Refusal("unauthorized_client", "only agents revoke tokens here", rule="revocation.not_an_agent")
    return caller
