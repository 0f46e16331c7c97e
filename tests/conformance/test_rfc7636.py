"""Proof Key for Code Exchange (RFC 7636), as FAPI 2.0 requires it: always, and S256 alone."""

from typing import Any

import pytest

from tests.asking import (
    CALLBACK,
    VERIFIER,
    allow,
    challenge_of,
    claim,
    code_from,
    fresh_verifier,
    push,
    pushed,
    register_redirect_uris,
)
from tests.pages.browser import Visit
from tests.world import World


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None},
        {"code_challenge_method": None},  # §4.3: it would be plain
        {"code_challenge_method": "plain"},
        {"code_challenge_method": "s256"},
        {"code_challenge_method": "S512"},
        {"code_challenge": VERIFIER},
        {"code_challenge": "a" * 42},
        {"code_challenge": "a" * 42 + "="},
        {"code_challenge": "a" * 44},
    ],
)
def test_4_4_1_a_request_without_a_good_challenge_is_refused(
    shared_world: World, changes: dict[str, Any]
) -> None:
    """§4.4.1: `invalid_request`."""
    register_redirect_uris(shared_world, CALLBACK)
    with shared_world.nothing_happens(event="authorization_request.refused"):
        shared_world.refuses(push(shared_world, **changes), "invalid_request")


def test_4_6_the_verifier_of_the_challenge_is_taken(shared_world: World, shared_visit: Visit) -> None:
    """§4.6, with the example of appendix B."""
    verifier, challenge = (
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    )
    assert challenge_of(verifier) == challenge
    code = code_from(allow(shared_visit, pushed(shared_world, code_challenge=challenge)))
    assert claim(shared_world, code, code_verifier=verifier).status_code == 200


@pytest.mark.parametrize(
    "verifier",
    [fresh_verifier(), challenge_of(VERIFIER), VERIFIER[:-1], VERIFIER + "x", "short", "v" * 129, "é" * 50],
)
def test_4_6_another_verifier_is_invalid_grant(
    shared_world: World, shared_visit: Visit, verifier: str
) -> None:
    """§4.6: "If the values are not equal, an error response indicating "invalid_grant"". The code stays good."""
    code = code_from(allow(shared_visit, pushed(shared_world)))
    with shared_world.nothing_happens(event="authorization_code.refused"):
        shared_world.refuses(claim(shared_world, code, code_verifier=verifier), "invalid_grant")
    assert claim(shared_world, code).status_code == 200


def test_4_5_a_missing_verifier_is_invalid_request(shared_world: World, shared_visit: Visit) -> None:
    """§4.5."""
    code = code_from(allow(shared_visit, pushed(shared_world)))
    shared_world.refuses(claim(shared_world, code, code_verifier=None), "invalid_request")


def test_6_2_the_metadata_names_s256_alone(shared_world: World) -> None:
    """RFC 8414 §2."""
    metadata = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    assert metadata["code_challenge_methods_supported"] == ["S256"]
