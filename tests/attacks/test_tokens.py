"""Forged, malformed and misplaced tokens, at every place that takes a signed token (threats A01 to A15)."""

import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from joserfc import jwe
from joserfc.jwk import ECKey, RSAKey

from authserver.actors import agents
from authserver.actors.client_authentication import JWT_SPIFFE
from authserver.actors.workload_files import make_assertion
from tests.attacks.forge import (
    ABSENT,
    P256_ORDER,
    P256_PRIME,
    Draft,
    as_bytes,
    certificate,
    claims_of,
    der_signature,
    encoded,
    faces,
    header_of,
    mac_text,
    public,
    r_and_s,
    sign_text,
    signature_of,
    signing_input,
    twisted,
    with_numbers,
    with_signature,
)
from tests.attacks.key_server import KeyServer
from tests.attacks.key_server import key_server as running_key_server
from tests.attacks.making import named
from tests.attacks.scene import (
    ASSERTION,
    AT_EXCHANGE,
    AT_INTROSPECTION,
    AT_REVOCATION,
    CLIENT,
    EACH_ASSERTION,
    EACH_READER,
    EVERYWHERE,
    GRANT,
    KEYHOLDER,
    PRIVATE_KEY_JWT,
    PROOF,
    SVID_AT_INTROSPECTION,
    SVID_AT_REVOCATION,
    WORKLOAD,
    Place,
    Scene,
    other_domain,
)
from tests.world import BASKET_HELPER, MARKET, World, make_agent, running_world

Change = Callable[[Draft], str]
ATTACKER = ECKey.generate_key("P-256")
ATTACKER_RSA = RSAKey.generate_key(2048)


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    """The attacker's own server."""
    with running_key_server() as running:
        yield running


def at(*places: Place) -> pytest.MarkDecorator:
    """Run a test at each of these places."""
    return pytest.mark.parametrize("place", [pytest.param(place, id=place.name) for place in places])


@at(*EVERYWHERE)
def test_each_place_takes_the_token_that_the_attacks_start_from(scene: Scene, place: Place) -> None:
    answer = scene.show(place, scene.draft(place).signed())
    assert answer.status_code == 200, answer.text


# --- A01: no signature --------------------------------------------------------------------------------------

NO_ALGORITHM = [
    "none",
    "None",
    "NONE",
    "nOnE",
    "",
    "none ",
    None,
    ["none"],
    ["ES256"],
    {"alg": "ES256"},
    0,
    ABSENT,
]
UNSIGNED: dict[str, Change] = {
    "nothing after the last dot": lambda draft: f"{draft.signing_input}.",
    "no last dot": lambda draft: draft.signing_input,
    "a signature of one zero byte": lambda draft: f"{draft.signing_input}.AA",
}


@at(*EACH_READER)
@pytest.mark.parametrize("alg", NO_ALGORITHM, ids=lambda alg: "absent" if alg is ABSENT else repr(alg))
@pytest.mark.parametrize("signature", ["", "kept"], ids=["no signature", "a signature"])
def test_A01_an_algorithm_that_is_none_is_no_signature(
    scene: Scene, place: Place, alg: object, signature: str
) -> None:
    draft = scene.draft(place).changed({"alg": alg})
    token = draft.signed() if signature == "kept" else f"{draft.signing_input}.{signature}"
    scene.refuses(place, token, "jws.alg" if signature else "jws.form")


@at(*EVERYWHERE)
@pytest.mark.parametrize("unsign", named(UNSIGNED))
def test_A01_an_empty_signature_is_none(scene: Scene, place: Place, unsign: Change) -> None:
    token = unsign(scene.draft(place))
    scene.refuses(place, token, "jws.signature" if token.endswith(".AA") else "jws.form")


# --- A02: a public key as a shared secret --------------------------------------------------------------------


@at(*EACH_READER)
@pytest.mark.parametrize(
    ("alg", "face"), [("HS384", "PEM"), ("HS512", "PEM"), *(("HS256", face) for face in faces(ATTACKER))]
)
def test_A02_an_hmac_keyed_with_a_public_key_is_no_signature(
    scene: Scene, place: Place, alg: str, face: str
) -> None:
    draft = scene.draft(place).changed({"alg": alg})
    scene.refuses(place, mac_text(draft.signing_input, faces(draft.key)[face], alg), "jws.alg")


@at(*EACH_READER)
def test_A02_an_hmac_under_the_name_of_an_allowed_algorithm_is_no_signature(
    scene: Scene, place: Place
) -> None:
    draft = scene.draft(place)
    scene.refuses(place, mac_text(draft.signing_input, faces(draft.key)["PEM"]), "jws.signature")


@at(*EACH_READER)
@pytest.mark.parametrize(
    "alg", ["EdDSA", "Ed25519", "ES256K", "HS1", "RS1", "RSA1_5", "es256", "ES256 ", "dir"]
)
def test_A02_an_algorithm_that_nobody_configured_is_never_tried(scene: Scene, place: Place, alg: str) -> None:
    scene.refuses(place, scene.draft(place).changed({"alg": alg}).signed(), "jws.alg")


@at(*WORKLOAD)
@pytest.mark.parametrize(
    ("kid", "alg"), [("p384", "ES384"), ("rsa", "PS256"), ("rsa", "RS384"), ("rsa", "RS512")], ids=str
)
def test_A02_a_good_signature_by_an_algorithm_that_the_domain_does_not_list_is_refused(
    scene: Scene, place: Place, kid: str, alg: str
) -> None:
    draft = scene.draft(place).changed({"alg": alg, "kid": kid})
    scene.refuses(place, draft.signed(scene.other_keys(place)[kid], alg), "jws.alg")


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS384", "PS512"])
def test_A02_a_proof_by_an_algorithm_that_the_metadata_does_not_list_is_refused(
    scene: Scene, alg: str
) -> None:
    draft = scene.draft(PROOF).changed({"alg": alg, "jwk": public(ATTACKER_RSA)})
    scene.refuses(PROOF, draft.signed(ATTACKER_RSA, alg), "header")


# --- A03: a key of another type or curve ---------------------------------------------------------------------


@at(*WORKLOAD, *PRIVATE_KEY_JWT)
@pytest.mark.parametrize(
    ("kid", "alg", "signer", "by"),
    [
        ("p384", "ES256", "p384", "ES256"),
        ("p384", "ES256", "p384", "ES384"),
        ("p384", "ES256", "p256", "ES256"),
        ("rsa", "ES256", "p256", "ES256"),
        ("rsa", "ES256", "rsa", "RS256"),
        ("p256", "RS256", "rsa", "RS256"),
        ("p256", "RS256", "p256", "ES256"),
        ("p384", "RS256", "rsa", "RS256"),
    ],
)
def test_A03_a_key_of_the_right_id_and_another_type_or_curve_is_no_key(
    scene: Scene, place: Place, kid: str, alg: str, signer: str, by: str
) -> None:
    draft = scene.draft(place).changed({"alg": alg, "kid": kid})
    scene.refuses(place, draft.signed(scene.other_keys(place)[signer], by), "jws.key")


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES384", "ES512"])
def test_A03_the_servers_own_key_verifies_nothing_but_its_own_algorithm(scene: Scene, alg: str) -> None:
    scene.refuses(GRANT, scene.draft(GRANT).changed({"alg": alg}).signed(), "jws.alg")


