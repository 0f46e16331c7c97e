"""How signed tokens are read, verified and made (RFC 7515, RFC 7517, RFC 7519, RFC 8725)."""

import base64
import hmac
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc.jwk import ECKey, OctKey, RSAKey
from joserfc.jws import JWSRegistry
from structlog.testing import capture_logs

from authserver import config, jose
from authserver.jose import (
    KeysRefused,
    SigningKey,
    TokenRefused,
    VerificationKey,
    VerifiedTokens,
    key_for,
    numeric_date,
    read_compact,
    sign,
    single_audience,
    text_claim,
    thumbprint,
    usable_keys,
    verify,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
EC = ECKey.generate_key("P-256")
P384 = ECKey.generate_key("P-384")
P521 = ECKey.generate_key("P-521")
RSA = RSAKey.generate_key(2048)
SIGNATURE_USES: frozenset[str | None] = frozenset({"sig", None})
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def encoded(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def compact(
    header: Mapping[str, object] | bytes,
    claims: Mapping[str, object] | bytes = b'{"sub":"a"}',
    key: ECKey | RSAKey = EC,
    alg: str = "ES256",
) -> str:
    """A compact JWS of these very bytes, with a good signature by `key`."""
    parts = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in (header, claims)]
    signed = ".".join(encoded(part) for part in parts)
    return f"{signed}.{encoded(JWSRegistry.algorithms[alg].sign(signed.encode(), key))}"


def with_signature(text: str, signature: bytes) -> str:
    """The same token with another signature."""
    return f"{text.rpartition('.')[0]}.{encoded(signature)}"


def signature_of(text: str) -> bytes:
    """The signature of a token."""
    return base64.urlsafe_b64decode(text.rpartition(".")[2] + "==")


def public(key: ECKey | RSAKey, kid: object = "k1", **more: object) -> dict[str, object]:
    """The JWK of the public half."""
    return {**key.as_dict(private=False), **({} if kid is None else {"kid": kid}), **more}


def keys(*entries: object) -> tuple[VerificationKey, ...]:
    """The usable ones among the entries of a JWK Set."""
    return usable_keys({"keys": list(entries)}, uses=SIGNATURE_USES)


def reason(text: str, *entries: object, algorithms: tuple[str, ...] = ("ES256", "RS256")) -> str:
    """Why the token is refused when it is verified with these keys."""
    with pytest.raises(TokenRefused) as refused:
        verify(read_compact(text), keys(*(entries or (public(EC),))), algorithms)
    return refused.value.reason


def test_what_was_signed_is_read_and_verified() -> None:
    text = sign({"sub": "a", "n": 1}, key=SigningKey("k1", EC), typ="at+jwt")
    token = read_compact(text)
    verify(token, keys(public(EC)), ("ES256",))
    assert token.header == jose.TokenHeader("ES256", "k1", "at+jwt")
    assert token.claims == {"sub": "a", "n": 1}


@pytest.mark.parametrize(
    ("alg", "key"),
    [
        ("ES256", EC),
        ("ES384", P384),
        ("ES512", P521),
        *[(alg, RSA) for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")],
    ],
)
def test_each_algorithm_verifies_with_a_key_of_its_type_and_curve(alg: str, key: ECKey | RSAKey) -> None:
    text = compact({"alg": alg, "kid": "k1"}, key=key, alg=alg)
    verify(read_compact(text), keys(public(key)), (alg,))


def test_rfc_7515_appendix_a3_verifies() -> None:
    text = (
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9p"
        "c19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    verify(read_compact(text), keys(jwk), ("ES256",))


def test_the_algorithms_are_those_that_the_configuration_takes() -> None:
    assert jose.ALGORITHMS == config.ALGORITHMS


def test_a_token_shows_nothing_of_itself_when_it_is_logged() -> None:
    text = compact({"alg": "ES256"}, {"sub": "somebody"})
    assert "somebody" not in repr(read_compact(text))
    assert text not in repr(read_compact(text))
    assert "d" not in SigningKey("k1", EC).__repr__().replace("kid", "")


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE"])
def test_A01_an_unsigned_token_is_refused(alg: str) -> None:
    unsigned = f"{encoded(json.dumps({'alg': alg}).encode())}.{encoded(b'{}')}."
    assert reason(unsigned) == "jws.form"
    assert reason(unsigned + "AA") == "jws.alg"


def test_A01_an_empty_signature_is_refused() -> None:
    assert reason(with_signature(compact({"alg": "ES256"}), b"")) == "jws.form"


@pytest.mark.parametrize(
    "secret",
    [
        EC.as_pem(private=False),
        EC.as_der(private=False),
        json.dumps(EC.as_dict(private=False)).encode(),
        RSA.as_pem(private=False),
    ],
)
def test_A02_a_public_key_is_never_a_shared_secret(secret: bytes) -> None:
    header = encoded(b'{"alg":"HS256","kid":"k1"}')
    signed = f"{header}.{encoded(b'{}')}"
    text = f"{signed}.{encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"
    assert reason(text, public(EC), algorithms=("ES256", "RS256")) == "jws.alg"
    assert reason(text, public(EC), algorithms=("HS256",)) == "jws.alg"


def test_A02_an_algorithm_that_is_not_configured_is_refused() -> None:
    assert reason(compact({"alg": "PS256"}, key=RSA, alg="PS256"), public(RSA)) == "jws.alg"


@pytest.mark.parametrize("key", [P384, P521, RSA])
@pytest.mark.parametrize("kid", ["k1", None])
def test_A03_a_key_of_another_type_or_curve_never_verifies(key: ECKey | RSAKey, kid: str | None) -> None:
    header = {"alg": "ES256"} | ({} if kid is None else {"kid": kid})
    assert reason(compact(header), public(key, kid)) == "jws.key"


def test_A03_a_p384_signature_under_the_name_of_es256_is_refused() -> None:
    text = compact({"alg": "ES256", "kid": "k1"}, key=P384, alg="ES384")
    assert reason(text, public(P384), algorithms=("ES256", "ES384")) == "jws.key"


def test_A03_a_key_that_names_its_algorithm_serves_no_other() -> None:
    text = compact({"alg": "PS256", "kid": "k1"}, key=RSA, alg="PS256")
    assert reason(text, public(RSA, alg="RS256"), algorithms=("RS256", "PS256")) == "jws.key"


@pytest.mark.parametrize(
    "signature",
    [
        bytes(64),
        bytes(31) + b"\1" + bytes(32),
        bytes(63) + b"\1",
        b"\xff" * 64,
        P256_ORDER.to_bytes(32, "big") * 2,
        bytes(63),
        bytes(65),
        bytes(96),
        b"\1",
    ],
)
def test_A04_an_es256_signature_of_impossible_numbers_or_length_is_refused(signature: bytes) -> None:
    assert reason(with_signature(compact({"alg": "ES256"}), signature)) == "jws.signature"


def test_A04_an_es256_signature_in_der_is_refused() -> None:
    text = compact({"alg": "ES256"})
    r, s = (int.from_bytes(part, "big") for part in (signature_of(text)[:32], signature_of(text)[32:]))
    assert reason(with_signature(text, encode_dss_signature(r, s))) == "jws.signature"


def test_A04_an_es256_signature_with_r_beyond_the_order_is_refused() -> None:
    text = compact({"alg": "ES256"})
    s = signature_of(text)[32:]
    assert reason(with_signature(text, (P256_ORDER + 1).to_bytes(32, "big") + s)) == "jws.signature"


@pytest.mark.parametrize(
    "member",
    [
        {"jwk": public(EC)},
        {"jku": "https://attacker.example/jwks.json"},
        {"x5u": "https://attacker.example/chain.pem"},
        {"x5c": ["MIIB"]},
    ],
)
def test_A05_a_token_that_brings_its_own_key_is_refused(member: dict[str, object]) -> None:
    text = compact({"alg": "ES256"} | member)
    assert reason(text) == "jws.key_in_header"
    with pytest.raises(TokenRefused, match=r"jws\.key_in_header"):
        verify(read_compact(text), (), ("ES256",))


def test_A05_only_a_reader_of_dpop_proofs_sees_the_key_in_a_header() -> None:
    text = compact({"alg": "ES256", "jwk": public(EC, None), "typ": "dpop+jwt"})
    token = read_compact(text, key_in_header=True)
    assert token.header.jwk is not None
    assert jose.public_key(token.header.jwk).identity == EC.thumbprint()
    with pytest.raises(TokenRefused, match=r"jws\.key_in_header"):
        read_compact(
            compact({"alg": "ES256", "jwk": public(EC), "jku": "https://a.example"}), key_in_header=True
        )


@pytest.mark.parametrize(
    "jwk", [EC.as_dict(private=True), OctKey.generate_key(256).as_dict(), {"kty": "EC"}, {}]
)
def test_A05_a_private_or_symmetric_key_in_a_header_is_refused(jwk: dict[str, object]) -> None:
    with pytest.raises(TokenRefused, match=r"^jwk\."):
        jose.public_key(jwk)


@pytest.mark.parametrize(
    "crit", [["exp"], [], "exp", ["b64"], ["alg"], ["x-unknown"], None, 1, ["kid", "kid"]]
)
def test_A06_a_token_with_critical_extensions_is_refused(crit: object) -> None:
    header = {"alg": "ES256", "kid": "k1", "x-unknown": 1, "crit": crit}
    assert reason(compact(header)) == "jws.crit"


@pytest.mark.parametrize(
    "header", [{"enc": "A256GCM"}, {"zip": "DEF"}, {"cty": "JWT"}, {"cty": "jwt"}, {"b64": False}]
)
def test_A07_encrypted_compressed_nested_and_unencoded_tokens_are_refused(header: dict[str, object]) -> None:
    assert reason(compact({"alg": "ES256"} | header)) in ("jws.nested", "jws.crit")


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAA.AAAA.AAAA",
        '{"payload":"e30","signatures":[{"protected":"e30","signature":"AA"}]}',
        '{"payload":"e30","protected":"e30","signature":"AA"}',
        "",
        ".",
        "..",
        "a.b",
        "not a token",
    ],
)
def test_A07_whatever_is_no_compact_jws_is_refused(text: str) -> None:
    assert reason(text) == "jws.form"


@pytest.mark.parametrize("part", [0, 1, 2])
def test_A08_a_token_beyond_16_kib_is_refused_before_it_is_read(part: int) -> None:
    parts = compact({"alg": "ES256"}).split(".")
    parts[part] += "A" * 4_000_000
    assert reason(".".join(parts)) == "jws.size"
    assert reason("." * 5_000_000) == "jws.size"


def test_A08_deep_nesting_and_many_members_are_refused() -> None:
    deep = b"[" * 6000 + b"]" * 6000
    assert reason(compact(b'{"alg":"ES256","x":' + deep[:2000] + b"}")) == "jws.header"
    assert reason(compact({"alg": "ES256"}, b'{"x":' + deep + b"}")) == "jws.claims"
    assert reason(compact({"alg": "ES256"}, b'{"x":' + b"[" * 100 + b"]" * 100 + b"}")) == "jws.claims"


@pytest.mark.parametrize(
    ("header", "claims", "refused"),
    [
        (b'{"alg":"none","alg":"ES256"}', b"{}", "jws.header"),
        (b'{"alg":"ES256","kid":"k2","kid":"k1"}', b"{}", "jws.header"),
        (b'{"alg":"ES256"}', b'{"sub":"a","sub":"b"}', "jws.claims"),
        (b'{"alg":"ES256"}', b'{"act":{"sub":"a","sub":"b"}}', "jws.claims"),
        (b'{"alg":"ES256"}', b'{"sub":"a","\\u0073ub":"b"}', "jws.claims"),
    ],
)
def test_A09_members_that_are_there_twice_are_refused(header: bytes, claims: bytes, refused: str) -> None:
    assert reason(compact(header, claims)) == refused


@pytest.mark.parametrize(
    ("header", "claims", "refused"),
    [
        (b"[]", b"{}", "jws.header"),
        (b'"ES256"', b"{}", "jws.header"),
        (b"\xff", b"{}", "jws.header"),
        (b'{"alg":"ES256"}', b"[]", "jws.claims"),
        (b'{"alg":"ES256"}', b"null", "jws.claims"),
        (b'{"alg":"ES256"}', b'{"exp":NaN}', "jws.claims"),
        (b'{"alg":"ES256"}', b'{"exp":1e999}', "jws.claims"),
        (b'{"alg":"ES256"}', b'{"sub":"\\u0000"}', "jws.claims"),
        (b'{"alg":"ES256"}', b'{"sub":"\\ud800"}', "jws.claims"),
        (b'{"alg":"ES256"}', b'\xef\xbb\xbf{"sub":"a"}', "jws.claims"),
        (b'{"alg":["ES256"]}', b"{}", "jws.alg"),
        (b"{}", b"{}", "jws.alg"),
    ],
)
def test_A09_header_and_claims_are_json_objects_with_one_meaning(
    header: bytes, claims: bytes, refused: str
) -> None:
    assert reason(compact(header, claims)) == refused


def respelled(text: str, part: int, change: str) -> str:
    """The token with one part written in another way."""
    parts = text.split(".")
    parts[part] = {
        "padding": parts[part] + "=" * (-len(parts[part]) % 4 or 2),
        "space": parts[part][:2] + " " + parts[part][2:],
        "newline": parts[part] + "\n",
        "plus": "+" + parts[part][1:],
        "slash": "/" + parts[part][1:],
        "non-ascii": "Ａ" + parts[part][1:],
        "extra dot": parts[part] + ".",
        "one more": parts[part] + "A" * (5 - len(parts[part]) % 4),
        "empty": "",
    }[change]
    return ".".join(parts)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize(
    "change",
    ["padding", "space", "newline", "plus", "slash", "non-ascii", "extra dot", "one more", "empty"],
)
def test_A10_base64_has_one_spelling(part: int, change: str) -> None:
    text = compact({"alg": "ES256"}, {"sub": "ab"})
    assert reason(respelled(text, part, change)) == "jws.form"


def test_A10_the_spare_bits_of_the_last_character_are_zero() -> None:
    text = compact({"alg": "ES256"})
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(text[-1])
    assert last % 16 == 0  # 64 bytes leave four spare bits
    for spare in range(1, 16):
        assert reason(text[:-1] + alphabet[last + spare]) == "jws.form"


@pytest.mark.parametrize("kid", ["", "k" * 257, "k\n1", "k\x1b[31m", "schlüssel", 1, None, ["k1"], {}])
def test_A14_a_kid_that_is_no_short_ascii_text_is_refused(kid: object) -> None:
    assert reason(compact({"alg": "ES256", "kid": kid})) == "jws.kid"


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "https://attacker.example/key", "K1"])
def test_A14_a_kid_that_is_path_or_sql_text_is_only_an_unknown_kid(kid: str) -> None:
    assert reason(compact({"alg": "ES256", "kid": kid})) == "jws.unknown_kid"


