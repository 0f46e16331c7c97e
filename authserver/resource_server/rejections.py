"""Why a resource server says no, each with the answer that RFC 6750 §3 has for it."""

from typing import ClassVar

from authserver.errors import Violation

_IN_WORDS = {
    "token.exp": "the token has expired",
    "token.aud": "the token is for another place",
    "token.ended": "the token has ended",
}


class TokenRejected(Exception):
    """A request that is not allowed. `status` is the HTTP status, `challenge` the `WWW-Authenticate` header.

    `reason` is a short code of ours for logs, `description` is for the caller; neither is ever text of the token.
    """

    status: ClassVar[int] = 401
    error: ClassVar[str] = "invalid_token"
    scheme: ClassVar[str] = "Bearer"

    def __init__(self, reason: str, description: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.description = description or _IN_WORDS.get(reason, "the token is not acceptable")

    @property
    def challenge(self) -> str:
        """The value of `WWW-Authenticate`."""
        return f'{self.scheme} error="{self.error}", error_description="{self.description}"'


class TokenMissing(TokenRejected):
    """The request carries no token at all."""

    @property
    def challenge(self) -> str:
        """The bare scheme: RFC 6750 §3.1 wants no error code where no token was sent."""
        return self.scheme


class InvalidToken(TokenRejected):
    """Forged, foreign, malformed, expired, or for another place."""


class ProofRequired(TokenRejected):
    """The token is bound to a key of the agent (RFC 9449), and the proof of it is not checked here yet."""

    scheme = "DPoP"


class NotAllowed(TokenRejected):
    """A good token, for something else than what is about to happen. `violations` says each difference."""

    status = 403
    error = "insufficient_scope"

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__("token.authorization_details", "the token is for something else")
        self.violations = violations