@pytest.mark.parametrize(
    ("alg", "key", "by"),
    [
        ("ES256", ECKey.generate_key("P-384"), "ES384"),
        ("ES256", ATTACKER_RSA, "RS256"),
        ("RS256", ATTACKER, "ES256"),
        ("ES384", ATTACKER, "ES256"),
    ],
    ids=["ES256 with P-384", "ES256 with RSA", "RS256 with P-256", "ES384 with P-256"],
)
def test_A03_a_proof_whose_key_is_of_another_type_or_curve_is_refused(
    scene: Scene, alg: str, key: ECKey | RSAKey, by: str
) -> None:
    scene.refuses(
        PROOF, scene.draft(PROOF).changed({"alg": alg, "jwk": public(key)}).signed(key, by), "jws.key"
    )


@at(*EVERYWHERE)
def test_A03_another_key_of_the_right_type_is_not_the_key(scene: Scene, place: Place) -> None:
    scene.refuses(place, scene.draft(place).signed(ATTACKER), "jws.signature")


# --- A04: signatures that are none ---------------------------------------------------------------------------

SIGNATURES: dict[str, Change] = {
    "r = s = 0": lambda draft: with_numbers(draft.signed(), 0, 0),
    "r = 0": lambda draft: with_numbers(token := draft.signed(), 0, r_and_s(token)[1]),
    "s = 0": lambda draft: with_numbers(token := draft.signed(), r_and_s(token)[0], 0),
    "r = s = 1": lambda draft: with_numbers(draft.signed(), 1, 1),
    "r = s = n": lambda draft: with_numbers(draft.signed(), P256_ORDER, P256_ORDER),
    "r = n": lambda draft: with_numbers(token := draft.signed(), P256_ORDER, r_and_s(token)[1]),
    "s = n": lambda draft: with_numbers(token := draft.signed(), r_and_s(token)[0], P256_ORDER),
    "s = n - 1": lambda draft: with_numbers(token := draft.signed(), r_and_s(token)[0], P256_ORDER - 1),
    "r = n + 1": lambda draft: with_numbers(token := draft.signed(), P256_ORDER + 1, r_and_s(token)[1]),
    "r = p": lambda draft: with_numbers(token := draft.signed(), P256_PRIME, r_and_s(token)[1]),
    "all ones": lambda draft: with_signature(draft.signed(), b"\xff" * 64),
    "r and s swapped": lambda draft: with_numbers(token := draft.signed(), *reversed(r_and_s(token))),
    "little-endian": lambda draft: with_signature(token := draft.signed(), signature_of(token)[::-1]),
    "DER": lambda draft: with_signature(token := draft.signed(), der_signature(token)),
    "a byte short": lambda draft: with_signature(token := draft.signed(), signature_of(token)[:-1]),
    "without its first byte": lambda draft: with_signature(token := draft.signed(), signature_of(token)[1:]),
    "a byte long": lambda draft: with_signature(token := draft.signed(), signature_of(token) + b"\0"),
    "a zero in front": lambda draft: with_signature(token := draft.signed(), b"\0" + signature_of(token)),
    "of 66-byte numbers": lambda draft: with_signature(
        token := draft.signed(), b"".join(number.to_bytes(33) for number in r_and_s(token))
    ),
    "r alone": lambda draft: with_signature(token := draft.signed(), signature_of(token)[:32]),
    "twice": lambda draft: with_signature(token := draft.signed(), signature_of(token) * 2),
    "of other claims": lambda draft: with_signature(
        draft.signed(), signature_of(draft.changed(x=1).signed())
    ),
    "over the claims alone": lambda draft: with_signature(
        draft.signed(), signature_of(sign_text(draft.signing_input.split(".")[1], draft.key))
    ),
}


@at(*EACH_READER)
@pytest.mark.parametrize("forge", named(SIGNATURES))
def test_A04_an_ecdsa_signature_that_is_none_is_refused(scene: Scene, place: Place, forge: Change) -> None:
    scene.refuses(place, forge(scene.draft(place)), "jws.signature")


@at(ASSERTION, SVID_AT_REVOCATION, AT_INTROSPECTION, AT_EXCHANGE)
@pytest.mark.parametrize("length", [1, 255, 256, 257, 512])
@pytest.mark.parametrize("byte", [0, 1, 255])
def test_A04_an_rsa_signature_that_is_none_is_refused(
    scene: Scene, place: Place, length: int, byte: int
) -> None:
    draft = scene.draft(place).changed({"alg": "RS256", "kid": "rsa"})
    scene.refuses(place, f"{draft.signing_input}.{encoded(bytes([byte]) * length)}", "jws.signature")


# --- A05: keys in the header, or named by it -----------------------------------------------------------------

ELSEWHERE = "http://127.0.0.1:1/keys.json"  # stands for the attacker's server
IN_HEADER: dict[str, dict[str, object]] = {
    "jwk": {"jwk": public(ATTACKER)},
    "jwk without kid": {"jwk": public(ATTACKER), "kid": ABSENT},
    "jwk with an unknown kid": {"jwk": public(ATTACKER), "kid": "attacker"},
    "jwk with the known kid in it": {"jwk": public(ATTACKER, kid="p256")},
    "jwk that is null": {"jwk": None},
    "x5c": {"x5c": [certificate(ATTACKER)]},
    "x5c without kid": {"x5c": [certificate(ATTACKER)], "kid": ABSENT},
    "jku": {"jku": ELSEWHERE},
    "jku with an unknown kid": {"jku": ELSEWHERE, "kid": "attacker"},
    "jku without kid": {"jku": ELSEWHERE, "kid": ABSENT},
    "jku of a file": {"jku": "file:///etc/passwd", "kid": "attacker"},
    "x5u": {"x5u": ELSEWHERE},
    "all of them": {
        "jwk": public(ATTACKER),
        "jku": ELSEWHERE,
        "x5u": ELSEWHERE,
        "x5c": [certificate(ATTACKER)],
    },
}


@at(*EACH_READER)
@pytest.mark.parametrize("header", named(IN_HEADER))
def test_A05_a_key_in_the_header_or_named_by_it_is_never_used(
    scene: Scene, place: Place, header: dict[str, object], key_server: KeyServer
) -> None:
    if place is PROOF and "jwk" in header and header.keys() <= {"jwk", "kid"}:
        header = {"jwk": None, "jku": ELSEWHERE}  # a proof's own key is its `jwk`; nothing else may name one
    here = {name: key_server.url if value == ELSEWHERE else value for name, value in header.items()}
    scene.refuses(place, scene.draft(place).changed(here).signed(ATTACKER), "jws.key_in_header")
    assert key_server.connections == 0


@at(ASSERTION, GRANT, *CLIENT)
def test_A05_a_kid_that_is_a_url_is_only_a_name(scene: Scene, place: Place, key_server: KeyServer) -> None:
    draft = scene.draft(place).changed({"kid": key_server.url})
    scene.refuses(place, draft.signed(ATTACKER), "jws.unknown_kid")
    assert key_server.connections == 0


