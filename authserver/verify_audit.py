"""Whether the audit of a running server is as it was written, held to itself and to its witness."""

from collections.abc import Iterable

from authserver.audit.heads import read_file
from authserver.audit.verification import Verified, verify
from authserver.services import Services
from authserver.tokens.signing_keys import all_public


def verify_here(services: Services) -> Verified:
    """Look at all of it. What the witness's file says that cannot be, or that it cannot be read, is a problem too."""
    witness = services.settings.audit.witness_file
    if witness is None or not witness.exists():
        return verify_against(services, ())
    try:
        with witness.open(encoding="utf-8") as lines:
            return verify_against(services, lines)
    except (OSError, UnicodeDecodeError):
        found = verify_against(services, ())
        found.problems.append("the witness's file cannot be read")
        return found


def verify_against(services: Services, lines: Iterable[str]) -> Verified:
    """The same, held to these lines of a witness's file."""
    known = services.database.read(all_public)
    heads, problems = read_file(lines, known)
    found = services.database.read(lambda connection: verify(connection, known, services.issuer, heads))
    found.problems += problems
    return found
