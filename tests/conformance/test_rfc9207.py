"""OAuth 2.0 Authorization Server Issuer Identification (RFC 9207)."""

import pytest

from tests.asking import allow, consent_page, form_of, open_request, parameters_of, pushed, send
from tests.pages.browser import Visit
from tests.world import World


def test_2_the_issuer_comes_with_every_code(shared_world: World, shared_visit: Visit) -> None:
    """§2: `iss` is the issuer identifier of RFC 8414, letter by letter."""
    led = allow(shared_visit, pushed(shared_world))
    metadata = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    assert parameters_of(led.headers["location"])["iss"] == metadata["issuer"]


@pytest.mark.parametrize("why", ["denied", "prompt"])
def test_2_the_issuer_comes_with_every_error(shared_world: World, shared_visit: Visit, why: str) -> None:
    """§2: "in authorization responses, including error responses"."""
    if why == "denied":
        path, page = consent_page(shared_visit, pushed(shared_world))
        led = send(shared_visit, path, form_of(page) | {"decision": ["deny"]})
    else:
        led = open_request(shared_visit, pushed(shared_world, prompt="none"))
    parameters = parameters_of(led.headers["location"])
    assert parameters["iss"] == shared_world.issuer
    assert parameters["error"]


def test_3_the_metadata_says_so(shared_world: World) -> None:
    """§3."""
    metadata = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    assert metadata["authorization_response_iss_parameter_supported"] is True