@at(*WORKLOAD, *PRIVATE_KEY_JWT)
def test_A05_an_issuer_that_is_the_attackers_server_is_never_asked(
    scene: Scene, place: Place, key_server: KeyServer
) -> None:
    claims = {"iss": f"http://127.0.0.1:{key_server.port}", "sub": "keyholder", "jku": key_server.url}
    scene.refuses(place, scene.draft(place).changed(**claims).signed(ATTACKER), "assertion.unknown_issuer")
    assert key_server.connections == 0


@pytest.mark.parametrize(
    "header",
    [{"jwk": public(ATTACKER)}, {}, {"kid": ABSENT}, {"jku": ELSEWHERE}, {"x5c": [certificate(ATTACKER)]}],
    ids=lambda header: ", ".join(header) or "nothing",
)
def test_A05_where_no_key_of_ours_is_found_no_other_takes_its_place(
    sqlite_url: str, tmp_path: Path, header: dict[str, object], key_server: KeyServer
) -> None:
    """CVE-2026-27962: `key=None` made Authlib take the header's."""
    source = {"jwks_url": key_server.url, "allow_private_network": True}
    empty = {"name": "empty.example", "kind": "spiffe", "algorithms": ["ES256"]} | source
    with running_world(sqlite_url, tmp_path / "world", trust_domains=[empty]) as world:
        subject = "spiffe://empty.example/agent"
        agent = make_agent("empty", subject, world.clock.now(), trust_domain="empty.example")
        world.services.database.write(lambda connection: agents.create(connection, agent))
        grant = world.granted(agent="empty").grant
        draft = Draft({"alg": "ES256", "kid": "p256"}, claims_of(world.assertion(subject)), ATTACKER)
        here = {
            name: key_server.url + "?attacker" if value == ELSEWHERE else value
            for name, value in header.items()
        }
        with world.nothing_happens():
            world.refuses(world.exchange(grant, actor_token=draft.changed(here).signed()), "invalid_request")
    assert all(request.startswith("GET /keys.json HTTP/1.1\r\n") for request in key_server.requests)
    assert len(key_server.requests) <= 1


# --- A06: critical headers -----------------------------------------------------------------------------------

CRITICAL: dict[str, dict[str, object]] = {
    "unknown name": {"crit": ["bork"], "bork": True},
    "absent header": {"crit": ["bork"]},
    "empty": {"crit": []},
    "text": {"crit": "bork", "bork": True},
    "object": {"crit": {"bork": True}, "bork": True},
    "null": {"crit": None},
    "number": {"crit": 1},
    "list of numbers": {"crit": [1]},
    "registered name": {"crit": ["alg"]},
    "itself": {"crit": ["crit"]},
    "claim": {"crit": ["exp"], "exp": 1},
    "b64 true": {"crit": ["b64"], "b64": True},
}


@at(*EACH_READER)
@pytest.mark.parametrize("header", named(CRITICAL))
def test_A06_nothing_in_the_header_may_be_critical(
    scene: Scene, place: Place, header: dict[str, object]
) -> None:
    scene.refuses(place, scene.draft(place).changed(header).signed(), "jws.crit")


# --- A07: what is no compact JWS of claims -------------------------------------------------------------------


def _encrypted(draft: Draft) -> str:
    recipient = ECKey.import_key(public(draft.key))
    return jwe.encrypt_compact({"alg": "ECDH-ES", "enc": "A128GCM"}, as_bytes(draft.claims), recipient)


def _flattened(draft: Draft) -> str:
    protected, payload, signature = draft.signed().split(".")
    return json.dumps({"payload": payload, "protected": protected, "signature": signature})


def _general(draft: Draft) -> str:
    protected, payload, signature = draft.signed().split(".")
    return json.dumps({"payload": payload, "signatures": [{"protected": protected, "signature": signature}]})


def _unencoded(draft: Draft) -> str:
    # RFC 7797: the payload as it is; claims without a dot would even fit between the dots.
    header = encoded(as_bytes({**draft.header, "b64": False, "crit": ["b64"]}))
    claims = json.dumps({"sub": "a"})
    return sign_text(f"{header}.{claims}", draft.key)


NOT_COMPACT: dict[str, tuple[Change, str]] = {
    "JWE": (_encrypted, "jws.form"),
    "JWE header": (lambda draft: draft.changed({"enc": "A128GCM"}).signed(), "jws.nested"),
    "flattened JSON": (_flattened, "jws.form"),
    "general JSON": (_general, "jws.form"),
    "nested, as cty says": (
        lambda draft: Draft({**draft.header, "cty": "JWT"}, draft.claims, draft.key).signed_bytes(
            claims=draft.signed().encode()
        ),
        "jws.nested",
    ),
    "nested, unsaid": (lambda draft: draft.signed_bytes(claims=draft.signed().encode()), "jws.claims"),
    "claims with cty": (lambda draft: draft.changed({"cty": "JWT"}).signed(), "jws.nested"),
    "zip": (
        lambda draft: Draft({**draft.header, "zip": "DEF"}, {}, draft.key).signed_bytes(
            claims=zlib.compress(as_bytes(draft.claims))[2:-4]
        ),
        "jws.nested",
    ),
    "b64 false": (lambda draft: draft.changed({"b64": False}).signed(), "jws.crit"),
    "b64 false in crit": (lambda draft: draft.changed({"b64": False, "crit": ["b64"]}).signed(), "jws.crit"),
    "unencoded payload": (_unencoded, "jws.form"),
    "detached payload": (lambda draft: "{0}..{2}".format(*draft.signed().split(".")), "jws.form"),
    "claims that are a list": (lambda draft: draft.signed_bytes(claims=b"[]"), "jws.claims"),
    "claims that are null": (lambda draft: draft.signed_bytes(claims=b"null"), "jws.claims"),
    "claims in UTF-16": (
        lambda draft: draft.signed_bytes(claims=json.dumps(draft.claims).encode("utf-16")),
        "jws.claims",
    ),
    "a header that is a list": (lambda draft: draft.signed_bytes(header=b"[]"), "jws.header"),
    "a header that is no JSON": (lambda draft: draft.signed_bytes(header=b"{'alg':'ES256'}"), "jws.header"),
}


@at(*EACH_READER)
@pytest.mark.parametrize(
    ("change", "reason"), [pytest.param(*case, id=name) for name, case in NOT_COMPACT.items()]
)
def test_A07_what_is_no_compact_jws_of_claims_is_no_token(
    scene: Scene, place: Place, change: Change, reason: str
) -> None:
    token = change(scene.draft(place))
    # RFC 9449 §4.3: a comma in the header would be a second proof.
    scene.refuses(place, token, "several" if place is PROOF and "," in token else reason)


# --- A08: size and depth -------------------------------------------------------------------------------------


def _deep(brackets: int) -> bytes:
    return b'{"alg":"ES256","x":' + b"[" * brackets + b"]" * brackets + b"}"


def _long(member: str, length: int) -> bytes:
    return json.dumps({"alg": "ES256", member: "a" * length}).encode()


