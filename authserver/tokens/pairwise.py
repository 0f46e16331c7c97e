"""Names that two parties cannot compare: each sees another one for the same user or delegation."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from functools import lru_cache

_REMEMBERED = 8_192


class PairwiseNames:
    """Keyed names (OpenID Connect Core §8.1): stable for one party, unrelated between parties."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        # The same few users and delegations come again and again; a name costs more than looking it up.
        self._name = lru_cache(_REMEMBERED)(self._keyed)

    def user(self, user_id: str, party: str) -> str:
        """The `sub` by which `party` (a client_id or a resource server's id) knows the user."""
        return self._name("sub", user_id, party)

    def grant(self, delegation_id: str, party: str) -> str:
        """The `grant_id` by which a resource server knows the delegation."""
        return self._name("grant", delegation_id, party)

    def cause(self, event_id: int, party: str) -> str:
        """The `txn` by which a resource server knows what several events follow from (SSF §4.1.9)."""
        return self._keyed("txn", str(event_id), party)

    def _keyed(self, purpose: str, subject: str, party: str) -> str:
        message = "\x00".join((purpose, subject, party)).encode()
        return urlsafe_b64encode(hmac.digest(self._secret, message, hashlib.sha256)[:18]).decode()
