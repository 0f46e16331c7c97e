"""The cookies that pages use, and the tokens against forged requests that belong to them.

A session's token is made from its secret, and that of somebody who is not signed in from the secret in their visitor's
cookie: so nobody can say one without having the cookie, and nothing has to be kept.
"""

import base64
import hashlib
import hmac
import secrets

from flask import Request, Response

from authserver.services import Services

SESSION, VISITOR, LANGUAGE = "session", "visitor", "language"
_A_YEAR = 31_536_000


def read(services: Services, request: Request, name: str) -> str | None:
    """The value of one of our cookies. Two of one name are none: one of them is somebody else's (threats A114)."""
    values = request.cookies.getlist(_full_name(services, name))
    return values[0] if len(values) == 1 and 0 < len(values[0]) <= 200 else None


def write(services: Services, response: Response, name: str, value: str, *, kept: bool = False) -> None:
    """Set one: only for this host, only over TLS where there is TLS, out of reach of scripts."""
    response.set_cookie(
        _full_name(services, name),
        value,
        max_age=_A_YEAR if kept else None,
        path="/",
        secure=_has_tls(services),
        httponly=True,
        samesite="Lax",
    )


def clear(services: Services, response: Response, name: str) -> None:
    """Take one away."""
    response.delete_cookie(
        _full_name(services, name), path="/", secure=_has_tls(services), httponly=True, samesite="Lax"
    )


def new_visitor() -> str:
    """The value of a new visitor's cookie."""
    return secrets.token_urlsafe(32)


def csrf_of(secret: str) -> str:
    """The token that a form carries for the cookie of that value."""
    digest = hmac.digest(secret.encode(), b"csrf", hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _full_name(services: Services, name: str) -> str:
    # A browser takes `__Host-` only over TLS, for this host alone and for all of it; no sub-domain can set it.
    return f"__Host-{name}" if _has_tls(services) else name


def _has_tls(services: Services) -> bool:
    return services.issuer.startswith("https:")
