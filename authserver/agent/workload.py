"""Where an agent's workload assertion comes from: what proves which workload is calling (contract §3)."""

import base64
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from authserver import strict_json
from authserver.discovery import WorkloadUnknown

if TYPE_CHECKING:
    from spiffe import WorkloadApiClient

_LONGEST = 16 * 1024
_PROJECTED = Path("/var/run/secrets/tokens/authserver")


class Workload(Protocol):
    """Whoever has the workload's assertion."""

    def assertion(self, audience: str) -> str:
        """A JWT for that audience, the authorization server's issuer identifier, that is good now.

        Called for every request; it may block. Raises `WorkloadUnknown`.
        """


class TokenFile:
    """An assertion in a file that something else keeps fresh; it is read anew for every request."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def assertion(self, audience: str) -> str:
        """See `Workload`; whoever writes the file chooses the audience."""
        try:
            with self._path.open(encoding="ascii") as file:
                text = file.read(_LONGEST + 1).strip()
        except (OSError, ValueError) as error:
            raise WorkloadUnknown(f"{self._path} cannot be read: {type(error).__name__}") from error
        if not text or len(text) > _LONGEST:
            raise WorkloadUnknown(f"{self._path} holds no token")
        return text


class KubernetesToken(TokenFile):
    """The projected service-account token of a pod, which the kubelet writes anew before it is old.

    The volume's `audience` must be the issuer identifier (docs/agents.md shows a manifest).
    """

    def __init__(self, path: str | Path = _PROJECTED) -> None:
        super().__init__(path)


class SpiffeWorkloadApi:
    """JWT-SVIDs from the SPIFFE Workload API, such as a SPIRE agent's socket. Needs `authserver[spiffe]`."""

    def __init__(self, socket: str | None = None, *, timeout: float = 5.0) -> None:
        """`socket` is such as `unix:///run/spire/agent.sock`; without it, `SPIFFE_ENDPOINT_SOCKET` says it.

        The agent keeps the SVIDs, and answers from what it keeps: each request gets one that is good now. `timeout` is
        in seconds.
        """
        self._socket, self._timeout = socket, timeout
        self._client: WorkloadApiClient | None = None
        self._lock = threading.Lock()

    def assertion(self, audience: str) -> str:
        """See `Workload`."""
        try:
            # Only whoever uses it has it.
            from spiffe import WorkloadApiClient
            from spiffe.errors import PySpiffeError
        except ImportError as error:
            raise WorkloadUnknown("the SPIFFE Workload API needs authserver[spiffe]") from error
        try:
            with self._lock:
                if self._client is None:
                    self._client = WorkloadApiClient(self._socket)
                client = self._client
            return client.fetch_jwt_svid({audience}, timeout=self._timeout).token
        except PySpiffeError as error:
            raise WorkloadUnknown(
                f"the SPIFFE Workload API gives no JWT-SVID: {type(error).__name__}"
            ) from error


class FromCallable:
    """An assertion that the program gets by itself."""

    def __init__(self, function: Callable[[], str]) -> None:
        self._function = function

    def assertion(self, audience: str) -> str:
        """See `Workload`."""
        return self._function()


def workload_of(given: "Workload | Callable[[], str]") -> Workload:
    """What was given, as a `Workload`."""
    return FromCallable(given) if callable(given) else given


def is_jwt_svid(assertion: str) -> bool:
    """Whether the subject is a SPIFFE ID. It only chooses the parameter that names the kind; the server verifies."""
    try:
        payload = assertion.split(".")[1]
        claims = strict_json.parse(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, strict_json.JsonRefused):
        return False
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return isinstance(subject, str) and subject.startswith("spiffe://")
