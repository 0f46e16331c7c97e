"""Signed tokens in and out: strict compact JWS (RFC 7515) over joserfc, with keys that may do only what they
say.

Nothing here knows a database, a setting or a network. No key is ever taken from a token, or from a place it
names.
"""

import base64
import hashlib
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Generic, TypeVar

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.jwk import thumbprint as rfc7638_thumbprint
from joserfc.jws import JWSRegistry

from authserver import strict_json

log = structlog.get_logger()
Facts = TypeVar("Facts")

MAX_TOKEN_BYTES = 16_384
MAX_KEYS = 100
_LONGEST_USUAL_HEADER = 256
LEEWAY = timedelta(seconds=30)
ALGORITHMS = ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_KID = re.compile(r"[\x20-\x7e]{1,256}")
_TYP = re.compile(r"[\x21-\x7e]{1,100}")
# RFC 4648 §3.5: the bits that the last character has to spare are zero, so that a token has one spelling.
_LAST_OF_TWO = frozenset("AQgw")
_LAST_OF_THREE = frozenset("AEIMQUYcgkosw048")
# RFC 7518 §6: what makes a public key of each kind, and what only a private or a shared key has.
_PUBLIC_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")}
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CURVES = ("P-256", "P-384", "P-521")
_RSA_BITS = range(2048, 8193)
_LONGEST_MODULUS = 1_400  # characters: 8192 bits and some to spare
# RFC 8725 §3.10: these would have us take or fetch a key that the token names.
_KEYS_IN_HEADER = ("jwk", "jku", "x5u", "x5c")
_LATEST_DATE = 4_102_444_800  # 2100-01-01
_JWS = JWSRegistry.algorithms


