"""How a resource server says who it is."""

from urllib.parse import quote_plus

import httpx


def client_secret_basic(client_id: str, client_secret: str) -> httpx.BasicAuth:
    """The `id` and the secret that `resource-servers create` printed, as each request carries them."""
    # RFC 6749 §2.3.1: both are form-encoded before they are joined.
    return httpx.BasicAuth(quote_plus(client_id), quote_plus(client_secret))
