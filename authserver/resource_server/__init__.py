"""What a resource server installs: it takes action tokens for exactly what they say.

    from authserver.resource_server import Money, ResourceServer
    from authserver.resource_server.flask import protect

    shop = protect(app, ResourceServer("https://auth.example", "https://shop.example/api", client_id, client_secret))

    @app.post("/api/orders/<order>/payment")
    @shop.require_action("payment.finalize", amount=total_of, reference=lambda order: order)
    def pay(order):
        ...  # the token was for just this, and is used up now: take the money

The same is there for FastAPI and Starlette (`.fastapi`) and for plain `.wsgi` and `.asgi`; `Verifier`, `Settlement` and
`Introspection` are what it is made of. Where a token is not good for what is about to happen, it is a `TokenRejected`
with the answer of RFC 6750 or RFC 9449; where nobody can tell, it is `IssuerUnavailable`.
What ends is known here within a second, or at once with `ResourceServer.listen()`.
docs/resource-servers.md says more. Needs httpx, and neither Flask nor SQLAlchemy.
"""

from authserver.discovery import IssuerUnavailable
from authserver.resource_server.action_token import ActionToken, Actor, Merchant, StatusReference
from authserver.resource_server.credentials import AsWorkload, ClientSecret, Credentials, PrivateKey
from authserver.resource_server.guarding import (
    Admission,
    AsyncResourceServer,
    ResourceServer,
    Rule,
    RuleIncomplete,
)
from authserver.resource_server.introspection import Introspection
from authserver.resource_server.listening import Listener
from authserver.resource_server.metadata import metadata_document, metadata_url
from authserver.resource_server.presented import Presented
from authserver.resource_server.rejections import (
    InvalidToken,
    NonceRequired,
    NotAllowed,
    ProofRefused,
    ProofRequired,
    TokenMissing,
    TokenRejected,
)
from authserver.resource_server.requirement import Requirement
from authserver.resource_server.security_events import EventReceiver, Heard, SetRefused
from authserver.resource_server.settlement import AsyncSettlement, Redemption, Settlement, SettlementRefused
from authserver.resource_server.verifier import Verifier
from authserver.values import Country, MerchantCategory, Money

__all__ = [
    "ActionToken",
    "Actor",
    "Admission",
    "AsWorkload",
    "AsyncResourceServer",
    "AsyncSettlement",
    "ClientSecret",
    "Country",
    "Credentials",
    "EventReceiver",
    "Heard",
    "Introspection",
    "InvalidToken",
    "IssuerUnavailable",
    "Listener",
    "Merchant",
    "MerchantCategory",
    "Money",
    "NonceRequired",
    "NotAllowed",
    "Presented",
    "PrivateKey",
    "ProofRefused",
    "ProofRequired",
    "Redemption",
    "Requirement",
    "ResourceServer",
    "Rule",
    "RuleIncomplete",
    "SetRefused",
    "Settlement",
    "SettlementRefused",
    "StatusReference",
    "TokenMissing",
    "TokenRejected",
    "Verifier",
    "metadata_document",
    "metadata_url",
]
