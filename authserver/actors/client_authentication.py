"""How agents and resource servers prove who they are at every endpoint but the exchange (contract §3)."""

import base64
import hmac
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache, partial
from urllib.parse import unquote_plus

from sqlalchemy import Connection

from authserver import strict_json
from authserver.actors import agents, replay, resource_servers
from authserver.actors.agents import Agent
from authserver.actors.key_sources import JWKS_USES
from authserver.actors.resource_servers import ResourceServer
from authserver.actors.trust_domains import TrustDomains, Workload
from authserver.errors import Refusal
from authserver.jose import (
    ALGORITHMS,
    LEEWAY,
    KeysRefused,
    TokenRefused,
    UnverifiedToken,
    VerificationKey,
    numeric_date,
    read_compact,
    single_audience,
    text_claim,
    usable_keys,
    verify,
)

JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Client = Agent | ResourceServer
UseUp = Callable[[str, str, datetime], None]  # issuer, jti, expires_at; raises `replay.Replayed`

# RFC 7523 §3 point 4 lets a server refuse an `exp` that is far away; it also bounds the memory of seen
# tokens.
_LONGEST_ASSERTION = timedelta(hours=1)
_LONGEST_ID = 1024
_LONGEST_JTI = 256
MAX_JWKS_BYTES = 65_536  # of the JWK Set that is registered for a client
_ASSERTION_TYPES = frozenset({None, "jwt", "client-authentication+jwt"})
_BASIC_PART = re.compile(r"[\x21-\x7e]{1,256}")
_NO_SECRET = bytes(32)


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """What a request brought to say who sends it, unverified: the `Authorization` header, three parameters."""

    authorization: str | None = field(default=None, repr=False)
    client_id: str | None = None
    client_assertion_type: str | None = None
    client_assertion: str | None = field(default=None, repr=False)


def authenticate(
    connection: Connection,
    credentials: ClientCredentials,
    trust_domains: TrustDomains,
    now: datetime,
    *,
    issuer: str,
    token_endpoint: str,
    use_up: UseUp | None = None,
) -> Client:
    """The enabled agent or resource server that sent a request.

    `connection` must be of a transaction that is committed afterwards: a `jti` that may be used once is
    written down in it. Where it may be rolled back, `use_up` writes it down and remembers to do so again.
    Raises `Refusal`: `invalid_request` where two ways are used at once (RFC 6749 §2.3), else
    `invalid_client` with 401 and one description for all causes; `rule` tells them apart for the audit.
    """
    if credentials.authorization is not None and credentials.client_assertion is not None:
        raise Refusal("invalid_request", "more than one way of client authentication", rule="client.two_ways")
    try:
        if credentials.authorization is not None:
            client: Client = _by_secret(connection, credentials.authorization, now)
        else:
            use_up = use_up or partial(replay.remember, connection)
            client = _by_assertion(
                connection, credentials, trust_domains, now, issuer, token_endpoint, use_up
            )
        _check_standing(client, credentials.client_id)
    except TokenRefused as refused:
        raise failed(refused.reason, credentials, issuer) from refused
    except replay.Replayed as replayed:
        raise failed("client.replayed", credentials, issuer) from replayed
    return client


def failed(rule: str, credentials: ClientCredentials, issuer: str) -> Refusal:
    """The one answer to whoever is not the client it says, whatever the reason; `rule` is for the audit."""
    # RFC 6749 §5.2: whoever tried the Authorization header is told the scheme that it takes.
    headers = {} if credentials.authorization is None else {"WWW-Authenticate": f'Basic realm="{issuer}"'}
    return Refusal("invalid_client", "client authentication failed", rule=rule, status=401, headers=headers)


def _check_standing(client: Client, client_id: str | None) -> None:
    if client.disabled_at is not None:
        raise TokenRefused("client.disabled")
    own_id = client.client_id if isinstance(client, Agent) else client.id
    if client_id is not None and client_id != own_id:
        raise TokenRefused("client.other_client_id")


def prepare(credentials: ClientCredentials, trust_domains: TrustDomains, now: datetime, issuer: str) -> None:
    """Fetch what `authenticate` will need to verify a workload assertion: to be called before its transaction.

    A slow key server must not hold the database's locks; what is verified here is remembered there.
    """
    if credentials.client_assertion is not None:
        with suppress(TokenRefused):
            trust_domains.verify(credentials.client_assertion, now, audiences=frozenset({issuer}))


def _by_secret(connection: Connection, unverified_header: str, now: datetime) -> ResourceServer:
    id, secret = _read_basic(unverified_header)
    server = resource_servers.find(connection, id)
    takes = server.secret_hashes(now) if server and server.auth_method == "client_secret_basic" else ()
    # Compared in any case, so that the time tells nothing about which ids there are.
    said = resource_servers.hash_secret(secret)
    equal = [hmac.compare_digest(said, expected) for expected in takes or (_NO_SECRET,)]
    if server is None or not takes or not any(equal):
        raise TokenRefused("client.secret")
    return server