class TokenRefused(Exception):
    """A token that is not good. `reason` is a short code of ours (`jws.signature`), never text of the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class KeysRefused(ValueError):
    """A document that is no set of keys; the message is short ASCII."""


class _KeyIgnored(Exception):
    """One key of a set that must not be used; the message is a reason code."""


@dataclass(frozen=True, slots=True)
class TokenHeader:
    """What a JOSE header says that anyone here needs. `jwk` is there only where the reader asked for it
    (DPoP).
    """

    alg: str
    kid: str | None
    typ: str | None
    jwk: Mapping[str, object] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A well-formed compact JWS whose signature nobody has looked at yet. Its `repr` hides the claims."""

    text: str = field(repr=False)
    header: TokenHeader
    claims: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, and the algorithms that its type, curve and `alg` allow.

    `identity` is its RFC 7638 thumbprint: the same key has the same identity under whatever `kid`.
    """

    kid: str | None
    key: ECKey | RSAKey = field(repr=False, compare=False)
    identity: str = field(init=False)
    algorithms: frozenset[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        fitting = JWSRegistry.filter_algorithms(self.key, list(ALGORITHMS))
        object.__setattr__(self, "identity", self.key.thumbprint())
        object.__setattr__(self, "algorithms", frozenset(algorithm.name for algorithm in fitting))

    def fits(self, alg: str) -> bool:
        """Whether `alg` may be verified with this key: its type and its curve are the algorithm's own."""
        return alg in self.algorithms


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A P-256 private key of this server. `kid` is its RFC 7638 thumbprint, under which it is published, too."""

    kid: str
    key: ECKey = field(repr=False, compare=False)


def read_compact(
    unverified: str, *, key_in_header: bool = False, max_bytes: int = MAX_TOKEN_BYTES
) -> UnverifiedToken:
    """Read a compact JWS strictly; nothing of it is verified.

    `key_in_header` lets a `jwk` through into the header, for DPoP proofs (RFC 9449 §4.2) alone. `max_bytes` is
    for documents that are larger than any token, such as status lists. Raises `TokenRefused`: `jws.size`,
    `jws.form`, `jws.header`, `jws.alg`, `jws.crit`, `jws.nested`, `jws.kid`, `jws.typ`, `jws.key_in_header`,
    `jws.claims`.
    """
    if len(unverified) > max_bytes:
        raise TokenRefused("jws.size")
    if not _COMPACT.fullmatch(unverified):
        raise TokenRefused("jws.form")
    unverified_header, unverified_claims, unverified_signature = unverified.split(".")
    _decode(unverified_signature)
    # Those who sign tokens of one kind write one header again and again; a proof's has a key of its own.
    is_usual = not key_in_header and len(unverified_header) <= _LONGEST_USUAL_HEADER
    header = (_usual_header if is_usual else _header)(unverified_header, key_in_header)
    return UnverifiedToken(unverified, header, _read_object(unverified_claims, "jws.claims", max_bytes))


def _header(unverified: str, key_in_header: bool) -> TokenHeader:
    return _read_header(_read_object(unverified, "jws.header", MAX_TOKEN_BYTES), key_in_header)


_usual_header = lru_cache(maxsize=1_000)(_header)


def _decode(unverified: str) -> bytes:
    rest = len(unverified) % 4
    if rest == 1 or (rest == 2 and unverified[-1] not in _LAST_OF_TWO):
        raise TokenRefused("jws.form")
    if rest == 3 and unverified[-1] not in _LAST_OF_THREE:
        raise TokenRefused("jws.form")
    return base64.urlsafe_b64decode(unverified + "=="[: -rest % 4])


def _read_object(unverified: str, reason: str, max_bytes: int) -> dict[str, object]:
    try:
        value = strict_json.parse(_decode(unverified), max_bytes=max_bytes)
    except strict_json.JsonRefused as error:
        raise TokenRefused(reason) from error
    if not isinstance(value, dict):
        raise TokenRefused(reason)
    return value


def _read_header(unverified: Mapping[str, object], key_in_header: bool) -> TokenHeader:
    alg = unverified.get("alg")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise TokenRefused("jws.alg")
    # RFC 7515 §4.1.11: we understand no extension, so none may be critical; `b64` would be one (RFC 7797 §6).
    if "crit" in unverified or "b64" in unverified:
        raise TokenRefused("jws.crit")
    # RFC 7516 §4.1 and RFC 7519 §5.2: encrypted, compressed or nested tokens are none of ours.
    if not unverified.keys().isdisjoint(("enc", "zip", "cty")):
        raise TokenRefused("jws.nested")
    return TokenHeader(
        alg,
        _header_text(unverified, "kid", _KID),
        _header_text(unverified, "typ", _TYP),
        _header_key(unverified, key_in_header),
    )


def _header_text(unverified: Mapping[str, object], name: str, shape: re.Pattern[str]) -> str | None:
    value = unverified.get(name)
    if value is None and name not in unverified:
        return None
    if not isinstance(value, str) or not shape.fullmatch(value):
        raise TokenRefused(f"jws.{name}")
    return value


def _header_key(unverified: Mapping[str, object], allowed: bool) -> Mapping[str, object] | None:
    jwk = unverified.get("jwk")
    if allowed and isinstance(jwk, dict) and unverified.keys().isdisjoint(_KEYS_IN_HEADER[1:]):
        return jwk
    if unverified.keys().isdisjoint(_KEYS_IN_HEADER):
        return None
    raise TokenRefused("jws.key_in_header")


def usable_keys(document: object, *, uses: frozenset[str | None]) -> tuple[VerificationKey, ...]:
    """The keys of a JWK Set (RFC 7517 §5) that may verify a signature.

    `uses` are the values of `use` that count, `None` standing for a key without one. Private, symmetric,
    weak, foreign and ambiguous keys are ignored, each with a log event `jwks.key_ignored`. Raises
    `KeysRefused` where `document` is no JWK Set or has more than 100 keys.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeysRefused("not a JWK Set")
    if len(entries) > MAX_KEYS:
        raise KeysRefused(f"a JWK Set of more than {MAX_KEYS} keys")
    keys = [key for entry in entries if (key := _key_or_event(entry, uses)) is not None]
    times = Counter(key.kid for key in keys)
    # Several keys without a kid are fine as long as a token's algorithm tells them apart.
    ambiguous = {kid for kid, count in times.items() if count > 1 and kid is not None}
    for kid in ambiguous:
        log.warning("jwks.key_ignored", reason="duplicate_kid", kid=kid)
    return tuple(key for key in keys if key.kid not in ambiguous)


def _key_or_event(entry: object, uses: frozenset[str | None]) -> VerificationKey | None:
    try:
        return _usable_key(entry, uses)
    except _KeyIgnored as ignored:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        log.warning("jwks.key_ignored", reason=str(ignored), kid=str(kid)[:100])
        return None


def _usable_key(entry: object, uses: frozenset[str | None]) -> VerificationKey:
    if not isinstance(entry, dict):
        raise _KeyIgnored("not_an_object")
    if not _PRIVATE_MEMBERS.isdisjoint(entry):
        raise _KeyIgnored("private")
    kid = entry.get("kid")
    if kid is not None and not (isinstance(kid, str) and _KID.fullmatch(kid)):
        raise _KeyIgnored("kid")
    use = entry.get("use")
    if not (use is None or isinstance(use, str)) or use not in uses:
        raise _KeyIgnored("use")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _KeyIgnored("key_ops")
    key = VerificationKey(kid, _public_key(entry))
    if not key.algorithms:
        raise _KeyIgnored("alg")
    return key


