"""Why a resource server says no, each with the answer that RFC 6750 §3 has for it."""

from typing import ClassVar

from authserver.errors import Violation


class TokenRejected(Exception):
    """A request that is not allowed. `status` is the HTTP status, `challenge` the `WWW-Authenticate` header.

    `reason` is a short text or code of ours for logs and answers, never text of the token.
    """

    status: ClassVar[int] = 401
    error: ClassVar[str] = "invalid_token"
    scheme: ClassVar[str] = "Bearer"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def challenge(self) -> str:
        """The value of `WWW-Authenticate`."""
        return f'{self.scheme} error="{self.error}", error_description="{self.reason}"'


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
        super().__init__("the token is for something else")
        self.violations = violations
