"""Tokens as outsiders read and write them: with joserfc and the published keys, never with the server's own code."""

import json
import secrets
from base64 import urlsafe_b64decode
from typing import Any

from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from tests.world import World

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
Key = ECKey | RSAKey


def decoded(part: str) -> bytes:
    """The bytes of base64url without padding (RFC 7515 §2)."""
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def header_of(token: str) -> dict[str, Any]:
    """What a token's header says."""
    header: dict[str, Any] = json.loads(decoded(token.split(".")[0]))
    return header


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, whoever signed it."""
    claims: dict[str, Any] = json.loads(decoded(token.split(".")[1]))
    return claims


def verified(world: World, token: str) -> dict[str, Any]:
    """The claims of a token whose signature is good with a key that the server publishes."""
    metadata = world.client.get("/.well-known/oauth-authorization-server").json()
    published = world.client.get(metadata["jwks_uri"]).json()
    claims: dict[str, Any] = jwt.decode(token, KeySet.import_key_set(published), algorithms=["ES256"]).claims
    return claims


def token_of(world: World, grant: str | None = None, **changes: Any) -> str:
    """A fresh action token; `changes` are those of `World.exchange`."""
    answer = world.exchange(grant or world.granted().grant, **changes)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


def public(key: Key, **members: object) -> dict[str, Any]:
    """The JWK of the public half, with more members."""
    return {**key.as_dict(private=False), **members}


def jwks_of(key: Key, **members: object) -> str:
    """The JWK Set of one public key, as it is registered for a client."""
    return json.dumps({"keys": [public(key, kid=key.thumbprint(), **members)]})


def signed(header: dict[str, Any], claims: dict[str, Any], key: Key) -> str:
    """A compact JWS; members that are None are left out."""
    said = [{name: value for name, value in part.items() if value is not None} for part in (header, claims)]
    return jws.serialize_compact(said[0], json.dumps(said[1]), key, algorithms=[header["alg"]])


def own_assertion(
    world: World, client_id: str, key: Key, *, header: dict[str, Any] | None = None, **claims: object
) -> str:
    """A `private_key_jwt` assertion that is good, but for what is given; None leaves a member out (RFC 7523 §3)."""
    now = int(world.clock.now().timestamp())
    usual = {"iss": client_id, "sub": client_id, "aud": world.issuer, "iat": now, "exp": now + 60}
    usual["jti"] = secrets.token_urlsafe(16)
    return signed(
        {"alg": "ES256", "kid": key.thumbprint(), "typ": "JWT"} | (header or {}), usual | claims, key
    )


def dpop_proof(
    world: World,
    key: Key,
    *,
    header: dict[str, Any] | None = None,
    signer: Key | None = None,
    **claims: object,
) -> str:
    """A DPoP proof for the token endpoint that is good, but for what is given (RFC 9449 §4.2)."""
    now = world.clock.now()
    usual = {
        "jti": secrets.token_urlsafe(16),
        "htm": "POST",
        "htu": world.services.token_endpoint,
        "iat": int(now.timestamp()),
        "nonce": world.services.nonces.make(now),
    }
    said = {"alg": "ES256", "typ": "dpop+jwt", "jwk": public(key)} | (header or {})
    return signed(said, usual | claims, signer or key)
