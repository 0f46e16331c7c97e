"""`GET` and `DELETE /oauth/grants/{grant_id}`: Grant Management for OAuth 2.0 (FAPI), contract §5."""

from flask import Request, Response
from werkzeug.datastructures import Headers

from authserver import grant_management, jose
from authserver.actors.agents import Agent
from authserver.actors.client_authentication import JWT_BEARER, JWT_SPIFFE, ClientCredentials
from authserver.audit.events import Record
from authserver.endpoints.answers import json_answer
from authserver.endpoints.clients import client_of
from authserver.endpoints.forms import Form, read_form
from authserver.endpoints.token import credentials
from authserver.errors import Refusal
from authserver.services import Services
from authserver.tokens.grants import Grant


def respond(services: Services, request: Request, grant_id: str) -> Response:
    """Answer one query or one revocation."""
    reads = request.method in ("GET", "HEAD")
    record, now = Record("grant_query" if reads else "grant_revocation"), services.clock.now()
    try:
        caller = _caller(services, request)
        record.client_id = caller.client_id
        if "\x00" in grant_id:  # PostgreSQL cannot even be asked for it
            raise Refusal(
                "not_found", "there is no such grant of this client", "grant_id.unknown", status=404
            )
        if reads:
            return json_answer(grant_management.query(services, grant_id, caller, record, now))
        if not isinstance(caller, Agent):
            raise Refusal(
                "insufficient_scope", "a grant reads itself; the agent ends it", "grants.by_grant", status=403
            )
        grant_management.give_back(services, grant_id, caller, record, now)
    except Refusal as refusal:
        if refusal.status < 500:
            failed = refusal
            services.database.write(lambda connection: record.refused(connection, now, failed))
        raise
    response = json_answer({}, 204)
    response.set_data(b"")
    return response


def _caller(services: Services, request: Request) -> Agent | Grant:
    """The grant itself, or the agent: by `client_assertion`, or with its assertion as a bearer token.

    An assertion as `Authorization: Bearer` is how workloads show a JWT-SVID (SPIFFE JWT-SVID §5).
    """
    form = read_form(request)
    form.only_once()
    if form.one("client_assertion") is not None:
        return _agent(services, _without_bearer(form))
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise _unauthorized("a bearer token or a client_assertion is due", "grants.no_token")
    try:
        return services.grants.read(token, services.clock.now())
    except jose.TokenRefused:
        pass
    for kind in (JWT_SPIFFE, JWT_BEARER):
        try:
            return _agent(services, ClientCredentials(None, None, kind, token))
        except Refusal as refusal:
            if refusal.status != 401:
                raise
    raise _unauthorized("the token is neither a grant nor an agent's assertion", "grants.token")


def _without_bearer(form: Form) -> ClientCredentials:
    # A grant in the header beside it is no second way of authentication: it names what is asked about.
    return credentials(form, Headers())


def _agent(services: Services, sent: ClientCredentials) -> Agent:
    caller = client_of(services, sent, services.clock.now())
    if not isinstance(caller, Agent):
        raise Refusal(
            "unauthorized_client", "only agents hold grants", rule="grants.not_an_agent", status=403
        )
    return caller


def _unauthorized(description: str, rule: str) -> Refusal:
    challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    return Refusal("invalid_token", description, rule=rule, status=401, headers=challenge)