HUGE: dict[str, tuple[Change, str]] = {
    "a header of 16 KiB": (lambda draft: draft.signed_bytes(header=_long("x", 12_400)), "jws.size"),
    "claims of 16 KiB": (lambda draft: draft.changed(x="a" * 12_400).signed(), "jws.size"),
    "a signature of 16 KiB": (lambda draft: with_signature(draft.signed(), b"\0" * 12_400), "jws.size"),
    "a header of 33 levels": (lambda draft: draft.signed_bytes(header=_deep(32)), "jws.header"),
    "claims of 33 levels": (lambda draft: draft.signed_bytes(claims=_deep(32)), "jws.claims"),
    "a header of 5,000 levels": (lambda draft: draft.signed_bytes(header=_deep(5_000)), "jws.header"),
    "claims of 5,000 levels": (lambda draft: draft.signed_bytes(claims=_deep(5_000)), "jws.claims"),
    "10,000 levels that never end": (lambda draft: draft.signed_bytes(claims=b"[" * 10_000), "jws.claims"),
    "10,000 levels": (lambda draft: draft.signed_bytes(claims=_deep(10_000)), "jws.size"),
    "2,000 objects deep": (
        lambda draft: draft.signed_bytes(claims=b'{"":' * 2_000 + b"1" + b"}" * 2_000),
        "jws.claims",
    ),
    "a number of 10,000 digits": (
        lambda draft: draft.signed_bytes(claims=b'{"exp":' + b"9" * 10_000 + b"}"),
        "jws.claims",
    ),
    "a number with a huge exponent": (
        lambda draft: draft.signed_bytes(claims=b'{"exp":1e999999999}'),
        "jws.claims",
    ),
}


@at(*EACH_READER)
@pytest.mark.parametrize(("change", "reason"), [pytest.param(*case, id=name) for name, case in HUGE.items()])
def test_A08_a_token_beyond_size_or_depth_is_refused_at_once(
    scene: Scene, place: Place, change: Change, reason: str
) -> None:
    token = change(scene.draft(place))
    begun = time.monotonic()
    scene.refuses(place, token, reason)
    assert time.monotonic() - begun < 1


@cache
def _a_million_members() -> bytes:
    return b"{" + b",".join(b'"%d":0' % number for number in range(1_000_000)) + b"}"


MEGABYTES: dict[str, Change] = {
    "header": lambda draft: draft.changed({"x": "a" * 2_000_000}).signed(),
    "payload": lambda draft: draft.changed(x="a" * 2_000_000).signed(),
    "signature": lambda draft: with_signature(draft.signed(), b"\0" * 2_000_000),
    "a million members": lambda draft: draft.signed_bytes(claims=_a_million_members()),
    "a million dots": lambda draft: draft.signed() + "." * 1_000_000,
}


@at(*(place for place in EACH_READER if place is not PROOF))
@pytest.mark.parametrize("part", list(MEGABYTES))
def test_A08_megabytes_are_refused_before_anything_is_read(scene: Scene, place: Place, part: str) -> None:
    token = MEGABYTES[part](scene.draft(place))
    begun = time.monotonic()
    with scene.world.nothing_happens("form.size", place.event):
        scene.world.refuses(scene.show(place, token), "invalid_request", status=413)
    assert time.monotonic() - begun < 1


def test_A08_a_token_of_exactly_16_kib_is_read(scene: Scene) -> None:
    draft = scene.draft(ASSERTION)
    lengths = {length: len(draft.changed(x="a" * length).signed()) for length in range(11_500, 12_300)}
    fitting = max(length for length, size in lengths.items() if size <= 16_384)
    assert lengths[fitting] >= 16_383
    answer = scene.show(ASSERTION, draft.changed(x="a" * fitting).signed())
    assert answer.status_code == 200, answer.text


# --- A09: duplicate members ----------------------------------------------------------------------------------


def _twice(part: Mapping[str, object], name: str, first: object, *, spelled: str | None = None) -> bytes:
    """The members with one of them twice: first with another value, then with its own."""
    text = as_bytes({name: first}).replace(name.encode(), (spelled or name).encode(), 1)
    return text[:-1] + b"," + as_bytes(part)[1:]


@at(*EACH_READER)
@pytest.mark.parametrize("spelled", ["alg", r"a\u006cg", r"\u0061\u006c\u0067"])
@pytest.mark.parametrize("first", ["none", "HS256", "ES256", None])
def test_A09_an_algorithm_said_twice_is_refused(
    scene: Scene, place: Place, spelled: str, first: object
) -> None:
    draft = scene.draft(place)
    scene.refuses(
        place, draft.signed_bytes(header=_twice(draft.header, "alg", first, spelled=spelled)), "jws.header"
    )


@at(*EACH_READER)
@pytest.mark.parametrize("name", ["kid", "typ", "jwk", "crit", "x"])
def test_A09_a_header_member_said_twice_is_refused(scene: Scene, place: Place, name: str) -> None:
    draft = scene.draft(place)
    draft = draft.changed({name: draft.header.get(name, "y")})
    scene.refuses(place, draft.signed_bytes(header=_twice(draft.header, name, "z")), "jws.header")


@at(*EACH_READER)
@pytest.mark.parametrize(
    "name",
    ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "may_act", "client_id", "htm", "htu", "nonce", "x"],
)
def test_A09_a_claim_said_twice_is_refused(scene: Scene, place: Place, name: str) -> None:
    draft = scene.draft(place)
    draft = draft.changed(**{name: draft.claims.get(name, "y")})
    scene.refuses(place, draft.signed_bytes(claims=_twice(draft.claims, name, "z")), "jws.claims")
    last = as_bytes(draft.claims)[:-1] + b"," + as_bytes({name: "z"})[1:]
    scene.refuses(place, draft.signed_bytes(claims=last), "jws.claims")


@at(*EACH_READER)
def test_A09_a_member_said_twice_within_another_is_refused(scene: Scene, place: Place) -> None:
    draft = scene.draft(place)
    inner = b'{"sub":"a","sub":"b"}'
    claims = as_bytes(draft.claims)[:-1] + b',"x":[{"act":' + inner + b"}]}"
    scene.refuses(place, draft.signed_bytes(claims=claims), "jws.claims")
    header = as_bytes(draft.header)[:-1] + b',"x":' + inner + b"}"
    scene.refuses(place, draft.signed_bytes(header=header), "jws.header")


# --- A10: base64 in more than one spelling -------------------------------------------------------------------

HEADER, CLAIMS, SIGNATURE = range(3)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _respelled(draft: Draft, part: int, change: Callable[[str], str]) -> str:
    """The token with one part spelled otherwise; the signature is good over the text as it then stands."""
    texts = draft.signing_input.split(".")
    if part != SIGNATURE:
        texts[part] = change(texts[part])
        return sign_text(".".join(texts), draft.key)
    signed, _, signature = draft.signed().rpartition(".")
    return f"{signed}.{change(signature)}"


def _with_a_loose_end(draft: Draft) -> Draft:
    """The same, padded until neither header nor claims fill their last base64 group."""
    while any(len(part) % 4 == 0 for part in draft.signing_input.split(".")):
        header, claims = draft.signing_input.split(".")
        grow = {"x": str(draft.header.get("x", "")) + "a"} if len(header) % 4 == 0 else {}
        draft = draft.changed(
            grow, **({"x": str(draft.claims.get("x", "")) + "a"} if len(claims) % 4 == 0 else {})
        )
    return draft


def _other_last_bits(text: str) -> str:
    assert len(text) % 4 in (2, 3)
    return text[:-1] + ALPHABET[ALPHABET.index(text[-1]) + 1]


