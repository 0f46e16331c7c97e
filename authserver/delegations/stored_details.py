"""Details as they stand in rows: written once, parsed once for each process."""

from functools import lru_cache

from authserver import strict_json
from authserver.policy.details import DelegationDetails, Vocabulary, parse_delegation

_REMEMBERED = 4_096
_MAX_BYTES = 65_536


class StoredDetails:
    """Reads and writes the `details` of delegations in one vocabulary; remembers what it parsed."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.read = lru_cache(_REMEMBERED)(self._parsed)

    def write(self, details: DelegationDetails) -> str:
        """One line of JSON that `read` takes."""
        return strict_json.write(details.to_json())

    def _parsed(self, text: str) -> DelegationDetails:
        return parse_delegation(strict_json.parse(text, max_bytes=_MAX_BYTES), self.vocabulary)
