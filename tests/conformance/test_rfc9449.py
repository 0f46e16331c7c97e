"""DPoP (RFC 9449) at the token endpoint: proofs, nonces, and tokens that are bound to a key."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from joserfc.jwk import ECKey, RSAKey

from tests.conformance.tokens import Key, decoded, dpop_proof, header_of, public, verified
from tests.world import World, running_world

KEY = ECKey.generate_key("P-256")
OTHER = ECKey.generate_key("P-256")


def send(world: World, grant: str, proof: str | None, **changes: str) -> httpx.Response:
    """An exchange with that proof."""
    return world.exchange(grant, headers={} if proof is None else {"DPoP": proof}, **changes)


def refuse(world: World, grant: str, proof: str, error: str = "invalid_dpop_proof") -> httpx.Response:
    """Hold the server to refusing the proof, without a trace."""
    with world.nothing_happens():
        answer = send(world, grant, proof)
        world.refuses(answer, error)
    return answer


@pytest.fixture
def without_nonces(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    """A server that is configured to ask for no nonces."""
    with running_world(sqlite_url, tmp_path / "world", dpop={"require_nonce": False}) as running:
        yield running


# --- §5, §6: bound tokens -----------------------------------------------------------------------------------


def test_a_proof_binds_the_token_to_its_key(world: World) -> None:
    """§5 and §6.1: `token_type` DPoP, and the key's thumbprint (RFC 7638) in `cnf`."""
    answer = send(world, world.granted().grant, dpop_proof(world, KEY))
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "DPoP"
    assert verified(world, answer.json()["access_token"])["cnf"] == {"jkt": KEY.thumbprint()}


def test_without_a_proof_the_token_is_bound_to_nothing(shared_world: World) -> None:
    """§5: Bearer."""
    body = send(shared_world, shared_world.granted().grant, None).json()
    assert body["token_type"] == "Bearer"
    assert "cnf" not in verified(shared_world, body["access_token"])


def test_introspection_tells_the_binding(shared_world: World) -> None:
    """§6.2: `token_type` and `cnf`."""
    token = send(shared_world, shared_world.granted().grant, dpop_proof(shared_world, KEY)).json()[
        "access_token"
    ]
    told = shared_world.introspect(token)
    assert (told["token_type"], told["cnf"]) == ("DPoP", {"jkt": KEY.thumbprint()})


def test_an_action_that_needs_a_key_is_refused_without_a_proof(sqlite_world: World) -> None:
    """§5: the server may require it; contract §4: `sender_constraint`."""
    grant = sqlite_world.granted(actions=["payment_instrument.use"]).grant
    action = sqlite_world.action(actions=["payment_instrument.use"])
    with sqlite_world.nothing_happens("catalogue.sender_constraint"):
        sqlite_world.refuses(sqlite_world.exchange(grant, action=action), "invalid_dpop_proof")
    answer = sqlite_world.exchange(grant, action=action, headers={"DPoP": dpop_proof(sqlite_world, KEY)})
    assert answer.json()["token_type"] == "DPoP"


def test_every_algorithm_that_is_announced_is_taken_and_no_other(
    shared_world: World, shared_grant: str
) -> None:
    """§5.1: `dpop_signing_alg_values_supported`; §4.2: asymmetric ones alone."""
    document = shared_world.client.get("/.well-known/oauth-authorization-server").json()
    announced = document["dpop_signing_alg_values_supported"]
    rsa = RSAKey.generate_key(2048)
    keys: dict[str, Key] = {"ES256": KEY, "ES384": ECKey.generate_key("P-384")}
    keys |= {"ES512": ECKey.generate_key("P-521"), "RS256": rsa, "PS256": rsa, "RS384": rsa}
    assert set(announced) <= set(keys)
    for alg, key in keys.items():
        proof = dpop_proof(shared_world, key, header={"alg": alg})
        if alg in announced:
            assert send(shared_world, shared_grant, proof).status_code == 200, alg
        else:
            refuse(shared_world, shared_grant, proof)


# --- §4.3: checking proofs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["jti", "htm", "htu", "iat"])
def test_each_claim_is_required(shared_world: World, shared_grant: str, claim: str) -> None:
    """§4.2 and §4.3 (3)."""
    refuse(shared_world, shared_grant, dpop_proof(shared_world, KEY, **{claim: None}))