def _in_standard_alphabet(text: str) -> str:
    return text.replace("-", "+").replace("_", "/")


SPELLINGS: dict[str, Callable[[str], str]] = {
    "=": lambda text: text + "=" * (-len(text) % 4),
    "one =": lambda text: text + "=",
    "= in front": lambda text: "=" + text,
    "a space inside": lambda text: f"{text[:5]} {text[5:]}",
    "a tab inside": lambda text: f"{text[:5]}\t{text[5:]}",
    "a character that is none": lambda text: f"{text[:5]}!{text[5:]}",
    "a percent": lambda text: f"{text[:5]}%41{text[6:]}",
    "+ and /": lambda text: f"+/{text[2:]}",
    "the last bits": _other_last_bits,
    "a character more": lambda text: text + "A" * (1 + (-len(text) % 4)),
}
BEYOND_HEADERS: dict[str, Callable[[str], str]] = {
    "a line end inside": lambda text: f"{text[:76]}\n{text[76:]}",
    "a line end after": lambda text: text + "\n",
    "CR LF inside": lambda text: f"{text[:76]}\r\n{text[76:]}",
    "a vertical tab": lambda text: f"{text[:5]}\v{text[5:]}",
    "a space after": lambda text: text + " ",
    "a no-break space": lambda text: f"{text[:5]}\u00a0{text[5:]}",
    "full-width letters": lambda text: f"\uff45\uff59{text[2:]}",
}


@at(*EACH_READER)
@pytest.mark.parametrize("part", [HEADER, CLAIMS, SIGNATURE], ids=["header", "claims", "signature"])
@pytest.mark.parametrize("spelling", named(SPELLINGS))
def test_A10_base64_has_one_spelling(
    scene: Scene, place: Place, part: int, spelling: Callable[[str], str]
) -> None:
    scene.refuses(place, _respelled(_with_a_loose_end(scene.draft(place)), part, spelling), "jws.form")


@at(*(place for place in EACH_READER if place is not PROOF))
@pytest.mark.parametrize("part", [HEADER, CLAIMS, SIGNATURE], ids=["header", "claims", "signature"])
@pytest.mark.parametrize("spelling", named(BEYOND_HEADERS))
def test_A10_white_space_and_look_alikes_are_no_base64(
    scene: Scene, place: Place, part: int, spelling: Callable[[str], str]
) -> None:
    scene.refuses(place, _respelled(_with_a_loose_end(scene.draft(place)), part, spelling), "jws.form")


@at(*EACH_READER)
def test_A10_the_same_bytes_in_the_other_alphabet_are_refused(scene: Scene, place: Place) -> None:
    draft = scene.draft(place).changed({"x": "\u00bf>>\u07ff??~~~"}, x="\u00bf>>\u07ff??~~~")
    raw = [json.dumps(part, ensure_ascii=False).encode() for part in (draft.header, draft.claims)]
    texts = signing_input(*raw)
    assert {"-", "_"} & set(texts)
    token = sign_text(_in_standard_alphabet(texts), draft.key)
    scene.refuses(place, token, "jws.form")


DOTS: dict[str, Callable[[str], str]] = {
    "after": lambda token: token + ".",
    "before": lambda token: "." + token,
    "doubled": lambda token: token.replace(".", "..", 1),
    "a fourth part": lambda token: token + ".AAAA",
    "two parts": lambda token: token.rpartition(".")[0],
    "one part": lambda token: token.split(".")[0],
    "nothing but dots": lambda _: "..",
    "percent-encoded": lambda token: token.replace(".", "%2E"),
    "a tilde": lambda token: token + "~",  # SD-JWT
}


@at(*EACH_READER)
@pytest.mark.parametrize("change", named(DOTS))
def test_A10_a_token_has_three_parts_and_two_dots(
    scene: Scene, place: Place, change: Callable[[str], str]
) -> None:
    scene.refuses(place, change(scene.draft(place).signed()), "jws.form")


# --- A11: one kind of token for another ----------------------------------------------------------------------


def _action_token(scene: Scene, *, resource: str = MARKET) -> str:
    form = scene.form(GRANT, scene.grant) | {"scope": "catalog.search", "resource": resource}
    del form["authorization_details"]
    token: str = scene.world.post("/oauth/token", form).json()["access_token"]
    return token


def _status_list(scene: Scene) -> str:
    where = claims_of(_action_token(scene))["status"]["status_list"]["uri"]
    return scene.world.client.get(where).text


def _introspection(scene: Scene) -> str:
    world = scene.world
    return world.client.post(
        "/oauth/introspect",
        data={"token": _action_token(scene)},
        auth=(world.market_id, world.market_secret),
        headers={"Accept": "application/token-introspection+jwt"},
    ).text


def _id_token(scene: Scene) -> str:
    claims = {"iss": scene.world.issuer, "aud": "keyholder", "sub": "ada", "iat": 1, "exp": 4_000_000_000}
    return Draft(scene.draft(GRANT).header, claims, scene.server_key).changed({"typ": "JWT"}).signed()


OWN: dict[str, Callable[[Scene], str]] = {
    "action token": _action_token,
    "status list": _status_list,
    "introspection": _introspection,
    "id token": _id_token,
}
OF_CLIENTS: dict[str, Callable[[Scene], str]] = {
    "assertion": lambda scene: scene.draft(ASSERTION).signed(),
    "private_key_jwt": lambda scene: scene.draft(AT_EXCHANGE).signed(),
    "proof": lambda scene: scene.draft(PROOF).signed(),
}
TYPES = [
    "JWT",
    "at+jwt",
    "application/at+jwt",
    "dpop+jwt",
    "statuslist+jwt",
    "token-introspection+jwt",
    "secevent+jwt",
]


@pytest.mark.parametrize("make", named(OWN | OF_CLIENTS))
def test_A11_no_other_kind_of_token_is_a_grant(scene: Scene, make: Callable[[Scene], str]) -> None:
    scene.refuses(GRANT, make(scene), "jws.key_in_header" if make is OF_CLIENTS["proof"] else "token.typ")


@pytest.mark.parametrize(
    "typ",
    [*TYPES, ABSENT, "DELEGATION-GRANT+JWT", "application/delegation-grant+jwt", "delegation-grant", "JOSE"],
    ids=lambda typ: "absent" if typ is ABSENT else typ,
)
def test_A11_a_grant_says_that_it_is_one(scene: Scene, typ: object) -> None:
    scene.refuses(GRANT, scene.draft(GRANT).changed({"typ": typ}).signed(), "token.typ")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://other.example"}, "token.iss"),
        ({"iss": ABSENT}, "token.iss"),
        ({"aud": MARKET}, "token.aud"),
        ({"aud": ABSENT}, "jwt.aud"),
        ({"aud": ["https://other.example", "x"]}, "jwt.aud"),
        ({"may_act": ABSENT}, "token.may_act"),
        ({"may_act": {"sub": KEYHOLDER}}, "token.iss"),
        ({"may_act": {"iss": "spiffe://example.org", "sub": BASKET_HELPER}}, "may_act"),
        ({"may_act": {"iss": "https://example.org", "sub": KEYHOLDER}}, "may_act"),
        ({"jti": ABSENT}, "token.jti"),
        ({"jti": "no-such-delegation"}, "unknown"),
        ({"jti": 7}, "jwt.jti"),
    ],
    ids=str,
)
def test_A11_a_grant_that_is_none_is_refused_even_with_a_good_signature(
    scene: Scene, claims: dict[str, object], reason: str
) -> None:
    scene.refuses(GRANT, scene.draft(GRANT).changed(**claims).signed(), reason)


