"""What a resource server spends on a token with the kit, beside what it cannot avoid and beside PyJWT; and how soon it
refuses what was revoked.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from authserver.dpop import ProofKey
from authserver.resource_server import InvalidToken, Presented, Verifier
from bench.exchanges import SHOP
from bench.processes import CORES, SERVER_CORE

_ALGORITHM = ec.ECDSA(SHA256())
_BATCH = 100
_AGAIN = 20
_URL = f"{SHOP}/orders/1/payment"
_LONGEST_WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Checked:
    """Microseconds of CPU for one check: of a new token, of one seen before, of either with a DPoP proof.

    Beside them what cannot be avoided, one raw verification, and what PyJWT takes for signature, issuer, audience and
    expiry alone: it looks at no status list, proof, action or amount. `first` is another kind of figure: milliseconds
    on the clock for the first token of a new process, for which metadata, keys and list are fetched.
    """

    first: float
    new: float
    seen: float
    new_with_proof: float
    seen_with_proof: float
    raw: float
    pyjwt: float


def measure(issuer: str, tokens: Sequence[str], bound: Sequence[str], key: ProofKey) -> Checked:
    """Check fresh tokens of a running server; `bound` are bound to `key`, and the first of `tokens` only warms up."""
    verifier, started = Verifier(issuer, SHOP), time.perf_counter()
    verifier.verify(tokens[0])
    first = 1e3 * (time.perf_counter() - started)
    with httpx.Client() as http:
        keys = jwt.PyJWKSet.from_dict(http.get(f"{issuer}/oauth/jwks").json())
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        return Checked(first, **_measure(verifier, tokens[1:], bound, key, keys))
    finally:
        os.sched_setaffinity(0, CORES)


def _measure(
    verifier: Verifier, tokens: Sequence[str], bound: Sequence[str], key: ProofKey, keys: jwt.PyJWKSet
) -> dict[str, float]:
    private = ec.generate_private_key(ec.SECP256R1())
    public, message = private.public_key(), b"x" * 1_000
    signature = private.sign(message, _ALGORITHM)

    def with_pyjwt(token: str) -> None:
        found = keys[jwt.get_unverified_header(token)["kid"]]
        jwt.decode(token, found, algorithms=["ES256"], audience=SHOP, issuer=verifier.issuer.identifier)

    best = dict.fromkeys(("raw", "pyjwt", "new", "seen", "new_with_proof", "seen_with_proof"), float("inf"))
    # In turn, so that what slows the machine slows all of them; the best of each, as in `crypto`.
    for start in range(0, len(tokens) - _BATCH + 1, _BATCH):
        batch, others = tokens[start : start + _BATCH], bound[start : start + _BATCH]
        first, again = (_presented(others, key, verifier) for _ in range(2))
        found = {
            "raw": _each(lambda _: public.verify(signature, message, _ALGORITHM), batch),
            "pyjwt": _each(with_pyjwt, batch),
            "new": _each(verifier.verify, batch),
            "seen": _each(verifier.verify, list(batch) * _AGAIN),
            "new_with_proof": _each(verifier.check, first),
            "seen_with_proof": _each(verifier.check, again),
        }
        best = {name: min(best[name], found[name]) for name in best}
    return best


def _presented(tokens: Sequence[str], key: ProofKey, verifier: Verifier) -> list[Presented]:
    """The requests of an agent: making proofs is its cost, and is not measured here."""
    now, nonce = datetime.now(UTC), verifier.next_nonce()
    proofs = [key.proof("POST", _URL, now=now, access_token=token, nonce=nonce) for token in tokens]
    return [
        Presented.parse([f"DPoP {token}"], [proof], method="POST", url=_URL)
        for token, proof in zip(tokens, proofs, strict=True)
    ]


def _each(operation: Callable[..., object], arguments: Sequence[object]) -> float:
    started = time.process_time()
    for argument in arguments:
        operation(argument)
    return 1e6 * (time.process_time() - started) / max(1, len(arguments))


@dataclass(frozen=True, slots=True)
class Revoked:
    """Seconds from the answer to a revocation until the kit refuses the token: the median and the longest."""

    median: float
    longest: float


def until_refused(issuer: str, tokens: Sequence[str], revoke: Callable[[str], None]) -> Revoked:
    """Revoke one token after another, each at another moment of the kit's refreshing."""
    verifier = Verifier(issuer, SHOP)
    found = [_until_refused(verifier, token, revoke) for token in tokens]
    return Revoked(median(found), max(found))


def _until_refused(verifier: Verifier, token: str, revoke: Callable[[str], None]) -> float:
    verifier.verify(token)
    revoke(token)
    answered = time.monotonic()
    while (waited := time.monotonic() - answered) < _LONGEST_WAIT_SECONDS:
        try:
            verifier.verify(token)
        except InvalidToken:
            return waited
        time.sleep(0.001)
    raise TimeoutError("a revoked token was never refused")