@pytest.mark.parametrize(
    "header",
    [{"typ": None}, {"typ": "JWT"}, {"typ": "dpop"}, {"jwk": None}, {"kid": "x", "jwk": None}],
    ids=str,
)
def test_the_header_is_that_of_a_proof(
    shared_world: World, shared_grant: str, header: dict[str, object]
) -> None:
    """§4.3 (4) and §4.2: `typ` is dpop+jwt, and the public key is there."""
    refuse(shared_world, shared_grant, dpop_proof(shared_world, KEY, header=header))


@pytest.mark.parametrize("alg", ["none", "HS256"])
def test_a_proof_without_an_asymmetric_signature_is_refused(
    shared_world: World, shared_grant: str, alg: str
) -> None:
    """§4.3 (5)."""
    good = dpop_proof(shared_world, KEY)
    header = json.dumps(header_of(good) | {"alg": alg}).encode()
    _, claims, signature = good.split(".")
    unsigned = "" if alg == "none" else signature
    refuse(
        shared_world, shared_grant, f"{urlsafe_b64encode(header).rstrip(b'=').decode()}.{claims}.{unsigned}"
    )


def test_the_signature_is_by_the_key_in_the_header(shared_world: World, shared_grant: str) -> None:
    """§4.3 (6)."""
    refuse(shared_world, shared_grant, dpop_proof(shared_world, KEY, signer=OTHER))


def test_a_private_key_is_never_sent(shared_world: World, shared_grant: str) -> None:
    """§4.3 (7)."""
    header = {"jwk": KEY.as_dict(private=True)}
    refuse(shared_world, shared_grant, dpop_proof(shared_world, KEY, header=header))


@pytest.mark.parametrize("method", ["GET", "post", "PUT", ""])
def test_the_proof_is_for_this_method(shared_world: World, shared_grant: str, method: str) -> None:
    """§4.3 (8): `htm`."""
    refuse(shared_world, shared_grant, dpop_proof(shared_world, KEY, htm=method))


def test_the_proof_is_for_this_endpoint(shared_world: World, shared_grant: str) -> None:
    """§4.3 (9): `htu`."""
    issuer = shared_world.issuer
    for url in (
        f"{issuer}/oauth/introspect",
        issuer,
        f"{issuer}/oauth/token/",
        "https://other.example/oauth/token",
        "",
    ):
        refuse(shared_world, shared_grant, dpop_proof(shared_world, KEY, htu=url))


def test_query_and_fragment_do_not_matter(shared_world: World, shared_grant: str) -> None:
    """§4.3 (9): `htu` is compared without them."""
    for more in ("?x=1", "#part", "?x=1#part"):
        proof = dpop_proof(shared_world, KEY, htu=f"{shared_world.services.token_endpoint}{more}")
        assert send(shared_world, shared_grant, proof).status_code == 200


def test_a_proof_is_good_for_a_while(shared_world: World, shared_grant: str) -> None:
    """§4.3 (11): `iat` within a window; the server allows some skew."""
    now = int(shared_world.clock.now().timestamp())
    for iat in (now - 60, now + 30):
        assert send(shared_world, shared_grant, dpop_proof(shared_world, KEY, iat=iat)).status_code == 200
    for iat in (now - 301, now + 31, "now", now + 0.5):
        refuse(shared_world, shared_grant, dpop_proof(shared_world, KEY, iat=iat))


def test_there_is_one_proof(shared_world: World, shared_grant: str) -> None:
    """§4.3 (1): not more than one DPoP header."""
    form = shared_world.form(shared_grant)
    headers = [("DPoP", dpop_proof(shared_world, KEY)), ("DPoP", dpop_proof(shared_world, KEY))]
    with shared_world.nothing_happens("dpop.several"):
        answer = shared_world.client.post("/oauth/token", data=form, headers=headers)
        shared_world.refuses(answer, "invalid_dpop_proof")


@pytest.mark.parametrize("proof", ["x", "", "a.b.c", "e30.e30.e30"])
def test_what_is_no_proof_is_refused(shared_world: World, shared_grant: str, proof: str) -> None:
    """§4.3 (2): a single well-formed JWT; §5: a header that is there is looked at, never passed over."""
    refuse(shared_world, shared_grant, proof)


# --- §8: nonces -----------------------------------------------------------------------------------------------