@at(ASSERTION, *CLIENT)
@pytest.mark.parametrize("make", named({"grant": lambda scene: scene.grant} | OWN))
def test_A11_no_token_of_ours_is_an_assertion(
    scene: Scene, place: Place, make: Callable[[Scene], str]
) -> None:
    scene.refuses(place, make(scene), "assertion.own_token")


@at(*WORKLOAD)
def test_A11_our_key_signs_no_assertion(scene: Scene, place: Place) -> None:
    kid = scene.draft(GRANT).header["kid"]
    scene.refuses(place, scene.draft(place).changed({"kid": kid}).signed(scene.server_key), "jws.unknown_kid")
    scene.refuses(place, scene.draft(place).signed(scene.server_key), "jws.signature")


@at(*WORKLOAD, *PRIVATE_KEY_JWT)
@pytest.mark.parametrize("typ", [typ for typ in TYPES if typ != "JWT"] + ["delegation-grant+jwt", "x"])
def test_A11_an_assertion_that_says_it_is_something_else_is_none(
    scene: Scene, place: Place, typ: str
) -> None:
    reason = "client.type" if place in PRIVATE_KEY_JWT else "assertion.type"
    scene.refuses(place, scene.draft(place).changed({"typ": typ}).signed(), reason)


def test_A11_a_client_assertion_is_no_workload_assertion_and_the_other_way_round(scene: Scene) -> None:
    scene.refuses(ASSERTION, scene.draft(AT_EXCHANGE).signed(), "assertion.unknown_issuer")
    named_so = scene.draft(ASSERTION).changed({"typ": "client-authentication+jwt"})
    scene.refuses(ASSERTION, named_so.signed(), "assertion.type")
    for place in (AT_REVOCATION, AT_INTROSPECTION, AT_EXCHANGE):
        scene.refuses(place, scene.draft(ASSERTION).signed(), "client.assertion_type")
    for place in (SVID_AT_REVOCATION, SVID_AT_INTROSPECTION):
        scene.refuses(place, scene.draft(AT_REVOCATION).signed(), "assertion.unknown_issuer")


@pytest.mark.parametrize(
    "make",
    named({"grant": lambda scene: scene.grant} | OWN | {k: v for k, v in OF_CLIENTS.items() if k != "proof"}),
)
def test_A11_no_other_kind_of_token_is_a_proof(scene: Scene, make: Callable[[Scene], str]) -> None:
    scene.refuses(PROOF, make(scene), "header")


@pytest.mark.parametrize("typ", [*TYPES[:3], "application/dpop+jwt", "DPoP+JWT", ABSENT], ids=str)
def test_A11_a_proof_says_that_it_is_one(scene: Scene, typ: object) -> None:
    scene.refuses(PROOF, scene.draft(PROOF).changed({"typ": typ}).signed(), "header")


@pytest.mark.parametrize(
    "make",
    named(
        {"grant": lambda scene: scene.grant}
        | {k: v for k, v in OWN.items() if k != "action token"}
        | OF_CLIENTS
    ),
)
def test_A11_nothing_but_an_action_token_is_active(scene: Scene, make: Callable[[Scene], str]) -> None:
    assert scene.world.introspect(make(scene)) == {"active": False}


@pytest.mark.parametrize(
    "typ", ["JWT", "delegation-grant+jwt", "application/at+jwt", "AT+JWT", ABSENT], ids=str
)
def test_A11_an_action_token_of_another_type_is_not_active(scene: Scene, typ: object) -> None:
    token = _action_token(scene)
    assert scene.world.introspect(token)["active"]
    draft = Draft(header_of(token), claims_of(token), scene.server_key).changed({"typ": typ})
    assert scene.world.introspect(draft.signed()) == {"active": False}


# --- A12: times ----------------------------------------------------------------------------------------------

EXPIRIES: dict[str, tuple[Callable[[int], object], str]] = {
    "absent": (lambda now: ABSENT, "jwt.exp"),
    "null": (lambda now: None, "jwt.exp"),
    "text": (lambda now: str(now + 60), "jwt.exp"),
    "date": (lambda now: "2099-01-01T00:00:00Z", "jwt.exp"),
    "float": (lambda now: now + 60.5, "jwt.exp"),
    "whole float": (lambda now: float(now + 60), "jwt.exp"),
    "true": (lambda now: True, "jwt.exp"),
    "list": (lambda now: [now + 60], "jwt.exp"),
    "object": (lambda now: {}, "jwt.exp"),
    "negative": (lambda now: -1, "jwt.exp"),
    "zero": (lambda now: 0, "expired"),
    "past": (lambda now: now - 3600, "expired"),
    "the first instant past the leeway": (lambda now: now - 30, "expired"),
    "year 9999": (lambda now: 253_402_300_799, "jwt.exp"),
    "milliseconds": (lambda now: (now + 60) * 1000, "jwt.exp"),
    "beyond 64 bits": (lambda now: 2**70, "jwt.exp"),
    "two hours ahead": (lambda now: now + 7200, "lifetime"),
}
BEGINNINGS: dict[str, tuple[Callable[[int], object], str | None]] = {
    "beyond the leeway": (lambda now: now + 31, None),
    "tomorrow": (lambda now: now + 86_400, None),
    "text": (lambda now: str(now), "jwt."),
    "float": (lambda now: now + 0.5, "jwt."),
    "negative": (lambda now: -1, "jwt."),
    "null": (lambda now: None, "jwt."),
    "true": (lambda now: True, "jwt."),
    "year 9999": (lambda now: 253_402_300_799, "jwt."),
}


def _reason(place: Place, reason: str) -> str:
    if "." in reason:
        return reason
    return f"{'client' if place in PRIVATE_KEY_JWT else 'assertion'}.{reason}"


@at(*EACH_ASSERTION)
@pytest.mark.parametrize(
    ("expiry", "reason"), [pytest.param(*case, id=name) for name, case in EXPIRIES.items()]
)
def test_A12_an_assertion_ends_at_a_time_that_is_one_and_near(
    scene: Scene, place: Place, expiry: Callable[[int], object], reason: str
) -> None:
    now = int(scene.world.clock.now().timestamp())
    scene.refuses(place, scene.draft(place).changed(exp=expiry(now)).signed(), _reason(place, reason))


@at(*EACH_ASSERTION, PROOF)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "1E400", "0x7fffffff", "01"])
def test_A12_a_time_that_is_no_json_number_is_refused(scene: Scene, place: Place, value: str) -> None:
    for name in ("exp", "iat", "nbf") if value == "NaN" else ("exp",):
        claims = as_bytes(scene.draft(place).changed(**{name: 7_777_777_777}).claims)
        token = scene.draft(place).signed_bytes(claims=claims.replace(b"7777777777", value.encode()))
        scene.refuses(place, token, "jws.claims")


