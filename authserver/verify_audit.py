"""Whether the audit of a running server is as it was written, held to itself and to its witness."""

from authserver.audit.heads import Head, read_file
from authserver.audit.verification import Verified, verify
from authserver.services import Services
from authserver.tokens.signing_keys import all_public


def verify_here(services: Services) -> Verified:
    """Look at all of it. What the witness's file says that cannot be, or that it cannot be read, is a problem too."""
    known, witness = services.database.read(all_public), services.settings.audit.witness_file
    heads, problems = list[Head](), list[str]()
    if witness is not None and witness.exists():
        try:
            with witness.open(encoding="utf-8") as lines:
                heads, problems = read_file(lines, known)
        except (OSError, UnicodeDecodeError):
            problems = ["the witness's file cannot be read"]
    found = services.database.read(lambda connection: verify(connection, known, services.issuer, heads))
    found.problems += problems
    return found
