"""What others must know of this server: its metadata (RFC 8414) and its keys."""

from flask import Response

from authserver import dpop, jose
from authserver.endpoints.answers import json_answer
from authserver.endpoints.claims import AUTHORIZATION_CODE, DEVICE_CODE
from authserver.endpoints.deferred import DEFERRED
from authserver.endpoints.token import EXCHANGE
from authserver.services import Services

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
        # Ours (RFC 8414 §2 lets metadata say more); the steps of a redemption are beside it, below redemptions/ID/.
        "redemption_endpoint": f"{issuer}/oauth/redeem",
        "task_completion_uri_template": f"{issuer}/oauth/tasks/{{task_id}}/complete",  # RFC 6570
        "authorization_endpoint": f"{issuer}/oauth/authorize",
        "pushed_authorization_request_endpoint": f"{issuer}/oauth/par",
        "device_authorization_endpoint": f"{issuer}/oauth/device_authorization",
        "grant_management_endpoint": f"{issuer}/oauth/grants",
        "grant_management_actions_supported": ["query", "revoke", "create", "merge", "replace"],
        "grant_management_action_required": False,
        "grant_types_supported": [EXCHANGE, AUTHORIZATION_CODE, DEVICE_CODE, DEFERRED],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "acr_values_supported": ["phr"],  # by a passkey (OpenID Connect EAP ACR Values)
        "authorization_response_iss_parameter_supported": True,
        "scopes_supported": [
            name for name in services.vocabulary.catalogue.names if not _needs(services, name)
        ],
        # Ours, too, for resource servers: which tokens are used up by redemption, and which data contain which others.
        "redeemed_actions_supported": [
            name for name, entry in services.vocabulary.catalogue.entries.items() if entry.redeem
        ],
        "datatypes_supported": {
            name: sorted(contained - {name})
            for name, contained in services.vocabulary.datatypes.contains.items()
        },
        "authorization_details_types_supported": ["agent_delegation", "agent_action"],
        "token_endpoint_auth_methods_supported": ["none", *own_client_auth],
        "token_endpoint_auth_signing_alg_values_supported": list(jose.ALGORITHMS),
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", *own_client_auth],
        "introspection_endpoint_auth_signing_alg_values_supported": list(jose.ALGORITHMS),
        "introspection_signing_alg_values_supported": ["ES256"],
        "revocation_endpoint_auth_methods_supported": own_client_auth,
        "revocation_endpoint_auth_signing_alg_values_supported": list(jose.ALGORITHMS),
        "dpop_signing_alg_values_supported": list(dpop.ALGORITHMS),
        "client_id_metadata_document_supported": True,
        "code_challenge_methods_supported": ["S256"],
        "require_pushed_authorization_requests": True,
        "deferred_token_response_supported": True,
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
