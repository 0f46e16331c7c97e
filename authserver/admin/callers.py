"""Who calls the API: a program with an API token, a workload or a person that a trust domain vouches for, or a session.

Each has one role, and a name for the audit.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from flask import Request
from sqlalchemy import Connection

from authserver.accounts import api_tokens
from authserver.actors import replay
from authserver.actors.trust_domains import Workload
from authserver.administration.roles import Role
from authserver.config import ApiCallerSettings
from authserver.errors import Refusal
from authserver.jose import TokenRefused, read_compact
from authserver.pages import signed_in
from authserver.pages.signed_in import NotSignedIn, SignedIn
from authserver.services import Services

CSRF_HEADER = "X-CSRF-Token"
NOT_RECENT = "api.not_recent"  # the one refusal with 401 of somebody who is known
_READS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls; `by` names them in the audit: `api_token:ID`, `workload:SUBJECT` or `user:ID`."""

    by: str
    role: Role


def caller_of(services: Services, request: Request, now: datetime) -> Caller:
    """Who is calling. Raises `Refusal`: 401, or 403 for somebody who is known and has no role here."""
    header = request.headers.get("Authorization")
    if header is None:
        return _of_session(services, request)
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "bearer" or not text or not text.isascii():
        raise _nobody(services, "api.scheme")
    if text.startswith(api_tokens.PREFIX):
        return _of_token(services, text, now)
    return _of_assertion(services, text, now)


# --- programs with a token ----------------------------------------------------------------------------------------


def _of_token(services: Services, unverified_text: str, now: datetime) -> Caller:
    token = services.database.read(lambda connection: api_tokens.find_by_text(connection, unverified_text))
    if token is None or not token.is_good(now):
        raise _nobody(services, "api.token" if token is None else "api.token_ended", "invalid_token")
    if api_tokens.should_be_seen(token, now):
        services.database.write(lambda connection: api_tokens.see(connection, token, now))
    return Caller(f"api_token:{token.id}", Role(token.role))


# --- whom a trust domain vouches for ------------------------------------------------------------------------------


def _of_assertion(services: Services, unverified_text: str, now: datetime) -> Caller:
    if not services.settings.api.callers:
        raise _nobody(services, "api.token", "invalid_token")
    try:
        workload = services.trust_domains.verify(unverified_text, now, audiences=frozenset({services.issuer}))
        claims = read_compact(unverified_text).claims  # which were verified just now
        role = next(
            (Role(c.role) for c in services.settings.api.callers if _is_meant(c, workload, claims)), None
        )
        if role is not None and workload.refuse_repeated_jti and workload.jti is not None:
            _use_up(services, workload, workload.jti)
    except TokenRefused as refused:
        raise _nobody(services, refused.reason, "invalid_token") from refused
    except replay.Replayed as replayed:
        raise _nobody(services, "api.replayed", "invalid_token") from replayed
    if role is None:
        raise _no_role()
    return Caller(_name_of(services, workload), role)


def _is_meant(caller: ApiCallerSettings, workload: Workload, claims: object) -> bool:
    if caller.trust_domain != workload.trust_domain:
        return False
    if caller.subject is not None:
        return caller.subject == workload.subject
    said = claims.get(caller.claim) if isinstance(claims, dict) else None
    return caller.value in said if isinstance(said, list) else said == caller.value


def _use_up(services: Services, workload: Workload, jti: str) -> None:
    def write(connection: Connection) -> None:
        replay.remember(connection, workload.issuer, jti, workload.expires_at)

    services.database.write(write)


def _name_of(services: Services, workload: Workload) -> str:
    if services.trust_domains.kind_of(workload.trust_domain) == "spiffe":
        return f"workload:{workload.subject}"
    return f"workload:{workload.trust_domain}:{workload.subject}"


# --- people of the console ----------------------------------------------------------------------------------------


def _of_session(services: Services, request: Request) -> Caller:
    who = signed_in.look(services, request)
    if who is None:
        raise _nobody(services, "api.none")
    role = who.user.role
    if role is None or role not in set(Role):
        raise _no_role()
    if request.method not in _READS:
        _sent_on_purpose(services, request, who)
    return Caller(f"user:{who.user.user_id}", Role(role))


def _sent_on_purpose(services: Services, request: Request, who: SignedIn) -> None:
    """A cookie goes along by itself, whoever caused the request: a write says more (threats A84)."""
    origin, own = request.headers.get("Origin"), urlsplit(services.issuer)
    said = request.headers.get(CSRF_HEADER, "").encode("latin-1", "replace")
    if origin is not None and origin != f"{own.scheme}://{own.netloc}":
        raise Refusal("access_denied", "the request comes from another site", rule="api.origin", status=403)
    if not hmac.compare_digest(who.csrf.encode(), said):
        raise Refusal(
            "access_denied", f"{CSRF_HEADER} takes the token of the session", rule="api.csrf", status=403
        )
    try:
        signed_in.require_recent(services, request)
    except NotSignedIn as again:
        longest = services.settings.pages.reauthenticate_after
        raise _nobody(
            services, NOT_RECENT, "insufficient_user_authentication", f", max_age={longest}"
        ) from again


def _nobody(services: Services, rule: str, error: str | None = None, also: str = "") -> Refusal:
    # RFC 6750 §3: whoever brought nothing is told the scheme alone.
    code = f', error="{error}"{also}' if error else ""
    return Refusal(
        error or "unauthorized",
        "who calls is not known; bring a good token",
        rule=rule,
        status=401,
        headers={"WWW-Authenticate": f'Bearer realm="{services.issuer}"{code}'},
    )


def _no_role() -> Refusal:
    return Refusal("access_denied", "the caller has no role here", rule="api.no_role", status=403)