def test_a_proof_without_a_nonce_is_answered_with_one(shared_world: World) -> None:
    """§8: 400 `use_dpop_nonce` and a DPoP-Nonce header, with which the client tries again."""
    grant = shared_world.granted().grant
    answer = refuse(shared_world, grant, dpop_proof(shared_world, KEY, nonce=None), "use_dpop_nonce")
    assert answer.status_code == 400
    nonce = answer.headers["dpop-nonce"]
    # §8.1: NQCHAR of RFC 6749 Appendix A
    assert all(character in "!#[]^_`{|}~-." or character.isalnum() or character == "=" for character in nonce)
    assert send(shared_world, grant, dpop_proof(shared_world, KEY, nonce=nonce)).status_code == 200


@pytest.mark.parametrize("nonce", ["", "x", "A" * 32, 1, None, ["x"]], ids=str)
def test_a_nonce_that_the_server_never_made_is_answered_with_one(
    shared_world: World, shared_grant: str, nonce: object
) -> None:
    """§8 and §4.3 (10)."""
    answer = refuse(shared_world, shared_grant, dpop_proof(shared_world, KEY, nonce=nonce), "use_dpop_nonce")
    assert len(decoded(answer.headers["dpop-nonce"])) >= 16


def test_a_nonce_ends(sqlite_world: World) -> None:
    """§8.2: and the client is given another one."""
    grant = sqlite_world.granted().grant
    nonce = sqlite_world.services.nonces.make(sqlite_world.clock.now())
    sqlite_world.clock.advance(seconds=300)
    assert send(sqlite_world, grant, dpop_proof(sqlite_world, KEY, nonce=nonce)).status_code == 200
    sqlite_world.clock.advance(seconds=1)
    answer = refuse(sqlite_world, grant, dpop_proof(sqlite_world, KEY, nonce=nonce), "use_dpop_nonce")
    fresh = answer.headers["dpop-nonce"]
    assert send(sqlite_world, grant, dpop_proof(sqlite_world, KEY, nonce=fresh)).status_code == 200


def test_a_good_answer_brings_the_next_nonce(sqlite_world: World) -> None:
    """§8.2: a nonce in an answer of 200 is the one to use next."""
    grant = sqlite_world.granted().grant
    answer = send(sqlite_world, grant, dpop_proof(sqlite_world, KEY))
    sqlite_world.clock.advance(seconds=250)
    proof = dpop_proof(sqlite_world, KEY, nonce=answer.headers["dpop-nonce"])
    assert send(sqlite_world, grant, proof).status_code == 200


def test_who_sends_no_proof_needs_no_nonce(shared_world: World, shared_grant: str) -> None:
    """§8: nonces belong to proofs."""
    answer = send(shared_world, shared_grant, None)
    assert answer.status_code == 200
    assert "dpop-nonce" not in answer.headers


def test_a_server_may_ask_for_no_nonces(without_nonces: World) -> None:
    """§8: they are the server's choice."""
    proof = dpop_proof(without_nonces, KEY, nonce=None)
    assert send(without_nonces, without_nonces.granted().grant, proof).status_code == 200


# --- §11: replay ----------------------------------------------------------------------------------------------


def test_a_proof_is_good_once(world: World) -> None:
    """§11.1: the `jti` is remembered for as long as the proof could be accepted."""
    grant = world.granted().grant
    proof = dpop_proof(world, KEY, jti="once")
    assert send(world, grant, proof).status_code == 200
    refuse(world, grant, proof)
    refuse(world, grant, dpop_proof(world, KEY, jti="once"))
    assert send(world, grant, dpop_proof(world, OTHER, jti="once")).status_code == 200


def test_a_proof_that_came_with_a_refused_request_was_used(sqlite_world: World) -> None:
    """§11.1: whoever saw the request cannot send its proof again."""
    grant = sqlite_world.granted().grant
    proof = dpop_proof(sqlite_world, KEY)
    too_dear = sqlite_world.action(amount={"currency": "EUR", "value": "92.00"})
    answer = sqlite_world.exchange(grant, action=too_dear, headers={"DPoP": proof})
    sqlite_world.refuses(answer, "invalid_authorization_details")
    refuse(sqlite_world, grant, proof)


def test_the_key_of_a_proof_may_change_from_token_to_token(shared_world: World, shared_grant: str) -> None:
    """§5: the binding is the token's, not the client's."""
    for key in (KEY, OTHER):
        token = send(shared_world, shared_grant, dpop_proof(shared_world, key)).json()["access_token"]
        assert verified(shared_world, token)["cnf"]["jkt"] == key.thumbprint()
        assert public(key).keys() == {"kty", "crv", "x", "y"}
