"""What a resource server says of itself (RFC 9728), so that agents find the server that its tokens come from."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from authserver import dpop


def metadata_url(identifier: str) -> str:
    """Where the metadata of a resource server is: the well-known part stands before the identifier's path (§3.1)."""
    parts = urlsplit(identifier)
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path.rstrip('/')}"


def metadata_document(
    issuer: str, identifier: str, name: str | None = None, scopes: Sequence[str] = ()
) -> dict[str, object]:
    """The metadata (§2): one authorization server, tokens in the header alone, DPoP where a token is bound.

    `scopes` are the actions that an agent needs to begin with; what more it needs, a challenge names.
    """
    document: dict[str, object] = {
        "resource": identifier,
        "authorization_servers": [issuer],
        "bearer_methods_supported": ["header"],
        "authorization_details_types_supported": ["agent_action"],
        "dpop_signing_alg_values_supported": list(dpop.ALGORITHMS),
    }
    said = {"resource_name": name, "scopes_supported": list(scopes) or None}
    return document | {member: value for member, value in said.items() if value is not None}
