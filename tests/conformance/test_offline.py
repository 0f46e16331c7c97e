"""Action tokens and status lists at resource servers that do not use the kit: PyJWT, and Node's jose with DPoP."""

import time
import zlib
from typing import Any

import jwt
import pytest
import yaml

from authserver.dpop import ProofKey
from tests.conformance.conftest import Run
from tests.conformance.tokens import decoded
from tests.documents import blocks
from tests.shops import bound_token
from tests.world import MARKET, SHOP, World


def with_pyjwt(world: World, token: str, audience: str = MARKET) -> dict[str, Any]:
    """As docs/without-the-kit.md has it; PyJWT itself does not look at `typ`."""
    keys = jwt.PyJWKClient(f"{world.issuer}/oauth/jwks")
    if jwt.get_unverified_header(token).get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("typ")
    required = {"require": ["exp", "iat", "iss", "aud", "sub", "jti", "client_id"]}
    claims: dict[str, Any] = jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=["ES256"],
        issuer=world.issuer,
        audience=audience,
        options=required,  # type: ignore[arg-type]
    )
    return claims


def test_pyjwt_verifies_an_action_token(world: World) -> None:
    token = world.exchange(world.granted().grant).json()["access_token"]
    claims = with_pyjwt(world, token)
    assert claims["authorization_details"] == [world.action()]
    with pytest.raises(jwt.InvalidAudienceError):
        with_pyjwt(world, token, SHOP)


def test_pyjwt_reads_the_status_list(world: World) -> None:
    grant = world.granted().grant
    token = world.exchange(grant).json()["access_token"]
    place = with_pyjwt(world, token)["status"]["status_list"]

    def status() -> int:
        signed = world.client.get(place["uri"]).text
        keys = jwt.PyJWKClient(f"{world.issuer}/oauth/jwks")
        listed = jwt.decode(
            signed, keys.get_signing_key_from_jwt(signed), algorithms=["ES256"], issuer=world.issuer
        )
        assert listed["sub"] == place["uri"]
        bits = zlib.decompress(decoded(listed["status_list"]["lst"]))
        return bits[place["idx"] // 8] >> place["idx"] % 8 & 1

    assert status() == 0
    form = {"token": grant, "client_assertion": world.assertion()}
    form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
    world.post("/oauth/revoke", form)
    time.sleep(0.25)  # a list may be that old
    assert status() == 1


def test_jose_verifies_token_proof_and_status_list(sqlite_world: World, node: Run) -> None:
    world, key = sqlite_world, ProofKey.generate()
    url = "https://market.example/api/orders/1/payment"
    token = bound_token(world, world.granted().grant, key)
    said = {
        "issuer": world.issuer,
        "audience": MARKET,
        "token": token,
        "proof": key.proof("POST", url, now=world.clock.now(), access_token=token),
        "method": "POST",
        "url": url,
        "action": "payment.finalize",
        "amount": {"currency": "EUR", "value": "42.50"},
    }
    stolen = ProofKey.generate().proof("POST", url, now=world.clock.now(), access_token=token)
    changes: list[dict[str, Any]] = [
        {},
        {"amount": {"currency": "EUR", "value": "42.51"}},
        {"action": "order.checkout"},
        {"proof": stolen},
        {"proof": None},
        {"url": url + "x"},
        {"audience": SHOP},
    ]
    answers = node("resource-server.mjs", {"requests": [said | change for change in changes]})["answers"]
    assert answers == ["allowed", "amount", "action", "dpop.jkt", "dpop", "dpop.htu", "token"]
    form = {"token": token, "client_assertion": world.assertion()}
    form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
    world.post("/oauth/revoke", form)
    time.sleep(0.25)  # a list may be that old
    assert node("resource-server.mjs", {"requests": [said]})["answers"] == ["ended"]


# --- what no program here runs: the blocks of docs/without-the-kit.md are read, and held against server and tokens ----


def test_what_the_envoy_block_names_is_what_the_server_publishes(world: World) -> None:
    [text] = blocks("without-the-kit.md", "yaml", "Envoy")
    filters = {
        each["name"].rpartition(".")[2]: each["typed_config"] for each in yaml.safe_load(text)["http_filters"]
    }
    assert list(filters) == ["jwt_authn", "rbac", "router"]
    provider = filters["jwt_authn"]["providers"]["authserver"]
    published = world.client.get("/.well-known/oauth-authorization-server").json()
    assert _here(world, provider["issuer"]) == published["issuer"]
    assert _here(world, provider["remote_jwks"]["http_uri"]["uri"]) == published["jwks_uri"]
    claims = with_pyjwt(world, world.exchange(world.granted().grant).json()["access_token"])
    assert claims["iss"] == _here(world, provider["issuer"])
    assert isinstance(claims["aud"], str)  # one audience, as `audiences` compares it
    [rule] = filters["jwt_authn"]["rules"]
    assert rule["requires"]["provider_name"] in filters["jwt_authn"]["providers"]
    # What is bound to a key is denied by the path at which a bound token has it, and no other token has anything there.
    [principal] = filters["rbac"]["rules"]["policies"]["bound-to-a-key"]["principals"]
    path = [part["key"] for part in principal["metadata"]["path"]]
    assert path[0] == provider["payload_in_metadata"]
    assert (_at(claims, path[1:]), filters["rbac"]["rules"]["action"]) == (None, "DENY")
    key = ProofKey.generate()
    bound = with_pyjwt(world, bound_token(world, world.granted().grant, key))
    assert _at(bound, path[1:]) == key.jkt


def test_what_the_spring_block_names_is_what_the_server_publishes(sqlite_world: World) -> None:
    world = sqlite_world
    [text] = blocks("without-the-kit.md", "yaml", "Spring Security")
    [said] = yaml.safe_load(text).values()
    published = world.client.get("/.well-known/oauth-authorization-server").json()
    assert _here(world, said["issuer-uri"]) == published["issuer"]
    assert _here(world, said["jwk-set-uri"]) == published["jwks_uri"]
    token = world.exchange(world.granted().grant).json()["access_token"]
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["typ"]) == (said["jws-algorithms"], "at+jwt")
    [java] = blocks("without-the-kit.md", "java", "Spring Security")
    assert f'JOSEObjectType("{header["typ"]}")' in java
    assert "authorization_details" in java


def _here(world: World, text: str) -> str:
    return text.replace("https://auth.example", world.issuer)


def _at(claims: dict[str, Any], path: list[str]) -> object:
    found: Any = claims
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found
