"""Is the process alive, and can it do its work?"""

from flask import Response
from sqlalchemy import text

from authserver.actors.key_sources import Freshness
from authserver.endpoints.answers import json_answer
from authserver.errors import Refusal
from authserver.services import Services


def alive() -> Response:
    """The process answers."""
    return json_answer({"status": "ok"})


def ready(services: Services) -> Response:
    """The database answers, there is a key to sign with, and each trust domain has keys; 503 where one is missing."""
    checks: dict[str, object] = {"database": _database(services), "signing_key": _signing_key(services)}
    freshness = services.trust_domains.freshness(services.clock.now())
    checks["trust_domains"] = {name: _keys(domain) for name, domain in freshness.items()}
    # Policies that are broken change nothing: those before them go on deciding, and the server does its work.
    checks["policies"] = "ok" if services.policies.problem is None else "stale"
    is_ready = checks["database"] == "ok" and checks["signing_key"] == "ok"
    is_ready = is_ready and all(domain.usable for domain in freshness.values())
    status = "ok" if is_ready else "unavailable"
    return json_answer({"status": status, "checks": checks}, 200 if is_ready else 503)


def _database(services: Services) -> str:
    try:
        services.database.read(lambda connection: connection.execute(text("SELECT 1")))
    except Refusal:
        return "unavailable"
    return "ok"


def _keys(domain: Freshness) -> str:
    if not domain.usable:
        return "unavailable"
    return "ok" if domain.fresh else "stale"


def _signing_key(services: Services) -> str:
    try:
        services.signing_keys.active()
    except (Refusal, ValueError):
        return "unavailable"
    return "ok"