@pytest.mark.parametrize("typ", ["", "a" * 101, "a b", 1, None])
def test_A11_a_typ_that_is_no_media_type_is_refused(typ: object) -> None:
    assert reason(compact({"alg": "ES256", "typ": typ})) == "jws.typ"


def test_A15_a_signature_written_in_another_way_changes_no_claim() -> None:
    text = compact({"alg": "ES256"}, {"jti": "once"})
    r, s = signature_of(text)[:32], int.from_bytes(signature_of(text)[32:], "big")
    twin = with_signature(text, r + (P256_ORDER - s).to_bytes(32, "big"))
    verify(read_compact(twin), keys(public(EC)), ("ES256",))
    assert twin != text
    assert read_compact(twin).claims == read_compact(text).claims  # so memory is by jti, never by text


def test_a_changed_claim_breaks_the_signature() -> None:
    header, _, signature = compact({"alg": "ES256"}).split(".")
    claims = encoded(b'{"sub":"b"}')
    assert reason(f"{header}.{claims}.{signature}") == "jws.signature"


def test_without_a_kid_the_only_key_that_fits_verifies() -> None:
    text = compact({"alg": "ES256"})
    verify(read_compact(text), keys(public(EC, "a"), public(RSA, "b"), public(P384, "c")), ("ES256",))
    assert reason(text, public(EC, "a"), public(ECKey.generate_key("P-256"), "b")) == "jws.key"


