"""What a resource server spends on a token with the kit, beside the raw ES256 verification that it cannot avoid."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from authserver.resource_server import Verifier
from bench.exchanges import SHOP
from bench.processes import CORES, SERVER_CORE

_ALGORITHM = ec.ECDSA(SHA256())
_BATCH = 100
_AGAIN = 20


@dataclass(frozen=True, slots=True)
class Checked:
    """Microseconds of CPU for one check of a new token, of one seen before, and for one raw verification."""

    new: float
    seen: float
    raw: float


def measure(issuer: str, tokens: Sequence[str]) -> Checked:
    """Check fresh tokens of a running server; the first one only makes the kit fetch the keys."""
    verifier = Verifier(issuer, SHOP)
    verifier.verify(tokens[0])
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        return _measure(verifier, tokens[1:])
    finally:
        os.sched_setaffinity(0, CORES)


def _measure(verifier: Verifier, tokens: Sequence[str]) -> Checked:
    private = ec.generate_private_key(ec.SECP256R1())
    public, message = private.public_key(), b"x" * 1_000
    signature = private.sign(message, _ALGORITHM)
    new = seen = raw = float("inf")
    # In turn, so that what slows the machine slows all three; the best of each, as in `crypto`.
    for start in range(0, len(tokens) - _BATCH + 1, _BATCH):
        batch = tokens[start : start + _BATCH]
        raw = min(raw, _each(lambda _: public.verify(signature, message, _ALGORITHM), batch))
        new = min(new, _each(verifier.verify, batch))
        seen = min(seen, _each(verifier.verify, list(batch) * _AGAIN))
    return Checked(new, seen, raw)


def _each(operation: Callable[[str], object], tokens: Sequence[str]) -> float:
    started = time.process_time()
    for token in tokens:
        operation(token)
    return 1e6 * (time.process_time() - started) / len(tokens)
