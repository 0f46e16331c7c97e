"""What a resource server installs: it takes action tokens for exactly what they say.

    from authserver.resource_server import Settlement, Verifier, bearer_token

    verifier = Verifier("https://auth.example", "https://shop.example/api")
    settlement = Settlement("https://auth.example", client_id, client_secret)

    presented = bearer_token(request.headers.get("Authorization"))
    token, total = verifier.verify(presented), Money.parse("EUR", "42.50")
    token.require("payment.finalize", amount=total, reference="order-1")
    settlement.redeem(presented, total)

Where a token is not good for what is about to happen, it is a `TokenRejected` with the HTTP status and the
`WWW-Authenticate` header of RFC 6750; where it may not be used any more, a `SettlementRefused`.
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
from authserver.resource_server.settlement import Redemption, Settlement, SettlementRefused
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
    "Redemption",
    "Settlement",
    "SettlementRefused",
    "TokenMissing",
    "TokenRejected",
    "Verifier",
    "bearer_token",
]
