"""Third-party clients, used as their documentation says and with no special case for them in the server."""

import json
from typing import Any

import google.auth.transport.requests
import pytest
from google.auth.exceptions import OAuthError
from google.oauth2 import sts
from requests_oauth2client import OAuth2Client
from requests_oauth2client.exceptions import EndpointError

from tests.conformance.conftest import Run
from tests.world import EXCHANGE, JWT, MARKET, World


def told(world: World) -> dict[str, Any]:
    """What a script for Node is told: how to reach the server and what to ask."""
    form = world.form(world.granted().grant)
    del form["grant_type"]
    too_dear = world.action(amount={"currency": "EUR", "value": "92.00"})
    return {
        "issuer": world.issuer,
        "client_id": "basket-helper",
        "parameters": form,
        "too_dear": json.dumps([too_dear]),
    }


@pytest.mark.parametrize("script", ["oauth4webapi.mjs", "openid-client.mjs"])
def test_a_client_for_javascript_exchanges(world: World, node: Run, script: str) -> None:
    answers = node(script, told(world))
    bearer, bound, refusal = answers["bearer"], answers["bound"], answers["refusal"]
    assert bearer["token_type"] == "bearer"
    assert world.introspect(bearer["access_token"])["authorization_details"] == [world.action()]
    assert bound["token_type"] == "dpop"
    assert set(world.introspect(bound["access_token"])["cnf"]) == {"jkt"}
    assert refusal["error"] == "invalid_authorization_details"
    assert refusal["violations"] == [
        {"constraint": "limits.per_action", "requested": "92.00", "allowed": "80.00"}
    ]


def test_a_resource_server_in_javascript_verifies_the_token(world: World, node: Run) -> None:
    token = world.exchange(world.granted().grant).json()["access_token"]
    verified = node(
        "jose.mjs",
        {
            "token": token,
            "issuer": world.issuer,
            "audience": MARKET,
            "jwks_uri": f"{world.issuer}/oauth/jwks",
        },
    )
    assert verified["payload"]["authorization_details"] == [world.action()]
    assert verified["protectedHeader"]["typ"] == "at+jwt"


def exchange_with_requests_oauth2client(world: World, action: dict[str, Any], **options: Any) -> Any:
    """One exchange, from the discovery document on."""
    client = OAuth2Client.from_discovery_endpoint(
        f"{world.issuer}/.well-known/oauth-authorization-server",
        issuer=world.issuer,
        client_id="basket-helper",
        testing=True,
    )
    return client.token_exchange(
        subject_token=world.granted().grant,
        subject_token_type=JWT,
        actor_token=world.assertion(),
        actor_token_type=JWT,
        authorization_details=json.dumps([action]),
        **options,
    )


def test_requests_oauth2client_exchanges(world: World) -> None:
    token = exchange_with_requests_oauth2client(world, world.action())
    assert world.introspect(token.access_token)["active"]
    assert token.authorization_details == [world.action()]


def test_requests_oauth2client_exchanges_with_dpop(world: World) -> None:
    token = exchange_with_requests_oauth2client(world, world.action(), dpop=True)
    assert token.token_type == "DPoP"
    assert world.introspect(token.access_token)["cnf"]["jkt"]


def test_requests_oauth2client_is_told_what_was_crossed(world: World) -> None:
    with pytest.raises(EndpointError) as refused:
        exchange_with_requests_oauth2client(world, world.action(amount={"currency": "EUR", "value": "92.00"}))
    assert refused.value.error == "invalid_authorization_details"


def test_google_auth_exchanges(world: World) -> None:
    answer = sts.Client(f"{world.issuer}/oauth/token").exchange_token(
        google.auth.transport.requests.Request(),
        EXCHANGE,
        world.granted().grant,
        JWT,
        audience=MARKET,
        scopes=["catalog.search"],
        actor_token=world.assertion(),
        actor_token_type=JWT,
        additional_options={"ignored": "yes"},
    )
    assert world.introspect(answer["access_token"])["scope"] == "catalog.search"


def test_google_auth_is_told_why_not(world: World) -> None:
    with pytest.raises(OAuthError, match="invalid_scope"):
        sts.Client(f"{world.issuer}/oauth/token").exchange_token(
            google.auth.transport.requests.Request(),
            EXCHANGE,
            world.granted().grant,
            JWT,
            audience=MARKET,
            scopes=["payment.finalize"],
            actor_token=world.assertion(),
            actor_token_type=JWT,
        )