def public_key(jwk: Mapping[str, object]) -> VerificationKey:
    """The public key that a bare JWK is, such as a DPoP proof's, whose `identity` is then its `jkt`.

    Raises `TokenRefused("jwk.REASON")` for any that `usable_keys` would ignore.
    """
    try:
        key = _usable_key(jwk, frozenset({None, "sig"}))
    except _KeyIgnored as ignored:
        raise TokenRefused(f"jwk.{ignored}") from ignored
    # RFC 7518 §6.2.1.2 and §6.3.1.1: with zeros in front of a number one key would have many thumbprints.
    if any(jwk[name] != value for name, value in _canonical(key.key).items()):
        raise TokenRefused("jwk.invalid")
    return key


def _canonical(key: ECKey | RSAKey) -> Mapping[str, object]:
    if isinstance(key, ECKey):
        return ECKey.binding.export_public_key(key.public_key)
    return RSAKey.binding.export_public_key(key.public_key)


def _public_key(entry: Mapping[str, object]) -> ECKey | RSAKey:
    kty = entry.get("kty")
    if not isinstance(kty, str) or kty not in _PUBLIC_MEMBERS:
        raise _KeyIgnored("kty")
    if kty == "EC" and entry.get("crv") not in _CURVES:
        raise _KeyIgnored("curve")
    if kty == "RSA" and _modulus_bits(entry.get("n")) not in _RSA_BITS:
        raise _KeyIgnored("rsa_size")
    # Only what the key is made of and its `alg`: the rest was judged above.
    members = {name: entry[name] for name in (*_PUBLIC_MEMBERS[kty], "alg") if name in entry}
    try:
        return ECKey.import_key(members) if kty == "EC" else RSAKey.import_key(members)  # type: ignore[arg-type]
    except (JoseError, ValueError) as error:
        raise _KeyIgnored("invalid") from error


def _modulus_bits(unverified: object) -> int:
    # Looked at before joserfc reads the key, which only warns of short ones and takes its time over long
    # ones.
    if not isinstance(unverified, str):
        raise _KeyIgnored("invalid")
    if len(unverified) > _LONGEST_MODULUS:
        return len(unverified) * 6
    try:
        return int.from_bytes(_decode(unverified), "big").bit_length()
    except (TokenRefused, ValueError) as error:
        raise _KeyIgnored("invalid") from error


def verify(token: UnverifiedToken, keys: Sequence[VerificationKey], algorithms: Collection[str]) -> None:
    """Verify the signature with the one key of `keys` that the token is for; `algorithms` are those allowed.

    Raises `TokenRefused`: `jws.alg`, `jws.unknown_kid`, `jws.key`, `jws.signature`.
    """
    verify_with(token, key_for(token, keys, algorithms))


def key_for(
    token: UnverifiedToken, keys: Sequence[VerificationKey], algorithms: Collection[str]
) -> VerificationKey:
    """The one key of that `kid`, or, where the token has no `kid`, the only one that fits its algorithm.

    Raises `TokenRefused`: `jws.alg`, `jws.unknown_kid`, `jws.key`.
    """
    header = token.header
    if header.alg not in algorithms:
        raise TokenRefused("jws.alg")
    if header.kid is None:
        candidates = [key for key in keys if key.fits(header.alg)]
    else:
        candidates = [key for key in keys if key.kid == header.kid]
        if not candidates:
            raise TokenRefused("jws.unknown_kid")
    # RFC 8725 §3.1: the key's own type and curve decide, so a P-384 key never verifies ES256.
    if len(candidates) != 1 or not candidates[0].fits(header.alg):
        raise TokenRefused("jws.key")
    return candidates[0]


def verify_with(token: UnverifiedToken, key: VerificationKey) -> None:
    """Verify the signature with `key`. Raises `TokenRefused`: `jws.key`, `jws.signature`."""
    signed, _, signature = token.text.rpartition(".")
    verify_bytes(signed.encode("ascii"), _decode(signature), token.header.alg, key)


def verify_bytes(signed: bytes, signature: bytes, alg: str, key: VerificationKey) -> None:
    """Verify a signature in the form of RFC 7518 §3 over any bytes. Raises `TokenRefused`: `jws.key`,
    `jws.signature`.
    """
    if not key.fits(alg):
        raise TokenRefused("jws.key")
    if not _JWS[alg].verify(signed, signature, key.key):
        raise TokenRefused("jws.signature")


