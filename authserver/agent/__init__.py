"""What an agent installs: it shows a delegation grant, says what it is about to do, and gets a token for just that.

    from authserver.agent import AgentClient, ExchangeRefused

    client = AgentClient("https://auth.example", assertion=read_my_jwt_svid)
    token = client.exchange(grant, {"type": "agent_action", "actions": ["catalog.search"]}, resource=SHOP)

Needs httpx, and neither Flask nor SQLAlchemy.
"""

from authserver.agent.client import AgentClient, ExchangeRefused, HandedOn, IssuedToken, Waiting
from authserver.discovery import IssuerUnavailable

__all__ = ["AgentClient", "ExchangeRefused", "HandedOn", "IssuedToken", "IssuerUnavailable", "Waiting"]
