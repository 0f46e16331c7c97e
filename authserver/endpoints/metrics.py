"""`GET /metrics`: what Prometheus reads, for whoever may."""

import hmac
import ipaddress

from flask import Request, Response

from authserver import metrics, observe
from authserver.config import MetricsSettings
from authserver.errors import Refusal
from authserver.services import Services

# Whoever asks through a proxy is not who the connection comes from.
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")


def respond(services: Services, request: Request) -> Response:
    """Answer one scrape. Raises `Refusal` (403, or 401 where a token would do)."""
    _may_read(services.settings.metrics, request)
    response = Response(observe.exposition(services, services.clock.now()), content_type=metrics.CONTENT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    return response


def _may_read(settings: MetricsSettings, request: Request) -> None:
    if _is_near(settings, request) or _has_token(settings, request):
        return
    if settings.token is None:
        raise Refusal("forbidden", "metrics are for the operator's networks", "metrics.network", status=403)
    raise Refusal(
        "invalid_token",
        "metrics take the operator's token",
        "metrics.token",
        status=401,
        headers={"WWW-Authenticate": "Bearer"},
    )


def _is_near(settings: MetricsSettings, request: Request) -> bool:
    if any(name in request.headers for name in _FORWARDED):
        return False
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in settings.networks)


def _has_token(settings: MetricsSettings, request: Request) -> bool:
    scheme, _, said = request.headers.get("Authorization", "").partition(" ")
    if settings.token is None or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(said.encode("utf-8", "replace"), settings.token.get_secret_value().encode())
