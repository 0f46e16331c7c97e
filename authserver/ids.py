"""Names for records: opaque, unguessable, and safe on a command line."""

import secrets


def new_id() -> str:
    """128 random bits as 22 characters of `A-Za-z0-9_`: nothing that a shell or a URL would take for something else."""
    return secrets.token_urlsafe(16).replace("-", "_")
