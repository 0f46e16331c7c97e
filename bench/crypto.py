"""The machine's own limit: what ES256 costs here, raw and through joserfc, as CPU time on the server's core."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import ECKey

from bench.processes import CORES, SERVER_CORE

_ALGORITHM = ec.ECDSA(SHA256())
_CLAIMS = {
    "iss": "https://issuer.example",
    "sub": "x" * 60,
    "aud": "https://shop.example/api",
    "exp": 2_000_000_000,
}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Microseconds of CPU for one operation."""

    raw_sign: float
    raw_verify: float
    joserfc_sign: float
    joserfc_verify: float

    @property
    def exchange_limit(self) -> float:
        """Exchanges a second that a core could do if it did nothing but verify two tokens and sign one."""
        return 1e6 / (2 * self.raw_verify + self.raw_sign)

    @property
    def signing_limit(self) -> float:
        """The same when both presented tokens were verified before: only the signature is left."""
        return 1e6 / self.raw_sign


def measure(seconds: float = 1.0) -> Ceiling:
    """Measure the four operations in about `seconds` altogether."""
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        return _measure(seconds / 4)
    finally:
        os.sched_setaffinity(0, CORES)


def _measure(seconds: float) -> Ceiling:
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    message = b"x" * 700
    signature = private.sign(message, _ALGORITHM)
    key = ECKey.import_key(pem)
    token = jwt.encode({"alg": "ES256"}, _CLAIMS, key)
    return Ceiling(
        raw_sign=_microseconds(lambda: private.sign(message, _ALGORITHM), seconds),
        raw_verify=_microseconds(lambda: public.verify(signature, message, _ALGORITHM), seconds),
        joserfc_sign=_microseconds(lambda: jwt.encode({"alg": "ES256"}, _CLAIMS, key), seconds),
        joserfc_verify=_microseconds(lambda: jwt.decode(token, key, algorithms=["ES256"]), seconds),
    )


def _microseconds(operation: Callable[[], object], seconds: float) -> float:
    """CPU for one call: the best of several rounds, because others on the machine can only make it slower."""
    best = float("inf")
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        started = time.process_time()
        for _ in range(200):
            operation()
        best = min(best, (time.process_time() - started) / 200)
    return 1e6 * best