@at(*EACH_ASSERTION)
@pytest.mark.parametrize("name", ["iat", "nbf"])
@pytest.mark.parametrize(
    ("begin", "reason"), [pytest.param(*case, id=name) for name, case in BEGINNINGS.items()]
)
def test_A12_an_assertion_from_the_future_is_refused(
    scene: Scene, place: Place, name: str, begin: Callable[[int], object], reason: str | None
) -> None:
    now = int(scene.world.clock.now().timestamp())
    expected = f"jwt.{name}" if reason else _reason(place, "not_yet_valid")
    scene.refuses(place, scene.draft(place).changed(**{name: begin(now)}).signed(), expected)


@at(*EACH_ASSERTION)
def test_A12_the_leeway_is_thirty_seconds(scene: Scene, place: Place) -> None:
    now = int(scene.world.clock.now().timestamp())
    for claims in ({"iat": now + 30}, {"nbf": now + 30}, {"exp": now - 29}):
        answer = scene.show(place, scene.draft(place).changed(**claims).signed())
        assert answer.status_code == 200, answer.text


def test_A12_a_grant_ends_with_its_delegation(sqlite_world: World) -> None:
    grant = sqlite_world.granted().grant
    sqlite_world.clock.advance(days=30)
    with sqlite_world.nothing_happens("delegation.expired"):
        sqlite_world.refuses(sqlite_world.exchange(grant), "invalid_request")


# --- A13: audiences ------------------------------------------------------------------------------------------

AUDIENCES: dict[str, tuple[Callable[[str], object], str]] = {
    "absent": (lambda issuer: ABSENT, "jwt.aud"),
    "null": (lambda issuer: None, "jwt.aud"),
    "empty": (lambda issuer: "", "jwt.aud"),
    "empty list": (lambda issuer: [], "jwt.aud"),
    "number": (lambda issuer: 1, "jwt.aud"),
    "object": (lambda issuer: {issuer: True}, "jwt.aud"),
    "list in a list": (lambda issuer: [[issuer]], "jwt.aud"),
    "ours and another": (lambda issuer: [issuer, "https://other.example"], "jwt.aud"),
    "another and ours": (lambda issuer: ["https://other.example", issuer], "jwt.aud"),
    "ours twice": (lambda issuer: [issuer, issuer], "jwt.aud"),
    "issuer and token endpoint": (lambda issuer: [issuer, f"{issuer}/oauth/token"], "jwt.aud"),
    "another": (lambda issuer: "https://other.example", "audience"),
    "another in a list": (lambda issuer: ["https://other.example"], "audience"),
    "a resource server": (lambda issuer: MARKET, "audience"),
    "the client": (lambda issuer: "keyholder", "audience"),
    "upper case": (lambda issuer: issuer.upper(), "audience"),
    "capital scheme": (lambda issuer: issuer.replace("http", "Http"), "audience"),
    "trailing slash": (lambda issuer: issuer + "/", "audience"),
    "longer": (lambda issuer: issuer + "0", "audience"),
    "prefix": (lambda issuer: issuer[:-1], "audience"),
    "scheme alone": (lambda issuer: "http://", "audience"),
    "with a path": (lambda issuer: issuer + "/oauth", "audience"),
    "with a query": (lambda issuer: issuer + "?", "audience"),
    "with a user": (lambda issuer: issuer.replace("//", "//a@"), "audience"),
    "localhost": (lambda issuer: issuer.replace("127.0.0.1", "localhost"), "audience"),
    "with spaces": (lambda issuer: f" {issuer} ", "audience"),
    "with a line end": (lambda issuer: issuer + "\n", "audience"),
    "introspection endpoint": (lambda issuer: issuer + "/oauth/introspect", "audience"),
    "revocation endpoint": (lambda issuer: issuer + "/oauth/revoke", "audience"),
    "token endpoint with a slash": (lambda issuer: issuer + "/oauth/token/", "audience"),
    "token endpoint in upper case": (lambda issuer: issuer + "/OAUTH/TOKEN", "audience"),
}


@at(*EACH_ASSERTION)
@pytest.mark.parametrize(
    ("audience", "reason"), [pytest.param(*case, id=name) for name, case in AUDIENCES.items()]
)
def test_A13_an_assertion_is_for_this_server_alone(
    scene: Scene, place: Place, audience: Callable[[str], object], reason: str
) -> None:
    draft = scene.draft(place).changed(aud=audience(scene.world.issuer))
    scene.refuses(place, draft.signed(), _reason(place, reason))


@at(*EACH_ASSERTION)
@pytest.mark.parametrize("listed", [False, True], ids=["text", "list of one"])
def test_A13_the_token_endpoint_is_an_audience_for_private_key_jwt_only(
    scene: Scene, place: Place, listed: bool
) -> None:
    audience = scene.world.services.token_endpoint
    token = scene.draft(place).changed(aud=[audience] if listed else audience).signed()
    if place in PRIVATE_KEY_JWT:
        assert scene.show(place, token).status_code == 200
    else:
        scene.refuses(place, token, "assertion.audience")


@at(*EACH_ASSERTION)
def test_A13_a_list_of_this_server_alone_is_an_audience(scene: Scene, place: Place) -> None:
    assert scene.show(place, scene.draft(place).changed(aud=[scene.world.issuer]).signed()).status_code == 200


# --- A14: key ids --------------------------------------------------------------------------------------------

KEY_IDS: dict[str, tuple[object, str]] = {
    "path": ("../../../../etc/passwd", "jws.unknown_kid"),
    "device": ("/dev/null", "jws.unknown_kid"),
    "SQL": ("p256' OR '1'='1", "jws.unknown_kid"),
    "SQL union": ("x' UNION SELECT 'secret' --", "jws.unknown_kid"),
    "shell": ("$(touch /tmp/x)|`id`", "jws.unknown_kid"),
    "format": ("%s%n{0.__class__}", "jws.unknown_kid"),
    "other case": ("P256", "jws.unknown_kid"),
    "space after": ("p256 ", "jws.unknown_kid"),
    "prefix": ("p25", "jws.unknown_kid"),
    "line end": ("p256\nlevel=error", "jws.kid"),
    "line end last": ("p256\n", "jws.kid"),
    "ANSI": ("\x1b[31mp256", "jws.kid"),
    "right-to-left": ("p256\u202e", "jws.kid"),
    "NUL": ("p256\0", "jws.header"),
    "empty": ("", "jws.kid"),
    "257 characters": ("k" * 257, "jws.kid"),
    "10 KB": ("k" * 10_000, "jws.kid"),
    "64 KB": ("k" * 48_000, "jws.size"),
    "number": (1, "jws.kid"),
    "null": (None, "jws.kid"),
    "true": (True, "jws.kid"),
    "list": (["p256"], "jws.kid"),
    "object": ({"kid": "p256"}, "jws.kid"),
}


@at(*(place for place in EACH_READER if place is not PROOF))
@pytest.mark.parametrize(("kid", "reason"), [pytest.param(*case, id=name) for name, case in KEY_IDS.items()])
def test_A14_a_kid_is_a_short_name_that_is_looked_up_and_nothing_else(
    scene: Scene, place: Place, kid: object, reason: str
) -> None:
    scene.refuses(place, scene.draft(place).changed({"kid": kid}).signed(), reason)


