"""What was shown, as one short text that can be held against what is executed (contract §8)."""

import base64
import hashlib
import json

import rfc8785


def details_hash(details: str) -> str:
    """The SHA-256, in base64url, of the canonical JSON (RFC 8785) of an `agent_action`, given as JSON.

    Whoever holds the action token can compute it from its `authorization_details`.
    """
    digest = hashlib.sha256(rfc8785.dumps(json.loads(details))).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