def _read_basic(unverified_header: str) -> tuple[str, str]:
    scheme, _, value = unverified_header.partition(" ")
    if scheme.lower() != "basic" or len(value) > 2048:
        raise TokenRefused("client.scheme")
    try:
        id, _, secret = base64.b64decode(value, validate=True).decode("ascii").partition(":")
    except ValueError as error:
        raise TokenRefused("client.basic") from error
    # RFC 6749 §2.3.1: both parts are form-encoded.
    id, secret = unquote_plus(id), unquote_plus(secret)
    if not _BASIC_PART.fullmatch(id) or not _BASIC_PART.fullmatch(secret):
        raise TokenRefused("client.basic")
    return id, secret


def _by_assertion(
    connection: Connection,
    credentials: ClientCredentials,
    trust_domains: TrustDomains,
    now: datetime,
    issuer: str,
    token_endpoint: str,
    use_up: UseUp,
) -> Client:
    text = credentials.client_assertion
    if text is None:
        raise TokenRefused("client.none")
    if credentials.client_assertion_type not in (JWT_SPIFFE, JWT_BEARER):
        raise TokenRefused("client.assertion_type")
    is_spiffe = credentials.client_assertion_type == JWT_SPIFFE
    if not is_spiffe:
        token = read_compact(text)
        # RFC 7523 §3: a client that speaks for itself is both issuer and subject.
        if token.claims.get("iss") == token.claims.get("sub"):
            return _by_private_key(connection, token, now, frozenset({issuer, token_endpoint}), use_up)
    workload = trust_domains.verify(text, now, audiences=frozenset({issuer}))
    if is_spiffe != (trust_domains.kind_of(workload.trust_domain) == "spiffe"):
        raise TokenRefused("client.assertion_type")
    return _by_workload(connection, workload, use_up)


def _by_workload(connection: Connection, workload: Workload, use_up: UseUp) -> Client:
    client = agents.find_by_workload(
        connection, workload.trust_domain, workload.subject
    ) or _server_of_workload(connection, workload)
    if client is None:
        raise TokenRefused("client.unknown")
    if workload.refuse_repeated_jti and workload.jti is not None:
        use_up(workload.issuer, workload.jti, workload.expires_at)
    return client


def _server_of_workload(connection: Connection, workload: Workload) -> ResourceServer | None:
    # A SPIFFE ID names its trust domain itself; the subject of any other kind means nothing without its
    # issuer.
    if not workload.issuer.startswith("spiffe://"):
        return None
    server = resource_servers.find_by_subject(connection, workload.subject)
    return server if server and server.auth_method == "jwt-spiffe" else None


def _by_private_key(
    connection: Connection,
    token: UnverifiedToken,
    now: datetime,
    audiences: frozenset[str],
    use_up: UseUp,
) -> Client:
    client_id = text_claim(token.claims, "sub", _LONGEST_ID)
    jti = text_claim(token.claims, "jti", _LONGEST_JTI)
    if client_id is None or jti is None:
        raise TokenRefused("jwt.sub" if client_id is None else "jwt.jti")
    typ = token.header.typ
    if typ is not None and typ.lower().removeprefix("application/") not in _ASSERTION_TYPES:
        raise TokenRefused("client.type")
    if single_audience(token.claims) not in audiences:
        raise TokenRefused("client.audience")
    expires_at = _check_times(token, now)
    client = _client_with_keys(connection, client_id)
    verify(token, _registered_keys(client.jwks or ""), ALGORITHMS)
    # INVARIANT: a jti is written down only after its signature was good, so nobody can use up another's
    # (test_a_forged_client_assertion_uses_up_nothing).
    use_up(f"client:{client_id}", jti, expires_at)
    return client


def _check_times(token: UnverifiedToken, now: datetime) -> datetime:
    expires_at = numeric_date(token.claims, "exp")
    if expires_at is None:
        raise TokenRefused("jwt.exp")
    if now >= expires_at + LEEWAY:
        raise TokenRefused("client.expired")
    if expires_at > now + _LONGEST_ASSERTION + LEEWAY:
        raise TokenRefused("client.lifetime")
    for name in ("nbf", "iat"):
        begin = numeric_date(token.claims, name)
        if begin is not None and begin > now + LEEWAY:
            raise TokenRefused("client.not_yet_valid")
    return expires_at


def _client_with_keys(connection: Connection, client_id: str) -> Client:
    agent = agents.find(connection, client_id)
    if agent is not None and agent.jwks:
        return agent
    server = resource_servers.find(connection, client_id)
    if server is not None and server.auth_method == "private_key_jwt" and server.jwks:
        return server
    raise TokenRefused("client.unknown")


@lru_cache(maxsize=256)
def _registered_keys(jwks: str) -> tuple[VerificationKey, ...]:
    try:
        return usable_keys(strict_json.parse(jwks, max_bytes=MAX_JWKS_BYTES), uses=JWKS_USES)
    except (strict_json.JsonRefused, KeysRefused) as error:
        raise TokenRefused("client.keys") from error
