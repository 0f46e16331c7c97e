"""Third-party clients get a grant, unmodified: by pushed request and code, and by device."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from joserfc.jwk import ECKey
from requests_oauth2client import DeviceAuthorizationPollingJob, OAuth2Client, PrivateKeyJwt

from authserver.schema import Agent as AgentRow
from authserver.schema import table_of
from tests.asking import CALLBACK, allow_device, form_of, register_redirect_uris, send
from tests.conformance.conftest import Run
from tests.conformance.tokens import jwks_of
from tests.pages.browser import Visit, signed_in
from tests.world import World, running_world

KEY = ECKey.generate_key("P-256")


@pytest.fixture(scope="module")
def asking_world(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server whose agent has keys of its own, and whose devices need not wait long."""
    folder = tmp_path_factory.mktemp("asking")
    settings = {"authorization": {"device_interval": 1}}
    with running_world(module_database, folder / "world", **settings) as world:
        register_redirect_uris(world, CALLBACK)
        agents = table_of(AgentRow)
        change = agents.update().where(agents.c.client_id == "basket-helper").values(jwks=jwks_of(KEY))
        world.services.database.write(lambda connection: connection.execute(change))
        yield world


@pytest.fixture(scope="module")
def visit(asking_world: World) -> Iterator[Visit]:
    """Ada at her browser."""
    with signed_in(asking_world) as visit:
        yield visit


def answered(visit: Visit, url: str) -> str:
    """Follow the agent's link, say yes; gives where the browser is sent then."""
    parts = urlsplit(url)
    led = visit.get(f"{parts.path}?{parts.query}")
    path = led.headers["location"]
    answer = send(visit, path, form_of(visit.get(path)) | {"preset": ["trust"]})
    return str(answer.headers["location"])


def pays(world: World, token: dict[str, Any]) -> bool:
    """Whether the grant is what it says: an exchange by the agent's workload passes."""
    assert token["issued_token_type"] == "urn:authserver:token-type:delegation-grant"
    assert token["grant_id"]
    return world.exchange(token["access_token"]).status_code == 200


def told(world: World, step: str, **more: Any) -> dict[str, Any]:
    """What the script for Node is told."""
    key = KEY.as_dict(private=True)
    return {
        "issuer": world.issuer,
        "client_id": "basket-helper",
        "key": {name: key[name] for name in ("kty", "crv", "x", "y", "d")},
        "kid": KEY.thumbprint(),
        "redirect_uri": CALLBACK,
        "details": world.delegation(),
        "step": step,
        **more,
    }


def test_openid_client_gets_a_grant_by_code(asking_world: World, visit: Visit, node: Run) -> None:
    pushed = node("openid-client-asks.mjs", told(asking_world, "push"))
    assert "authorization_details" not in pushed["url"]
    callback = answered(visit, pushed["url"])
    more = {"callback": callback, "verifier": pushed["verifier"], "state": pushed["state"]}
    token = node("openid-client-asks.mjs", told(asking_world, "claim", **more))
    assert token["token_type"] == "bearer"
    assert pays(asking_world, token)


def test_openid_client_gets_a_grant_by_device(asking_world: World, visit: Visit, node: Run) -> None:
    asked = node("openid-client-asks.mjs", told(asking_world, "start_device"))
    assert allow_device(visit, asked["user_code"]).status_code == 303
    token = node("openid-client-asks.mjs", told(asking_world, "poll_device", asked=asked))
    assert pays(asking_world, token)


@pytest.fixture
def python_client(asking_world: World) -> OAuth2Client:
    """A client of requests-oauth2client with the endpoints of the metadata; its discovery leaves the device's out."""
    metadata = asking_world.client.get("/.well-known/oauth-authorization-server").json()
    names = ("token", "authorization", "pushed_authorization_request", "device_authorization")
    key = KEY.as_dict(private=True) | {"kid": KEY.thumbprint(), "alg": "ES256"}
    return OAuth2Client(
        **{f"{name}_endpoint": metadata[f"{name}_endpoint"] for name in names},
        issuer=metadata["issuer"],
        authorization_response_iss_parameter_supported=True,
        auth=PrivateKeyJwt("basket-helper", key, aud=metadata["issuer"]),
        redirect_uri=CALLBACK,
        testing=True,
    )


def test_requests_oauth2client_gets_a_grant_by_code(
    asking_world: World, visit: Visit, python_client: OAuth2Client
) -> None:
    details = json.dumps([asking_world.delegation()])
    asked = python_client.authorization_request(authorization_details=details, scope=None)
    pushed = python_client.pushed_authorization_request(asked)
    callback = answered(visit, str(pushed.uri))
    token = python_client.authorization_code(asked.validate_callback(callback), validate=False)
    assert pays(asking_world, token.as_dict())


def test_requests_oauth2client_gets_a_grant_by_device(
    asking_world: World, visit: Visit, python_client: OAuth2Client
) -> None:
    asked = python_client.authorize_device(authorization_details=json.dumps([asking_world.delegation()]))
    job = DeviceAuthorizationPollingJob(python_client, asked.device_code, interval=0, slow_down_interval=0)
    assert job() is None
    assert allow_device(visit, asked.user_code).status_code == 303
    token = job()
    assert token is not None
    assert pays(asking_world, token.as_dict())
