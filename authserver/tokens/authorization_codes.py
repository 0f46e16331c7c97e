"""Authorization codes: made from the request that they answer, so that none is stored and any can be given again."""

import hashlib
import hmac
from base64 import urlsafe_b64encode


class AuthorizationCodes:
    """One code for each request, under a key that all processes share and that is sealed at rest.

    A person who presses twice is sent back twice, with the same code; the database holds its hash alone.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, request_id: str) -> str:
        """The code of that request: 256 bits that nobody can guess from the id."""
        return (
            urlsafe_b64encode(hmac.digest(self._secret, request_id.encode(), hashlib.sha256))
            .decode()
            .rstrip("=")
        )
