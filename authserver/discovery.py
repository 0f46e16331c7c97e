"""An authorization server as its clients find it: from its issuer identifier to its endpoints (RFC 8414).

What agents and resource servers share. It knows nothing of how the server works inside.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from authserver import strict_json
from authserver.errors import Violation
from authserver.values import is_loopback

DatatypeTree = Mapping[str, tuple[str, ...]]

_MOST_BYTES = 512 * 1024
TIMEOUT_SECONDS = 5.0


class IssuerUnavailable(Exception):
    """The authorization server, or what it must publish, cannot be had now. The message has no secret in it."""


class WorkloadUnknown(Exception):
    """There is no assertion of this workload to be had now. The message has no secret in it."""


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """The endpoints that clients of this kind use; each is an absolute URL.

    The rest are None for a server that does not say them. No members of RFC 8414 are: where tokens are redeemed, which
    actions' tokens are, which kind of personal data contains which others, and where a task's end is told (RFC 6570).
    """

    token_endpoint: str
    jwks_uri: str
    introspection_endpoint: str
    redemption_endpoint: str | None
    redeemed_actions: frozenset[str] | None = None
    datatypes: DatatypeTree | None = None
    authorization_endpoint: str | None = None
    par_endpoint: str | None = None
    device_endpoint: str | None = None
    task_completion: str | None = None
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Document:
    """What an address answered: its body, or None where the one that the caller has still counts (304)."""

    body: bytes | None
    etag: str | None


class Issuer:
    """One authorization server, by its issuer identifier. Threads may share it."""

    def __init__(self, identifier: str, http: httpx.Client | None = None) -> None:
        """`http` brings its own certificates or proxies; without it, a client with a time-out of 5 s.

        Raises `ValueError` where the identifier is no https URL (http for loopback only).
        """
        _check_url(identifier)
        self.identifier = identifier
        self.http = http or httpx.Client(timeout=TIMEOUT_SECONDS)
        self._metadata: ServerMetadata | None = None
        self._lock = threading.Lock()

    def metadata(self) -> ServerMetadata:
        """What the server says of itself, as it was last read. Raises `IssuerUnavailable`."""
        with self._lock:
            if self._metadata is None:
                self._metadata = self._read_metadata()
            return self._metadata

    def read_again(self) -> None:
        """Read what the server says of itself anew. Raises `IssuerUnavailable`; then what was known still counts."""
        metadata = self._read_metadata()
        with self._lock:
            self._metadata = metadata

    def get_json(self, url: str) -> Mapping[str, object]:
        """A JSON object of at most 512 KiB, without following redirects. Raises `IssuerUnavailable`."""
        document = self.get(url, {})
        if document.body is None:
            raise IssuerUnavailable(f"{url} answered 304")
        return json_object(document.body, url)

    def get(self, url: str, headers: Mapping[str, str]) -> Document:
        """What is at `url`, at most 512 KiB, without following redirects. Raises `IssuerUnavailable`."""
        try:
            with self.http.stream("GET", url, headers=headers, follow_redirects=False) as response:
                if response.status_code == 304:
                    return Document(None, response.headers.get("ETag"))
                if response.status_code != 200:
                    raise IssuerUnavailable(f"{url} answered {response.status_code}")
                return Document(_bounded_body(response, url), response.headers.get("ETag"))
        except httpx.HTTPError as error:
            raise IssuerUnavailable(f"{url} cannot be reached: {type(error).__name__}") from error

    def _read_metadata(self) -> ServerMetadata:
        url = _metadata_url(self.identifier)
        document = self.get_json(url)
        # RFC 8414 §3.3: what another issuer says of itself must not be used.
        if document.get("issuer") != self.identifier:
            raise IssuerUnavailable(f"{url} names another issuer")
        return ServerMetadata(
            token_endpoint=_endpoint(document, "token_endpoint", url),
            jwks_uri=_endpoint(document, "jwks_uri", url),
            introspection_endpoint=_endpoint(document, "introspection_endpoint", url),
            redemption_endpoint=_optional_endpoint(document, "redemption_endpoint", url),
            redeemed_actions=_optional_names(document, "redeemed_actions_supported", url),
            datatypes=_datatypes(document, url),
            authorization_endpoint=_optional_endpoint(document, "authorization_endpoint", url),
            par_endpoint=_optional_endpoint(document, "pushed_authorization_request_endpoint", url),
            device_endpoint=_optional_endpoint(document, "device_authorization_endpoint", url),
            task_completion=_optional_endpoint(document, "task_completion_uri_template", url),
            scopes=_optional_names(document, "scopes_supported", url) or frozenset(),
        )


def json_object(body: bytes, source: str) -> dict[str, object]:
    """The body of an answer, read strictly; `source` is for the message. Raises `IssuerUnavailable`."""
    try:
        document = strict_json.parse(body, max_bytes=_MOST_BYTES)
    except strict_json.JsonRefused as error:
        raise IssuerUnavailable(f"{source} answered with what {error}") from error
    if not isinstance(document, dict):
        raise IssuerUnavailable(f"{source} answered with no JSON object")
    return document


def violations_in(body: Mapping[str, object]) -> tuple[Violation, ...]:
    """The crossed limits that a refusal names (contract §6). Raises `TypeError` where they have another form."""
    entries = body.get("violations", [])
    if not isinstance(entries, list):
        raise TypeError("violations")
    return tuple(map(_violation, entries))


def text_in(body: Mapping[str, object], name: str) -> str:
    """A member that must be there as text. Raises `TypeError`."""
    value = body.get(name)
    if not isinstance(value, str):
        raise TypeError(name)
    return value


def _violation(entry: object) -> Violation:
    if not isinstance(entry, dict):
        raise TypeError("violations")
    return Violation(text_in(entry, "constraint"), entry.get("requested"), entry.get("allowed"))


def _bounded_body(response: httpx.Response, url: str) -> bytes:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise IssuerUnavailable(f"{url} answered with more than {_MOST_BYTES} bytes")
    return bytes(body)


def _metadata_url(identifier: str) -> str:
    # RFC 8414 §3.1: the well-known part stands before the issuer's path.
    parts = urlsplit(identifier)
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path}"


def _endpoint(document: Mapping[str, object], name: str, source: str) -> str:
    url = document.get(name)
    try:
        if isinstance(url, str):
            _check_url(url)
            return url
    except ValueError:
        pass
    raise IssuerUnavailable(f"{source} has no usable {name}")


def _optional_endpoint(document: Mapping[str, object], name: str, source: str) -> str | None:
    return _endpoint(document, name, source) if name in document else None


def _optional_names(document: Mapping[str, object], name: str, source: str) -> frozenset[str] | None:
    return frozenset(_names(document[name], name, source)) if name in document else None


def _datatypes(document: Mapping[str, object], source: str) -> DatatypeTree | None:
    tree = document.get("datatypes_supported")
    if tree is None:
        return None
    if not isinstance(tree, dict):
        raise IssuerUnavailable(f"{source} has no usable datatypes_supported")
    return {name: _names(entries, "datatypes_supported", source) for name, entries in tree.items()}


def _names(value: object, name: str, source: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise IssuerUnavailable(f"{source} has no usable {name}")
    return tuple(value)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if not parts.hostname or (
        parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname))
    ):
        raise ValueError("takes an https URL; http is for loopback addresses only")