def sign(claims: Mapping[str, object], *, key: SigningKey, typ: str) -> str:
    """A compact JWS of `claims` with ES256; `typ` is the kind of token without `application/` (RFC 8725
    §3.11).
    """
    return _signed({"alg": "ES256", "kid": key.kid, "typ": typ}, claims, key.key)


def sign_with_own_key(claims: Mapping[str, object], *, key: ECKey, typ: str) -> str:
    """The same with a P-256 key that the header brings along, as a DPoP proof does (RFC 9449 §4.2)."""
    return _signed({"alg": "ES256", "typ": typ, "jwk": key.as_dict(private=False)}, claims, key)


def _signed(header: Mapping[str, object], claims: Mapping[str, object], key: ECKey) -> str:
    signed = f"{_encode(_json_bytes(header))}.{_encode(_json_bytes(claims))}"
    return f"{signed}.{_encode(_JWS['ES256'].sign(signed.encode('ascii'), key))}"


def _json_bytes(value: Mapping[str, object]) -> bytes:
    return strict_json.write(value).encode("ascii")


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def thumbprint(public_jwk: Mapping[str, object]) -> str:
    """The RFC 7638 thumbprint (SHA-256) of an EC or RSA key. Raises `KeysRefused` where a member is missing."""
    names = _PUBLIC_MEMBERS.get(str(public_jwk.get("kty")), ("kty",))
    members = {name: public_jwk.get(name) for name in names}
    if len(members) == 1 or not all(isinstance(value, str) for value in members.values()):
        raise KeysRefused("not an EC or RSA key")
    return rfc7638_thumbprint(members)


class VerifiedTokens(Generic[Facts]):
    """A bounded memory of signatures that were good: a token that is shown many times is verified once.

    It is keyed by the SHA-256 of the text. It says nothing about time beyond `until`: whoever asks still
    checks the claims that depend on it, and still asks whether the key is one of those that count now.
    """

    def __init__(self, size: int = 10_000) -> None:
        """`size` is the number of tokens that are remembered; the oldest are forgotten first."""
        self._size = size
        self._tokens: OrderedDict[bytes, tuple[str, datetime, Facts | None]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, text: str, key_identity: str, until: datetime, facts: Facts | None = None) -> None:
        """The signature of `text` is good with the key of that identity; to be forgotten at `until`. `facts`
        are what was read from it.
        """
        with self._lock:
            self._tokens[_digest(text)] = (key_identity, until, facts)
            while len(self._tokens) > self._size:
                self._tokens.popitem(last=False)

    def known(self, text: str, key_identity: str, now: datetime) -> bool:
        """Whether this very text was good with the key of that identity."""
        remembered = self.recall(text, now)
        return remembered is not None and remembered[0] == key_identity

    def recall(self, text: str, now: datetime) -> tuple[str, Facts | None] | None:
        """The identity of the key with which this very text was good, and the facts that came with it."""
        if len(text) > MAX_TOKEN_BYTES:
            return None
        digest = _digest(text)
        remembered = self._tokens.get(digest)
        if remembered is None:
            return None
        key_identity, until, facts = remembered
        if now >= until:
            with self._lock:
                self._tokens.pop(digest, None)
            return None
        return key_identity, facts


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def numeric_date(claims: Mapping[str, object], name: str) -> datetime | None:
    """The instant of a NumericDate claim, `None` where the claim is absent. Raises
    `TokenRefused("jwt.NAME")`.

    RFC 7519 §2 allows fractions; whole seconds between 1970 and 2100 are all that anyone sends in good faith.
    """
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if type(value) is not int or not 0 <= value <= _LATEST_DATE:
        raise TokenRefused(f"jwt.{name}")
    return datetime.fromtimestamp(value, UTC)


def text_claim(claims: Mapping[str, object], name: str, max_length: int) -> str | None:
    """A claim that is text of 1 to `max_length` characters, `None` where it is absent. Raises
    `TokenRefused("jwt.NAME")`.
    """
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= max_length:
        raise TokenRefused(f"jwt.{name}")
    return value


def single_audience(claims: Mapping[str, object]) -> str:
    """The one audience of a token: `aud` is a string or an array of exactly one. Raises
    `TokenRefused("jwt.aud")`.
    """
    value = claims.get("aud")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not value:
        raise TokenRefused("jwt.aud")
    return value
