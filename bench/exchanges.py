"""What an exchange looks like on the wire, for the server and for the peer alike."""

import json
import time
from secrets import token_urlsafe
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import ECKey

from bench.load import http_request

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
HAS_TOKEN = rb'"access_token": ?"ey'
IS_CAPTURED = rb'"state": ?"captured"'
IS_ACTIVE = rb'"active": ?true'
SHOP = "https://shop.example/api"
DOMAIN = "bench.example"

ACTION = {
    "type": "agent_action",
    "actions": ["payment.finalize"],
    "amount": {"currency": "EUR", "value": "1.25"},
    "merchant": {"id": "m_123", "category": "5411", "country": "NL", "name": "Example Foods"},
    "reference": "cart-889",
}


def delegation(expires: str) -> dict[str, object]:
    """An agent_delegation of the contract's size whose budget no benchmark can use up."""
    return {
        "type": "agent_delegation",
        "actions": ["catalog.search", "order.checkout", "payment.finalize"],
        "locations": [SHOP],
        "limits": {
            "currency": "EUR",
            "per_action": "80.00",
            "total": "900000000.00",
            "per_period": [{"amount": "90000000.00", "period": "P7D"}],
        },
        "merchants": {"categories": ["5411", "5811-5814"], "countries": ["NL", "DE"]},
        "datatypes": ["shipping_address"],
        "expires": expires,
    }


def subject_of(agent: int) -> str:
    """The workload of the agent with that number."""
    return f"spiffe://{DOMAIN}/agents/agent-{agent}"


def assertion(key: ECKey, subject: str, audience: str) -> str:
    """A JWT-SVID for one workload, different from every other."""
    now = int(time.time())
    claims = {"sub": subject, "aud": [audience], "iat": now, "exp": now + 3000, "jti": token_urlsafe(16)}
    return jwt.encode({"alg": "ES256", "kid": key.thumbprint(), "typ": "JWT"}, claims, key)


def exchange_request(grant: str, actor: str, **more: str) -> bytes:
    """One full exchange for a payment at the shop."""
    form = {
        "grant_type": EXCHANGE,
        "subject_token": grant,
        "subject_token_type": JWT_TYPE,
        "actor_token": actor,
        "actor_token_type": JWT_TYPE,
        "resource": SHOP,
        "authorization_details": json.dumps([ACTION]),
        **more,
    }
    return http_request("/oauth/token", urlencode(form).encode())
