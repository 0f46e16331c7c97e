"""Details as they stand in rows: written once, parsed once for each process."""

from functools import lru_cache

from authserver import strict_json
from authserver.policy.delegation_details import DelegationDetails, stored_delegation

_REMEMBERED = 4_096


class StoredDetails:
    """Reads and writes the `details` of delegations; remembers what it parsed."""

    def __init__(self) -> None:
        self.read = lru_cache(_REMEMBERED)(stored_delegation)

    def write(self, details: DelegationDetails) -> str:
        """One line of JSON that `read` takes."""
        return strict_json.write(details.to_json())
