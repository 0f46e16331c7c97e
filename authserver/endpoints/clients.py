"""Endpoints whose caller authenticates with a secret or an assertion: introspection, revocation, redemption."""

from datetime import datetime

from flask import Request

from authserver.actors.client_authentication import Client, ClientCredentials, authenticate, prepare
from authserver.endpoints.forms import Form, read_form
from authserver.services import Services


def form_of(request: Request) -> Form:
    """The strictly read form. Raises `Refusal` (`invalid_request`)."""
    form = read_form(request)
    form.only_once()
    return form


def client_of(services: Services, credentials: ClientCredentials, now: datetime) -> Client:
    """Who is calling. Raises `Refusal` (`invalid_client`, 401).

    In a transaction of its own: an assertion stays used, whatever becomes of the request that it came with.
    """
    prepare(credentials, services.trust_domains, now, services.issuer)
    # Only an assertion has a `jti` to be written down; a secret is looked up, which costs less.
    run = services.database.read if credentials.client_assertion is None else services.database.write
    return run(
        lambda connection: authenticate(
            connection,
            credentials,
            services.trust_domains,
            now,
            issuer=services.issuer,
            token_endpoint=services.token_endpoint,
        )
    )
