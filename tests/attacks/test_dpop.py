"""Proofs of possession at the token endpoint (RFC 9449, threat A100)."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from authserver.actors import replay
from authserver.dpop import Nonces
from tests.attacks.forge import ABSENT, Key, claims_of, decoded, encoded, mac_text, public, weak_rsa
from tests.attacks.making import named
from tests.attacks.scene import GRANT, PROOF, Scene, set_up
from tests.world import MARKET, World

ALGORITHMS: dict[str, Key] = {
    "ES256": ECKey.generate_key("P-256"),
    "ES384": ECKey.generate_key("P-384"),
    "ES512": ECKey.generate_key("P-521"),
    "RS256": (RSA := RSAKey.generate_key(2048)),
    "PS256": RSA,
}


def proof_by(scene: Scene, key: Key, alg: str = "ES256", **claims: Any) -> str:
    """A proof of that key that is good but for `claims`."""
    return scene.draft(PROOF).changed({"alg": alg, "jwk": public(key)}, **claims).signed(key, alg)


# --- what a good proof does ----------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", list(ALGORITHMS))
def test_a_good_proof_binds_the_token_to_its_key(either_scene: Scene, alg: str) -> None:
    key = ALGORITHMS[alg]
    answer = either_scene.show(PROOF, proof_by(either_scene, key, alg))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["token_type"] == "DPoP"
    assert claims_of(body["access_token"])["cnf"] == {"jkt": key.thumbprint()}
    told = either_scene.world.introspect(body["access_token"])
    assert (told["token_type"], told["cnf"]) == ("DPoP", {"jkt": key.thumbprint()})


def test_without_a_proof_a_token_is_bound_to_no_key(either_scene: Scene) -> None:
    body = either_scene.show(GRANT, either_scene.grant).json()
    assert body["token_type"] == "Bearer"
    assert "cnf" not in claims_of(body["access_token"])


def test_the_nonce_dance(world: World) -> None:
    """RFC 9449 §8: without a nonce the answer is one, with it the token and the next."""
    scene = set_up(world)
    with world.nothing_happens("dpop.nonce"):
        answer = scene.show(PROOF, scene.draft(PROOF).changed(nonce=ABSENT).signed())
        world.refuses(answer, "use_dpop_nonce")
    scene.nonce = answer.headers["DPoP-Nonce"]
    answer = scene.show(PROOF, scene.draft(PROOF).signed())
    assert answer.status_code == 200, answer.text
    world.clock.advance(seconds=299)
    scene.nonce = answer.headers["DPoP-Nonce"]
    assert scene.show(PROOF, scene.draft(PROOF).signed()).status_code == 200


@pytest.mark.parametrize("action", ["payment_instrument.use", "personal_data.export"])
def test_A100_an_action_that_needs_a_proof_is_refused_without_one(world: World, action: str) -> None:
    scene = set_up(world)
    scene.grant = world.granted(agent="keyholder", actions=[action], datatypes=["email"]).grant
    asked = world.action(actions=[action], datatypes=["email"])
    form = world.form(scene.grant, action=asked, actor_token=scene.form(GRANT, scene.grant)["actor_token"])
    with world.nothing_happens("catalogue.sender_constraint"):
        world.refuses(world.post("/oauth/token", form), "invalid_dpop_proof")
    # As a parameter or as a token it is no proof either.
    for more in ({"DPoP": scene.draft(PROOF).signed()}, {"dpop_jkt": scene.proof_key.thumbprint()}):
        with world.nothing_happens("catalogue.sender_constraint"):
            world.refuses(world.post("/oauth/token", form | more), "invalid_dpop_proof")


def test_an_action_that_needs_a_proof_is_given_with_one(world: World) -> None:
    scene = set_up(world)
    grant = world.granted(agent="keyholder", actions=["payment_instrument.use"]).grant
    form = scene.form(PROOF, "")
    form |= world.form(
        grant, action=world.action(actions=["payment_instrument.use"]), actor_token=form["actor_token"]
    )
    answer = world.post("/oauth/token", form, {"DPoP": scene.draft(PROOF).signed()})
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "DPoP"


# --- A100: another request, another time ----------------------------------------------------------------------

OTHER_REQUESTS: dict[str, dict[str, object]] = {
    "htm GET": {"htm": "GET"},
    "htm in lower case": {"htm": "post"},
    "htm with a space": {"htm": "POST "},
    "htm absent": {"htm": ABSENT},
    "htm null": {"htm": None},
    "htm list": {"htm": ["POST"]},
    "htu absent": {"htu": ABSENT},
    "htu null": {"htu": None},
    "htu number": {"htu": 1},
    "htu empty": {"htu": ""},
    "htu of another server": {"htu": "https://other.example/oauth/token"},
    "htu relative": {"htu": "/oauth/token"},
}
OTHER_URLS: dict[str, Callable[[str], object]] = {
    "list": lambda url: [url],
    "trailing slash": lambda url: url + "/",
    "other endpoint": lambda url: url.replace("token", "introspect"),
    "issuer": lambda url: url.removesuffix("/oauth/token"),
    "prefix": lambda url: url[:-1],
    "https": lambda url: url.replace("http:", "https:"),
    "upper case": lambda url: url.upper(),
    "localhost": lambda url: url.replace("127.0.0.1", "localhost"),
    "user": lambda url: url.replace("//", "//a@"),
    "other port": lambda url: url.replace("/oauth", "0/oauth"),
    "dot segment": lambda url: url.replace("/oauth", "/x/../oauth"),
    "percent": lambda url: url.replace("token", "%74oken"),
    "line end": lambda url: url + "\n",
    "query in front": lambda url: f"?{url}",
}


@pytest.mark.parametrize("claims", named(OTHER_REQUESTS))
def test_A100_a_proof_for_another_request_is_refused(scene: Scene, claims: dict[str, object]) -> None:
    scene.refuses(PROOF, scene.draft(PROOF).changed(**claims).signed(), "htm_htu")


@pytest.mark.parametrize("other", named(OTHER_URLS))
def test_A100_a_proof_for_another_url_is_refused(scene: Scene, other: Callable[[str], object]) -> None:
    htu = other(scene.world.services.token_endpoint)
    scene.refuses(PROOF, scene.draft(PROOF).changed(htu=htu).signed(), "htm_htu")


@pytest.mark.parametrize("tail", ["?a=b", "#a", "?a#b", "?", "#?"])
def test_query_and_fragment_of_htu_are_not_compared(scene: Scene, tail: str) -> None:
    """RFC 9449 §4.3, point 9."""
    htu = scene.world.services.token_endpoint + tail
    assert scene.show(PROOF, scene.draft(PROOF).changed(htu=htu).signed()).status_code == 200


def test_A100_the_host_header_does_not_say_which_url_was_meant(scene: Scene) -> None:
    token = scene.draft(PROOF).changed(htu="http://evil.example/oauth/token").signed()
    headers = {"DPoP": token, "Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    with scene.world.nothing_happens("dpop.htm_htu"):
        answer = scene.world.post("/oauth/token", scene.form(PROOF, token), headers)
        scene.world.refuses(answer, "invalid_dpop_proof")


TIMES: dict[str, tuple[Callable[[int], object], str]] = {
    "too old": (lambda now: now - 301, "iat"),
    "a day old": (lambda now: now - 86_400, "iat"),
    "1970": (lambda now: 0, "iat"),
    "future": (lambda now: now + 31, "iat"),
    "tomorrow": (lambda now: now + 86_400, "iat"),
    "absent": (lambda now: ABSENT, "claims"),
    "null": (lambda now: None, "jwt.iat"),
    "text": (lambda now: str(now), "jwt.iat"),
    "float": (lambda now: float(now), "jwt.iat"),
    "true": (lambda now: True, "jwt.iat"),
    "negative": (lambda now: -now, "jwt.iat"),
    "milliseconds": (lambda now: now * 1000, "jwt.iat"),
}


@pytest.mark.parametrize(("issued", "reason"), [pytest.param(*case, id=name) for name, case in TIMES.items()])
def test_A100_a_proof_from_another_time_is_refused(
    scene: Scene, issued: Callable[[int], object], reason: str
) -> None:
    now = int(scene.world.clock.now().timestamp())
    # An `exp` far away, which RFC 9449 does not know, makes it no younger.
    scene.refuses(PROOF, scene.draft(PROOF).changed(iat=issued(now), exp=now + 9999).signed(), reason)


@pytest.mark.parametrize("age", [300, -30])
def test_a_proof_lives_for_five_minutes_with_half_a_minute_of_leeway(scene: Scene, age: int) -> None:
    now = int(scene.world.clock.now().timestamp())
    assert scene.show(PROOF, scene.draft(PROOF).changed(iat=now - age).signed()).status_code == 200


# --- A100: several proofs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["another", "the same", "empty", "no token"])
@pytest.mark.parametrize("name", ["DPoP", "dpop"])
def test_A100_two_proofs_are_none(scene: Scene, second: str, name: str) -> None:
    first = scene.draft(PROOF).signed()
    other = {"another": scene.draft(PROOF).signed(), "the same": first, "empty": "", "no token": "x"}[second]
    for pair in ((first, other), (other, first)):
        headers = [("DPoP", pair[0]), (name, pair[1])]
        with scene.world.nothing_happens("dpop.several"):
            answer = scene.world.client.post("/oauth/token", data=scene.form(PROOF, first), headers=headers)
            scene.world.refuses(answer, "invalid_dpop_proof")


@pytest.mark.parametrize("separator", [",", ", ", " , "])
def test_A100_two_proofs_in_one_header_are_none(scene: Scene, separator: str) -> None:
    both = separator.join(scene.draft(PROOF).signed() for _ in range(2))
    scene.refuses(PROOF, both, "several")


@pytest.mark.parametrize("text", ["", "x", "DPoP", "a.b.c", "e30.e30.e30", "null", "{}"])
def test_A100_what_is_no_proof_is_not_taken_for_none_at_all(scene: Scene, text: str) -> None:
    scene.refuses(PROOF, text)


def test_A100_two_proofs_in_one_value_split_by_a_space_are_none(scene: Scene) -> None:
    scene.refuses(PROOF, " ".join(scene.draft(PROOF).signed() for _ in range(2)), "jws.form")


# --- A100: keys ----------------------------------------------------------------------------------------------

EC, OKP = ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519")
SECP256K1 = ECKey.generate_key("secp256k1")


def _private(key: Key) -> dict[str, Any]:
    return dict(key.as_dict(private=True))


JWKS: dict[str, tuple[object, str]] = {
    "absent": (ABSENT, "header"),
    "null": (None, "jws.key_in_header"),
    "list": ([public(EC)], "jws.key_in_header"),
    "text": ("jwk", "jws.key_in_header"),
    "empty": ({}, "jwk.kty"),
    "private": (_private(EC), "jwk.private"),
    "private RSA": (_private(RSA), "jwk.private"),
    "d alone": (public(EC, d=""), "jwk.private"),
    "d null": (public(EC, d=None), "jwk.private"),
    "other primes": (public(RSA, oth=[]), "jwk.private"),
    "symmetric": ({"kty": "oct", "k": "AAAA"}, "jwk.private"),
    "symmetric without k": ({"kty": "oct"}, "jwk.kty"),
    "EC with k": (public(EC, k="AAAA"), "jwk.private"),
    "Ed25519": (dict(OKP.as_dict(private=False)), "jwk.kty"),
    "secp256k1": (public(SECP256K1), "jwk.curve"),
    "weak RSA": (public(weak_rsa()), "jwk.rsa_size"),
    "RSA with e = 1": (public(RSA, e="AQ"), "jwk.invalid"),
    "RSA with an even e": (public(RSA, e="Ag"), "jwk.invalid"),
    "RSA of 64 KiB": (public(RSA, n="A" * 9_000), "jwk.rsa_size"),
    "for encryption": (public(EC, use="enc"), "jwk.use"),
    "for signing": (public(EC, key_ops=["sign"]), "jwk.key_ops"),
    "of another algorithm": (public(EC, alg="ECDH-ES"), "jwk.alg"),
    "alg list": (public(EC, alg=["ES256"]), "jwk.invalid"),
    "kty list": (public(EC) | {"kty": ["EC"]}, "jwk.kty"),
    "kty RSA": (public(EC) | {"kty": "RSA"}, "jwk.invalid"),
    "curve null": (public(EC) | {"crv": None}, "jwk.curve"),
    "x null": (public(EC) | {"x": None}, "jwk.invalid"),
    "x number": (public(EC) | {"x": 5}, "jwk.invalid"),
    "x object": (public(EC) | {"x": {}}, "jwk.invalid"),
    "x empty": (public(EC) | {"x": ""}, "jwk.invalid"),
    "y absent": ({name: value for name, value in public(EC).items() if name != "y"}, "jwk.invalid"),
    "off the curve": (public(EC) | {"x": encoded(bytes(31) + b"\5")}, "jwk.invalid"),
    "infinity": (public(EC) | {"x": encoded(bytes(32)), "y": encoded(bytes(32))}, "jwk.invalid"),
    "n null": (public(RSA) | {"n": None}, "jwk.invalid"),
    "e object": (public(RSA) | {"e": {}}, "jwk.invalid"),
}


@pytest.mark.parametrize(("jwk", "reason"), [pytest.param(*case, id=name) for name, case in JWKS.items()])
def test_A100_a_key_that_proves_nothing_is_refused(scene: Scene, jwk: object, reason: str) -> None:
    draft = scene.draft(PROOF).changed({"jwk": jwk})
    key, alg = (
        (RSA, "RS256") if isinstance(jwk, dict) and jwk.get("kty") == "RSA" and "n" in jwk else (EC, "ES256")
    )
    scene.refuses(PROOF, draft.changed({"alg": alg}).signed(key, alg), reason)


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_A100_a_symmetric_algorithm_proves_nothing(scene: Scene, alg: str) -> None:
    secret = OctKey.generate_key(512)
    for jwk in (secret.as_dict(), public(EC)):
        draft = scene.draft(PROOF).changed({"alg": alg, "jwk": jwk})
        for key in (secret.raw_value, EC.as_pem(private=False), b""):
            scene.refuses(PROOF, mac_text(draft.signing_input, key, alg), "jws.alg")


def test_A100_a_proof_signed_with_another_key_than_it_shows_is_refused(scene: Scene) -> None:
    scene.refuses(PROOF, scene.draft(PROOF).signed(EC), "jws.signature")


@pytest.mark.parametrize(
    ("key", "alg", "member"),
    [(EC, "ES256", "x"), (EC, "ES256", "y"), (RSA, "RS256", "n"), (RSA, "RS256", "e")],
)
def test_A100_a_key_has_one_spelling_and_so_one_thumbprint(
    scene: Scene, key: Key, alg: str, member: str
) -> None:
    """RFC 7518 §6.2.1.2 and §6.3.1.1: coordinates of full length, numbers without zeros in front."""
    jwk = public(key)
    jwk[member] = encoded(b"\0" + decoded(jwk[member]))
    draft = scene.draft(PROOF).changed({"alg": alg, "jwk": jwk})
    scene.refuses(PROOF, draft.signed(key, alg), "jwk.invalid")


# --- A100: replay --------------------------------------------------------------------------------------------

IDS: dict[str, tuple[object, str]] = {
    "absent": (ABSENT, "claims"),
    "null": (None, "jwt.jti"),
    "empty": ("", "jwt.jti"),
    "number": (7, "jwt.jti"),
    "list": (["a"], "jwt.jti"),
    "257 characters": ("a" * 257, "jwt.jti"),
}


@pytest.mark.parametrize(("jti", "reason"), [pytest.param(*case, id=name) for name, case in IDS.items()])
def test_A100_a_proof_without_a_jti_could_be_replayed(scene: Scene, jti: object, reason: str) -> None:
    scene.refuses(PROOF, scene.draft(PROOF).changed(jti=jti).signed(), reason)


def test_A100_a_proof_is_used_once(either_scene: Scene) -> None:
    draft = either_scene.draft(PROOF)
    assert either_scene.show(PROOF, draft.signed()).status_code == 200
    either_scene.refuses(PROOF, draft.signed(), "replayed")
    # Nor is its jti used again with another time or nonce; only another key has jtis of its own.
    either_scene.refuses(PROOF, draft.changed(iat=draft.claims["iat"] - 1, x=1).signed(), "replayed")
    other = draft.changed({"jwk": public(EC)})
    assert either_scene.show(PROOF, other.signed(EC)).status_code == 200


def test_A100_a_proof_is_used_up_by_a_request_that_is_refused(either_scene: Scene) -> None:
    world, token = either_scene.world, either_scene.draft(PROOF).signed()
    dear = either_scene.form(PROOF, token) | {
        "authorization_details": world.form(
            "", action=world.action(amount={"currency": "EUR", "value": "99.00"})
        )["authorization_details"]
    }
    with world.nothing_happens("limits.per_action"):
        world.refuses(world.post("/oauth/token", dear, {"DPoP": token}), "invalid_authorization_details")
    either_scene.refuses(PROOF, token, "replayed")


def test_A100_a_proof_is_used_up_by_an_exchange_by_scope_too(either_scene: Scene) -> None:
    token = either_scene.draft(PROOF).signed()
    form = either_scene.form(PROOF, token) | {"scope": "catalog.search", "resource": MARKET}
    del form["authorization_details"]
    assert either_scene.world.post("/oauth/token", form, {"DPoP": token}).status_code == 200
    either_scene.refuses(PROOF, token, "replayed")


def test_A100_of_many_requests_with_one_proof_one_is_answered(world: World) -> None:
    scene = set_up(world)
    token, before = scene.draft(PROOF).signed(), world.rows()
    answers: list[int] = []

    def show() -> None:
        answers.append(scene.show(PROOF, token).status_code)

    threads = [threading.Thread(target=show) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [400] * 7
    assert world.rows().actions == before.actions + 1


def test_A100_a_proof_is_remembered_for_as_long_as_it_could_be_shown(world: World) -> None:
    scene = set_up(world)
    now = int(world.clock.now().timestamp())
    token = scene.draft(PROOF).changed(iat=now + 30).signed()
    assert scene.show(PROOF, token).status_code == 200
    world.clock.advance(seconds=300)  # the last instant at which its nonce is good
    world.services.database.write(lambda connection: replay.forget(connection, world.clock.now(), 1000))
    scene.refuses(PROOF, token, "replayed")
    world.clock.advance(seconds=31)
    scene.refuses(PROOF, token, "iat")


# --- A100: nonces --------------------------------------------------------------------------------------------


def _flipped(text: str, position: int) -> str:
    return text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]


NONCES: dict[str, Callable[[str], object]] = {
    "absent": lambda nonce: ABSENT,
    "null": lambda nonce: None,
    "empty": lambda nonce: "",
    "number": lambda nonce: 1,
    "list": lambda nonce: [nonce],
    "made up": lambda nonce: "A" * 32,
    "another time": lambda nonce: _flipped(nonce, 10),
    "another tag": lambda nonce: _flipped(nonce, 31),
    "cut off": lambda nonce: nonce[:-1],
    "longer": lambda nonce: nonce + "A",
    "time without tag": lambda nonce: nonce[:11],
    "lower case": lambda nonce: nonce.lower(),
    "no base64": lambda nonce: "!" * 32,
    "not ASCII": lambda nonce: "é" * 32,
    "padded": lambda nonce: nonce[:31] + "=",
}


@pytest.mark.parametrize("change", named(NONCES))
def test_A100_a_nonce_that_this_server_did_not_make_is_answered_with_one(
    scene: Scene, change: Callable[[str], object]
) -> None:
    _refused_for_its_nonce(scene, change(scene.nonce))


@pytest.mark.parametrize("age", [301, 3600, -31])
def test_A100_a_nonce_from_another_time_is_answered_with_a_fresh_one(scene: Scene, age: int) -> None:
    world = scene.world
    _refused_for_its_nonce(scene, world.services.nonces.make(world.clock.now() - timedelta(seconds=age)))


def test_A100_a_nonce_of_another_server_is_answered_with_one(scene: Scene) -> None:
    other = Nonces(b"another server's secret" * 2, timedelta(seconds=300))
    _refused_for_its_nonce(scene, other.make(scene.world.clock.now()))


def _refused_for_its_nonce(scene: Scene, nonce: object) -> None:
    with scene.world.nothing_happens("dpop.nonce"):
        answer = scene.show(PROOF, scene.draft(PROOF).changed(nonce=nonce).signed())
        scene.world.refuses(answer, "use_dpop_nonce")
    fresh = answer.headers["DPoP-Nonce"]
    assert fresh != nonce
    assert scene.show(PROOF, scene.draft(PROOF).changed(nonce=fresh).signed()).status_code == 200


def test_A100_a_bad_proof_learns_no_nonce(scene: Scene) -> None:
    answer = scene.show(PROOF, scene.draft(PROOF).signed(EC))
    assert "DPoP-Nonce" not in answer.headers


# --- A100 with an Idempotency-Key -----------------------------------------------------------------------------


def test_A100_a_retry_keeps_the_key_of_its_proof(either_scene: Scene) -> None:
    world = either_scene.world
    form = either_scene.form(PROOF, "")

    def send(proof: str | None, key: str) -> Any:
        headers = {"Idempotency-Key": key} | ({} if proof is None else {"DPoP": proof})
        return world.post("/oauth/token", form, headers)

    first = send(either_scene.draft(PROOF).signed(), "bound").json()
    again = send(either_scene.draft(PROOF).signed(), "bound").json()
    assert again["action_id"] == first["action_id"]
    assert claims_of(again["access_token"]) == claims_of(first["access_token"])
    for other in (None, proof_by(either_scene, EC)):
        with world.nothing_happens("idempotency_key.reused"):
            world.refuses(send(other, "bound"), "invalid_request")
    assert send(None, "bearer").json()["token_type"] == "Bearer"
    with world.nothing_happens("idempotency_key.reused"):
        world.refuses(send(either_scene.draft(PROOF).signed(), "bearer"), "invalid_request")