def test_a_kid_chooses_the_key_and_no_other_is_tried() -> None:
    other = ECKey.generate_key("P-256")
    text = compact({"alg": "ES256", "kid": "b"})
    assert reason(text, public(EC, "a"), public(other, "b")) == "jws.signature"
    assert reason(text, public(EC, "a")) == "jws.unknown_kid"
    assert reason(text, public(EC, None)) == "jws.unknown_kid"


@pytest.mark.parametrize(
    ("entry", "ignored"),
    [
        (public(EC, use="enc"), "use"),
        (public(EC, use="jwt-svid"), "use"),
        (public(EC, use=["sig"]), "use"),
        (public(EC, key_ops=["sign"]), "key_ops"),
        (public(EC, key_ops=[]), "key_ops"),
        (public(EC, key_ops="verify"), "key_ops"),
        (EC.as_dict(private=True) | {"kid": "k1"}, "private"),
        (RSA.as_dict(private=True) | {"kid": "k1"}, "private"),
        (OctKey.generate_key(256).as_dict() | {"kid": "k1"}, "private"),
        ({"kty": "oct", "kid": "k1"}, "kty"),
        ({"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "k1"}, "kty"),
        ({"kty": ["EC"], "kid": "k1"}, "kty"),
        ({"kid": "k1"}, "kty"),
        (ECKey.generate_key("secp256k1").as_dict(private=False), "curve"),
        (public(EC, crv="P-255"), "curve"),
        (public(EC, crv=None), "curve"),
        (public(EC, crv="P-384"), "invalid"),
        (public(EC, x="AAAA"), "invalid"),
        (public(EC, x=""), "invalid"),
        (public(EC, y=7), "invalid"),
        ({"kty": "EC", "crv": "P-256", "x": "AAAA"}, "invalid"),
        (public(RSA, e="AQ"), "invalid"),
        (public(EC, alg="ES384"), "alg"),
        (public(EC, alg="ECDH-ES"), "alg"),
        (public(EC, alg="HS256"), "alg"),
        (public(EC, alg=["ES256"]), "invalid"),
        (public(EC, kid=7), "kid"),
        (public(EC, kid="a\nb"), "kid"),
        ("a key", "not_an_object"),
        (None, "not_an_object"),
    ],
)
def test_A46_a_key_that_must_not_verify_is_ignored_with_an_event(entry: Any, ignored: str) -> None:
    with capture_logs() as events:
        found = keys(entry, public(P384, "other"))
    assert [key.kid for key in found] == ["other"]
    assert [(event["event"], event["reason"]) for event in events] == [("jwks.key_ignored", ignored)]


@pytest.mark.parametrize("bits", [1024, 2040])
def test_A46_a_weak_rsa_key_is_ignored(bits: int) -> None:
    numbers = rsa.generate_private_key(65537, bits).public_key().public_numbers()
    jwk = {"kty": "RSA", "n": encoded(numbers.n.to_bytes(bits // 8, "big")), "e": "AQAB"}
    padded = jwk | {"n": encoded(numbers.n.to_bytes(256, "big"))}
    with capture_logs() as events:
        assert keys(jwk, padded) == ()
    assert [event["reason"] for event in events] == ["rsa_size", "rsa_size"]


def test_A46_keys_that_share_a_kid_are_all_ignored() -> None:
    with capture_logs() as events:
        found = keys(public(EC, "same"), public(P384, "same"), public(RSA, "other"))
    assert [key.kid for key in found] == ["other"]
    assert [event["reason"] for event in events] == ["duplicate_kid"]


def test_A46_a_key_that_is_ignored_makes_no_kid_ambiguous() -> None:
    assert [key.kid for key in keys(public(EC, "same"), public(P384, "same", use="enc"))] == ["same"]


@pytest.mark.parametrize("document", [[], None, "keys", {}, {"keys": {}}, {"keys": None}])
def test_a_document_that_is_no_jwk_set_is_refused(document: object) -> None:
    with pytest.raises(KeysRefused):
        usable_keys(document, uses=SIGNATURE_USES)


def test_A45_a_set_of_ten_thousand_keys_is_refused() -> None:
    with pytest.raises(KeysRefused):
        keys(*[public(EC, str(number)) for number in range(10_000)])


def test_A121_an_ignored_key_cannot_write_a_line_of_the_log_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as events:
        keys(public(EC, use="enc", kid="a\nb" * 1000))
    assert len(events[0]["kid"]) <= 100


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    # RFC 7638 §3.1.
    jwk = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZ"
        "CiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9"
        "c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF4"
        "4-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "alg": "RS256",
        "kid": "2011-04-29",
    }
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert keys(jwk)[0].identity == thumbprint(jwk)
    with pytest.raises(KeysRefused):
        thumbprint({"kty": "EC", "crv": "P-256", "x": "AA"})
    with pytest.raises(KeysRefused):
        thumbprint({"kty": "oct", "k": "AA"})


def test_a_good_verification_is_remembered_for_its_key_until_its_end() -> None:
    memory: VerifiedTokens[str] = VerifiedTokens(size=2)
    end = NOW + timedelta(minutes=5)
    memory.remember("one", "key", end, "facts")
    assert memory.known("one", "key", NOW)
    assert memory.recall("one", NOW) == ("key", "facts")
    assert not memory.known("one", "another key", NOW)
    assert not memory.known("two", "key", NOW)
    assert not memory.known("one", "key", end)
    assert not memory.known("one", "key", NOW)  # forgotten for good


def test_the_memory_of_verifications_is_bounded() -> None:
    memory: VerifiedTokens[None] = VerifiedTokens(size=100)
    for number in range(1000):
        memory.remember(str(number), "key", NOW + timedelta(minutes=5))
    known = [number for number in range(1000) if memory.known(str(number), "key", NOW)]
    assert known == list(range(900, 1000))


@pytest.mark.parametrize("text", ["\ud800", "a" * 5_000_000, ""])
def test_odd_texts_are_simply_not_remembered(text: str) -> None:
    assert VerifiedTokens[None](size=2).recall(text, NOW) is None


@pytest.mark.parametrize(
    "value",
    ["1", 1.0, 1.5, -1, True, None, [], 253402300799, 10**30, "2026-11-24T00:00:00Z"],
)
def test_A12_a_date_that_is_not_whole_seconds_of_this_century_is_refused(value: object) -> None:
    with pytest.raises(TokenRefused) as refused:
        numeric_date({"exp": value}, "exp")
    assert refused.value.reason == "jwt.exp"


def test_A12_a_date_is_read_as_an_instant() -> None:
    assert numeric_date({"exp": int(NOW.timestamp())}, "exp") == NOW
    assert numeric_date({}, "exp") is None


@pytest.mark.parametrize("value", ["", "a" * 11, 1, None, ["a"], {}])
def test_a_text_claim_is_text_of_a_bounded_length(value: object) -> None:
    assert text_claim({"sub": "a"}, "sub", 10) == "a"
    assert text_claim({}, "sub", 10) is None
    with pytest.raises(TokenRefused, match=r"^jwt\.sub$"):
        text_claim({"sub": value}, "sub", 10)


@pytest.mark.parametrize("value", [[], ["a", "b"], ["a", "a"], "", [""], 1, None, [None], {"a": 1}, [["a"]]])
def test_A13_a_token_has_exactly_one_audience(value: object) -> None:
    assert single_audience({"aud": "a"}) == "a"
    assert single_audience({"aud": ["a"]}) == "a"
    with pytest.raises(TokenRefused, match=r"^jwt\.aud$"):
        single_audience({"aud": value})
    with pytest.raises(TokenRefused, match=r"^jwt\.aud$"):
        single_audience({})


def test_a_header_of_an_ordinary_issuer_may_be_longer_than_joserfc_takes() -> None:
    text = compact({"alg": "ES256", "kid": "k1", "x5t": "a" * 600})
    verify(read_compact(text), keys(public(EC)), ("ES256",))


def test_a_key_is_found_before_anything_is_verified() -> None:
    token = read_compact(compact({"alg": "ES256", "kid": "k1"}))
    assert key_for(token, keys(public(EC)), ("ES256",)).identity == EC.thumbprint()
