"""What others must know of this server: its metadata (RFC 8414), its keys, its status lists."""

from flask import Response

from authserver import dpop, jose
from authserver.endpoints.answers import json_answer
from authserver.endpoints.token import EXCHANGE
from authserver.introspect import ended_indices
from authserver.issuing import status_list_uri
from authserver.services import Services
from authserver.tokens import status_lists

STATUS_LIST_TTL = 15  # seconds; contract §7
_KEYS_FRESH_SECONDS = 60


def metadata(services: Services) -> dict[str, object]:
    """The authorization server's metadata (RFC 8414 §2): what it serves today, nothing else."""
    issuer = services.issuer
    own_client_auth = ["private_key_jwt", "jwt-spiffe"]
    return {
        "issuer": issuer,
        "token_endpoint": services.token_endpoint,
        "jwks_uri": f"{issuer}/oauth/jwks",
        "introspection_endpoint": f"{issuer}/oauth/introspect",
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "grant_types_supported": [EXCHANGE],
        "response_types_supported": [],
        "scopes_supported": [
            name for name in services.vocabulary.catalogue.names if not _needs(services, name)
        ],
        "authorization_details_types_supported": ["agent_delegation", "agent_action"],
        "token_endpoint_auth_methods_supported": ["none", *own_client_auth],
        "token_endpoint_auth_signing_alg_values_supported": list(jose.ALGORITHMS),
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", *own_client_auth],
        "introspection_endpoint_auth_signing_alg_values_supported": list(jose.ALGORITHMS),
        "introspection_signing_alg_values_supported": ["ES256"],
        "revocation_endpoint_auth_methods_supported": own_client_auth,
        "revocation_endpoint_auth_signing_alg_values_supported": list(jose.ALGORITHMS),
        "dpop_signing_alg_values_supported": list(dpop.ALGORITHMS),
        "code_challenge_methods_supported": ["S256"],
        "require_pushed_authorization_requests": True,
        # No approvals yet: what needs one is refused, and the agent is told so (contract §8).
        "deferred_token_response_supported": False,
    }


def _needs(services: Services, name: str) -> bool:
    entry = services.vocabulary.catalogue.get(name)
    return entry is None or bool(entry.needs)


def metadata_response(services: Services) -> Response:
    """The metadata, which anyone may keep for a while."""
    return _public(json_answer(metadata(services)))


def jwks_response(services: Services) -> Response:
    """The keys with which tokens of this server verify (RFC 7517)."""
    return _public(json_answer(services.signing_keys.jwks()))


def _public(response: Response) -> Response:
    del response.headers["Pragma"]
    response.headers["Cache-Control"] = f"public, max-age={_KEYS_FRESH_SECONDS}"
    return response


def status_list_response(services: Services, list_id: int) -> Response:
    """A Token Status List as a signed JWT (draft-ietf-oauth-status-list §5.1); 404 where there is none."""
    now = services.clock.now()
    ended = services.database.read(
        lambda connection: (
            ended_indices(services, connection, list_id, now)
            if status_lists.exists(connection, list_id)
            else None
        )
    )
    if ended is None:
        return json_answer({"error": "not_found", "error_description": "there is no such status list"}, 404)
    issued_at = int(now.timestamp())
    claims = {
        "iss": services.issuer,
        "sub": status_list_uri(services, list_id),
        "iat": issued_at,
        "exp": issued_at + 4 * STATUS_LIST_TTL,
        "ttl": STATUS_LIST_TTL,
        "status_list": {"bits": 1, "lst": status_lists.encode(ended)},
    }
    signed = jose.sign(claims, key=services.signing_keys.active(), typ="statuslist+jwt")
    response = Response(signed, mimetype="application/statuslist+jwt")
    response.headers["Cache-Control"] = f"public, max-age={STATUS_LIST_TTL}"
    return response
