"""Why a resource server says no, each with the answer that RFC 6750 §3 and RFC 9449 §7 have for it."""

from collections.abc import Mapping
from typing import ClassVar, Self

from authserver import dpop, strict_json
from authserver.errors import Violation

_IN_WORDS = {
    "token.exp": "the token has expired",
    "token.aud": "the token is for another place",
    "token.ended": "the token has ended",
}
_DPOP = ("algs", " ".join(dpop.ALGORITHMS))


class TokenRejected(Exception):
    """A request that is not allowed. `status` is the HTTP status, `headers()` and `to_json()` are the answer.

    `reason` is a short code of ours for logs, `description` is for the caller; neither is ever text of the token.
    `wanted` is the `agent_action` that would do, where that may be told: what the agent asks its server for next.
    `scope` is its action, where nothing but that is needed, so that it may be asked for as a scope.
    """

    status: ClassVar[int] = 401
    error: ClassVar[str] = "invalid_token"
    schemes: tuple[str, ...] = ("Bearer",)

    def __init__(self, reason: str, description: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.description = description or _IN_WORDS.get(reason, "the token is not acceptable")
        self.wanted: Mapping[str, object] | None = None
        self.scope: str | None = None
        self.nonce: str | None = None

    def presented_by(self, scheme: str) -> Self:
        """The same, told in the scheme that the request used."""
        self.schemes = (scheme,)
        return self

    def wanting(self, wanted: Mapping[str, object], scope: str | None = None) -> Self:
        """The same, with what would do."""
        self.wanted, self.scope = wanted, scope
        return self

    @property
    def challenge(self) -> str:
        """The value of `WWW-Authenticate`, for a resource server without published metadata."""
        return self.challenge_of(None)

    def challenge_of(self, resource_metadata: str | None) -> str:
        """The value of `WWW-Authenticate`; `resource_metadata` is the URL of the metadata document (RFC 9728 §5.1)."""
        said = [
            *self._said(),
            ("scope", self.scope),
            ("resource_metadata", resource_metadata),
            ("authorization_details", self._wanted()),
        ]
        parameters = [(name, value) for name, value in said if value is not None]
        return ", ".join(_challenge(scheme, parameters) for scheme in self.schemes)

    def headers(self, resource_metadata: str | None = None) -> dict[str, str]:
        """All headers of the answer but its `Content-Type`, which is `application/json`."""
        headers = {"WWW-Authenticate": self.challenge_of(resource_metadata), "Cache-Control": "no-store"}
        return headers | ({"DPoP-Nonce": self.nonce} if self.nonce is not None else {})

    def to_json(self) -> dict[str, object]:
        """The body of the answer; `authorization_details` says what would do, as one would send it to the server."""
        body: dict[str, object] = {"error": self.error, "error_description": self.description}
        return body | ({} if self.wanted is None else {"authorization_details": [dict(self.wanted)]})

    def _said(self) -> list[tuple[str, str | None]]:
        return [("error", self.error), ("error_description", self.description)]

    def _wanted(self) -> str | None:
        return None if self.wanted is None else strict_json.write([dict(self.wanted)])


class TokenMissing(TokenRejected):
    """The request carries no token at all."""

    schemes = ("Bearer", "DPoP")

    def _said(self) -> list[tuple[str, str | None]]:
        return []  # RFC 6750 §3.1: no error code where no token was sent


class InvalidToken(TokenRejected):
    """Forged, foreign, malformed, expired, ended, or for another place."""


class ProofRequired(TokenRejected):
    """The token is bound to a key of the agent (RFC 9449 §7.1), and was sent as if it were not."""

    schemes = ("DPoP",)


class ProofRefused(TokenRejected):
    """The DPoP proof is not good: for another request, token or key, from another time, or used before."""

    error = "invalid_dpop_proof"
    schemes = ("DPoP",)


class NonceRequired(TokenRejected):
    """The DPoP proof needs the nonce of this resource server, which the answer brings (RFC 9449 §9)."""

    error = "use_dpop_nonce"
    schemes = ("DPoP",)


class NotAllowed(TokenRejected):
    """A good token, for something else than what is about to happen. `violations` says each difference."""

    status = 403
    error = "insufficient_scope"

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__("token.authorization_details", "the token is for something else")
        self.violations = violations

    def to_json(self) -> dict[str, object]:
        """The body, with the differences."""
        return super().to_json() | {"violations": [violation.to_json() for violation in self.violations]}


def _challenge(scheme: str, parameters: list[tuple[str, str]]) -> str:
    # RFC 9449 §7.1: a challenge for DPoP says which algorithms are taken.
    said = [*parameters, _DPOP] if scheme == "DPoP" else parameters
    return f"{scheme} {', '.join(f'{name}={_quoted(value)}' for name, value in said)}".rstrip()


def _quoted(text: str) -> str:
    # RFC 9110 §5.6.4; all that is ever said here is ASCII (strict_json.write escapes the rest).
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