@pytest.mark.parametrize(
    ("kid", "reason"),
    [pytest.param(*case, id=name) for name, case in KEY_IDS.items() if case[1] in ("jws.kid", "jws.header")],
)
def test_A14_a_proof_has_no_use_for_a_kid_and_takes_no_broken_one(
    scene: Scene, kid: object, reason: str
) -> None:
    scene.refuses(PROOF, scene.draft(PROOF).changed({"kid": kid}).signed(), reason)


@pytest.mark.parametrize("format", ["json", "console"])
def test_A14_a_kid_is_logged_on_one_line_and_escaped(format: str) -> None:
    """A key that is ignored is logged with its name, whatever that is."""
    kid = "k\nlevel=error\r\x1b[31m\u202e\0"
    script = f"""
from authserver.jose import usable_keys
from authserver.logs import configure_logging
configure_logging("info", {format!r})
usable_keys({{"keys": [{{"kty": "oct", "k": "AA", "kid": {kid!r}}}]}}, uses=frozenset({{None}}))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "jwks.key_ignored" in ran.stderr
    assert len(ran.stderr.strip("\n").split("\n")) == 1
    assert ran.stderr.rstrip("\n").isprintable()
    assert ran.stderr.isascii()


# --- A15: a second signature that is as good ------------------------------------------------------------------


def test_A15_an_action_token_has_one_fate_under_both_of_its_signatures(world: World) -> None:
    first, second = (world.exchange(world.granted().grant).json()["access_token"] for _ in range(2))
    assert world.introspect(twisted(first)) == world.introspect(first)
    assert world.introspect(twisted(first))["active"]
    for ended, shown in ((first, twisted(first)), (twisted(second), second)):
        assert world.introspect(shown)["active"]
        answer = world.post("/oauth/revoke", _as_svid(world.assertion()) | {"token": ended})
        assert answer.status_code == 200
        assert world.introspect(shown) == {"active": False}
        assert world.introspect(ended) == {"active": False}
    assert world.rows().reserved == 0


def test_A15_a_grant_has_one_fate_under_both_of_its_signatures(world: World) -> None:
    grant = world.granted().grant
    assert world.exchange(grant).status_code == 200
    assert world.exchange(twisted(grant)).status_code == 200
    answer = world.post("/oauth/revoke", _as_svid(world.assertion()) | {"token": twisted(grant)})
    assert answer.status_code == 200
    for revoked in (grant, twisted(grant)):
        with world.nothing_happens("delegation.revoked"):
            world.refuses(world.exchange(revoked), "invalid_request")


def test_A15_a_budget_is_one_for_both_signatures_of_its_grant(world: World) -> None:
    grant = world.granted(limits={"currency": "EUR", "per_action": "80.00", "total": "50.00"}).grant
    assert world.exchange(grant).status_code == 200
    with world.nothing_happens("limits.total"):
        world.refuses(world.exchange(twisted(grant)), "invalid_authorization_details")


def test_A15_an_idempotency_key_stands_for_the_text_that_came_with_it(world: World) -> None:
    grant, key = world.granted().grant, {"Idempotency-Key": "k-1"}
    assert world.exchange(grant, headers=key).status_code == 200
    with world.nothing_happens("idempotency_key.reused"):
        world.refuses(world.exchange(twisted(grant), headers=key), "invalid_request")


@pytest.mark.parametrize("place", [pytest.param(place, id=place.name) for place in (*PRIVATE_KEY_JWT, PROOF)])
def test_A15_what_is_used_once_is_used_up_under_both_of_its_signatures(
    either_scene: Scene, place: Place
) -> None:
    for first in (lambda token: token, twisted):
        token = either_scene.draft(place).signed()
        assert either_scene.show(place, first(token)).status_code == 200
        for again in (token, twisted(token)):
            either_scene.refuses(place, again, "replayed" if place is PROOF else "client.replayed")


def test_A15_an_assertion_that_is_used_once_is_used_up_under_both_of_its_signatures(
    database_url: str, tmp_path: Path
) -> None:
    once = other_domain(tmp_path / "once", "once.example", refuse_repeated_jti=True)
    subject = "spiffe://once.example/agent"
    with running_world(database_url, tmp_path / "world", trust_domains=[once]) as world:
        agent = make_agent("once", subject, world.clock.now(), trust_domain="once.example")
        world.services.database.write(lambda connection: agents.create(connection, agent))
        grant = world.granted(agent="once").grant
        for first in (lambda token: token, twisted):
            token = make_assertion(
                tmp_path / "once", subject, world.issuer, timedelta(seconds=300), world.clock.now()
            )
            assert world.exchange(grant, actor_token=first(token)).status_code == 200
            for again in (token, twisted(token)):
                with world.nothing_happens("actor.replayed"):
                    world.refuses(world.exchange(grant, actor_token=again), "invalid_request")


def _as_svid(assertion: str) -> dict[str, str]:
    return {"client_assertion_type": JWT_SPIFFE, "client_assertion": assertion}


# --- one attack of each row on both databases ----------------------------------------------------------------

ONE_OF_EACH: dict[str, tuple[Change, str]] = {
    "A01": (lambda draft: draft.changed({"alg": "none"}).signed(), "jws.alg"),
    "A02": (
        lambda draft: mac_text(draft.changed({"alg": "HS256"}).signing_input, faces(draft.key)["PEM"]),
        "jws.alg",
    ),
    "A03": (lambda draft: draft.signed(ATTACKER), "jws.signature"),
    "A04": (SIGNATURES["r = s = 0"], "jws.signature"),
    "A05": (lambda draft: draft.changed({"x5u": ELSEWHERE}).signed(ATTACKER), "jws.key_in_header"),
    "A06": (lambda draft: draft.changed(CRITICAL["unknown name"]).signed(), "jws.crit"),
    "A07": (_encrypted, "jws.form"),
    "A08": (HUGE["claims of 16 KiB"][0], "jws.size"),
    "A09": (lambda draft: draft.signed_bytes(claims=_twice(draft.claims, "jti", "z")), "jws.claims"),
    "A10": (lambda draft: draft.signed() + "=", "jws.form"),
    "A14": (lambda draft: draft.changed({"kid": "k\nk"}).signed(), "jws.kid"),
}


@at(*EACH_READER)
@pytest.mark.parametrize(
    ("change", "reason"), [pytest.param(*case, id=name) for name, case in ONE_OF_EACH.items()]
)
def test_A01_to_A14_one_attack_of_each_row_on_both_databases(
    either_scene: Scene, place: Place, change: Change, reason: str
) -> None:
    either_scene.refuses(place, change(either_scene.draft(place)), reason)


@at(*EACH_ASSERTION)
def test_A12_and_A13_on_both_databases(either_scene: Scene, place: Place) -> None:
    draft = either_scene.draft(place)
    either_scene.refuses(place, draft.changed(exp=ABSENT).signed(), "jwt.exp")
    either_scene.refuses(place, draft.changed(aud=[either_scene.world.issuer, MARKET]).signed(), "jwt.aud")


def test_A11_on_both_databases(either_scene: Scene) -> None:
    either_scene.refuses(GRANT, _action_token(either_scene), "token.typ")
    either_scene.refuses(ASSERTION, either_scene.grant, "assertion.own_token")
