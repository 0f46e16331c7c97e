"""Metadata, keys and health (RFC 8414, RFC 7517, contract §2)."""

from datetime import timedelta

from authserver.tokens.signing_keys import list_keys, rotate
from tests.world import World

HOUR = timedelta(hours=1)


def rotated(world: World, publish_ahead: timedelta) -> str:
    """Rotate as `manage.py keys rotate` does; gives the new kid."""
    services = world.services

    def write(connection: object) -> str:
        return rotate(
            connection, services.seal, world.clock.now(), publish_ahead=publish_ahead, longest_life=HOUR
        ).kid

    kid = services.database.write(write)
    services.signing_keys.forget()
    return kid


def kids(world: World) -> set[str]:
    """The published keys' ids."""
    return {key["kid"] for key in world.client.get("/oauth/jwks").json()["keys"]}


def test_the_metadata_names_what_the_server_serves(world: World) -> None:
    metadata = world.client.get("/.well-known/oauth-authorization-server").json()
    assert metadata["issuer"] == world.issuer
    assert metadata["token_endpoint"] == f"{world.issuer}/oauth/token"
    assert metadata["redemption_endpoint"] == f"{world.issuer}/oauth/redeem"
    assert metadata["authorization_details_types_supported"] == ["agent_delegation", "agent_action"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["require_pushed_authorization_requests"] is True
    for name in ("jwks_uri",):
        assert world.client.get(metadata[name].removeprefix(world.url)).status_code == 200
    for name in ("token_endpoint", "introspection_endpoint", "revocation_endpoint"):
        assert world.post(metadata[name].removeprefix(world.url), {"x": "y"}).status_code in (400, 401)
    assert (
        world.client.post(metadata["redemption_endpoint"].removeprefix(world.url), json={}).status_code == 401
    )


def test_published_keys_are_public_and_for_es256(world: World) -> None:
    [key] = world.client.get("/oauth/jwks").json()["keys"]
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("EC", "P-256", "ES256", "sig")
    assert "d" not in key


def test_a_new_key_is_published_before_it_signs_and_the_old_one_after(world: World) -> None:
    grant = world.granted().grant
    [old] = kids(world)
    new = rotated(world, timedelta(seconds=60))
    assert kids(world) == {old, new}
    services = world.services
    assert services.signing_keys.active().kid == old
    token = world.exchange(grant).json()["access_token"]
    world.clock.advance(seconds=60)
    assert services.signing_keys.active().kid == new
    assert world.introspect(token)["active"]
    assert world.exchange(grant).status_code == 200
    world.clock.advance(hours=1)
    assert kids(world) == {new}
    states = services.database.read(
        lambda connection: [key.state(world.clock.now()) for key in list_keys(connection)]
    )
    assert states == ["removed", "active"]


def test_a_key_made_by_another_process_verifies_at_once(world: World) -> None:
    granted = world.granted()
    world.services.signing_keys.published()
    rotated(world, timedelta(0))
    assert world.exchange(world.granted().grant).status_code == 200
    assert world.exchange(granted.grant).status_code == 200


def test_private_keys_rest_encrypted(world: World) -> None:
    from sqlalchemy import select

    from authserver.schema import SigningKey, table_of

    [row] = world.services.database.read(lambda c: c.execute(select(table_of(SigningKey))).all())
    assert b"PRIVATE KEY" not in row.encrypted_private_key
    assert '"d"' not in row.public_jwk


def test_health_and_readiness(world: World) -> None:
    assert world.client.get("/healthz").json() == {"status": "ok"}
    ready = world.client.get("/readyz")
    assert ready.status_code == 200, ready.text
    assert ready.json()["checks"]["trust_domains"] == {"example.org": "ok"}


def test_an_unknown_path_and_a_wrong_method_are_json(world: World) -> None:
    assert world.client.get("/nothing").json()["error"] == "not_found"
    answer = world.client.get("/oauth/token")
    assert answer.status_code == 405
    assert answer.json()["error"] == "invalid_request"


def test_resource_servers_learn_which_tokens_are_for_one_use_and_what_contains_what(
    sqlite_world: World,
) -> None:
    """Ours, beyond RFC 8414 (docs/decisions/0006): the catalogue and the data types as they are configured."""
    document = sqlite_world.client.get("/.well-known/oauth-authorization-server").json()
    assert "payment.finalize" in document["redeemed_actions_supported"]
    assert not {"catalog.search", "order.checkout"} & set(document["redeemed_actions_supported"])
    assert document["datatypes_supported"]["contact"] == ["email", "phone"]
    assert document["datatypes_supported"]["email"] == []
    assert {"contact", "email", "phone", "name"} < set(document["datatypes_supported"]["profile"])
