"""Endpoints whose caller authenticates with a secret or an assertion: introspection and revocation."""

from datetime import datetime

from flask import Request
from sqlalchemy import Connection

from authserver.actors.client_authentication import Client, authenticate
from authserver.endpoints.forms import Form, read_form
from authserver.endpoints.token import credentials
from authserver.services import Services


def form_of(request: Request) -> Form:
    """The strictly read form. Raises `Refusal` (`invalid_request`)."""
    form = read_form(request)
    form.only_once()
    return form


def client_of(
    services: Services, connection: Connection, request: Request, form: Form, now: datetime
) -> Client:
    """Who is calling. Raises `Refusal` (`invalid_client`, 401)."""
    return authenticate(
        connection,
        credentials(form, request.headers),
        services.trust_domains,
        now,
        issuer=services.issuer,
        token_endpoint=services.token_endpoint,
    )
