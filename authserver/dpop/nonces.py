"""Nonces of a server (RFC 9449 §8) that all its processes share without storing them."""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime, timedelta

_LEEWAY = timedelta(seconds=30)


class Nonces:
    """Server nonces (RFC 9449 §8): the time they were made, under a key that all processes share."""

    def __init__(self, secret: bytes, lifetime: timedelta) -> None:
        """`secret` are random bytes, at least 32; who knows them can make nonces."""
        self._secret, self._lifetime = secret, lifetime

    def make(self, now: datetime) -> str:
        """A nonce that is good for the configured lifetime."""
        made = int(now.timestamp()).to_bytes(8, "big")
        return urlsafe_b64encode(made + self._tag(made)).decode()

    def is_good(self, unverified: object, now: datetime) -> bool:
        """Whether this server made the nonce, not too long ago."""
        if not isinstance(unverified, str) or len(unverified) != 32:
            return False
        try:
            raw = urlsafe_b64decode(unverified.encode("ascii"))
        except ValueError:
            return False
        made, tag = raw[:8], raw[8:]
        if not hmac.compare_digest(tag, self._tag(made)):
            return False
        age = now.timestamp() - int.from_bytes(made, "big")
        return -_LEEWAY.total_seconds() <= age <= self._lifetime.total_seconds()

    def _tag(self, made: bytes) -> bytes:
        return hmac.digest(self._secret, made, hashlib.sha256)[:16]
