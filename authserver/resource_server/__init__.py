"""What a resource server installs: it takes action tokens for exactly what they say.

    from authserver.resource_server import Verifier, bearer_token

    verifier = Verifier("https://auth.example", "https://shop.example/api")
    token = verifier.verify(bearer_token(request.headers.get("Authorization")))
    token.require("payment.finalize", amount=Money.parse("EUR", "42.50"), reference="order-1")

Every refusal is a `TokenRejected` with the HTTP status and the `WWW-Authenticate` header of RFC 6750.
Needs httpx, and neither Flask nor SQLAlchemy.
"""

from authserver.discovery import IssuerUnavailable
from authserver.resource_server.action_token import ActionToken, Actor, Merchant
from authserver.resource_server.introspection import Introspection
from authserver.resource_server.rejections import (
    InvalidToken,
    NotAllowed,
    ProofRequired,
    TokenMissing,
    TokenRejected,
)
from authserver.resource_server.verifier import Verifier, bearer_token

__all__ = [
    "ActionToken",
    "Actor",
    "Introspection",
    "InvalidToken",
    "IssuerUnavailable",
    "Merchant",
    "NotAllowed",
    "ProofRequired",
    "TokenMissing",
    "TokenRejected",
    "Verifier",
    "bearer_token",
]
