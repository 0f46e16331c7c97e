"""A thread that hears what ended as soon as it did: it asks the server for events and waits there (RFC 8936)."""

import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import structlog

from authserver.discovery import IssuerUnavailable, json_object
from authserver.resource_server.credentials import Credentials, bearer_of, header_of
from authserver.resource_server.security_events import EventReceiver, SetRefused
from authserver.resource_server.verifier import Verifier

log = structlog.get_logger()

PUSH, _POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"
# The server answers a waiting poll after a few seconds at the latest.
_TIMEOUT = httpx.Timeout(5.0, read=10.0)
_AT_ONCE = 0.5
_PAUSES = (0.5, 1.0, 2.0, 5.0, 15.0)


class Transmitter:
    """The server's event streams, as one resource server manages its own (SSF 1.0 §8.1)."""

    def __init__(self, issuer: str, credentials: Credentials, http: httpx.Client) -> None:
        self._issuer, self._credentials, self._http = issuer, credentials, http
        self._metadata: Mapping[str, Any] | None = None

    def stream(self, description: str, delivery: Mapping[str, str]) -> Mapping[str, Any]:
        """The stream of that description, made where there is none, with that delivery. Raises `IssuerUnavailable`."""
        url = self._endpoint("configuration_endpoint")
        answer = self._ask("GET", url)
        found = answer.get("streams", ())
        for stream in found:
            if stream.get("description") == description:
                named = {"stream_id": stream["stream_id"]}
                changed = self._ask("PATCH", url, named | {"delivery": dict(delivery)})
                self._let_go_on(named)
                return changed
        return self._ask("POST", url, {"description": description, "delivery": dict(delivery)})

    def _let_go_on(self, named: Mapping[str, Any]) -> None:
        # The server ends streams that nobody reads for long: such a one would answer, and say nothing.
        url = self._endpoint("status_endpoint")
        if self._ask("GET", f"{url}?{urlencode(named)}").get("status") != "enabled":
            self._ask("POST", url, {**named, "status": "enabled"})

    def poll(self, stream: Mapping[str, Any], body: Mapping[str, object]) -> Mapping[str, Any]:
        """Ask for events. Raises `IssuerUnavailable`."""
        return self._ask("POST", self._own(stream["delivery"]["endpoint_url"], "endpoint_url"), body)

    def _endpoint(self, name: str) -> str:
        if self._metadata is None:
            parts = urlsplit(self._issuer)
            url = f"{parts.scheme}://{parts.netloc}/.well-known/ssf-configuration{parts.path}"
            metadata = self._ask("GET", url)
            if metadata.get("issuer") != self._issuer:  # SSF §7.2.4
                raise IssuerUnavailable(f"{url} names another issuer")
            self._metadata = metadata
        return self._own(self._metadata.get(name), name)

    def _own(self, endpoint: object, name: str) -> str:
        if not isinstance(endpoint, str) or not endpoint.startswith(f"{self._issuer}/"):
            raise IssuerUnavailable(f"the server has no usable {name}")  # nobody else gets the secret
        return endpoint

    def _ask(self, method: str, url: str, body: Mapping[str, object] | None = None) -> Mapping[str, Any]:
        try:
            answer = self._http.request(
                method,
                url,
                json=body,
                headers=bearer_of(self._credentials, self._issuer),
                auth=header_of(self._credentials),
                timeout=_TIMEOUT,
            )
        except httpx.HTTPError as error:
            raise IssuerUnavailable(f"{url} cannot be reached: {type(error).__name__}") from error
        if answer.status_code not in (200, 201):
            raise IssuerUnavailable(f"{url} answered {answer.status_code}")
        content = answer.content
        # The list of streams is the one answer that is no object.
        return json_object(b'{"streams":%b}' % content if content[:1] == b"[" else content, url)


class Listener:
    """Hears events for one verifier, in a thread of its own, until it is stopped or the process ends."""

    def __init__(self, verifier: Verifier, transmitter: Transmitter, name: str) -> None:
        """`name` is this process's among those of the resource server: each has a stream of its own."""
        self._verifier = verifier
        self._transmitter, self._description = transmitter, f"kit: {name}"
        self._stopped = threading.Event()
        self._receiver = EventReceiver(verifier)
        self._taken: list[str] = []
        self._refused: dict[str, dict[str, str]] = {}
        self.is_connected = threading.Event()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def stop(self) -> None:
        """End with the answer that is waited for."""
        self._stopped.set()

    def _run(self) -> None:
        stream, failures = None, 0
        while not self._stopped.is_set():
            try:
                stream = stream or self._transmitter.stream(self._description, {"method": _POLL})
                self._listen(stream)
                failures = 0
            except IssuerUnavailable as error:
                self._note_connected(False)
                if not failures:
                    log.warning("security_events.not_heard", reason=str(error))
                stream = None if failures else stream  # it may be gone
                self._stopped.wait(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
            except Exception as error:  # whatever it is, it must not be the last time  # noqa: BLE001
                self._note_connected(False)
                log.error("security_events.failed", error=type(error).__name__)  # noqa: TRY400
                self._stopped.wait(_PAUSES[-1])
        self._note_connected(False)  # status lists alone decide again, and are fetched as often as that takes

    def _listen(self, stream: Mapping[str, Any]) -> None:
        taken, refused, asked_at = self._taken, self._refused, time.monotonic()
        answer = self._transmitter.poll(stream, {"ack": taken, "setErrs": refused})
        self._note_connected(True)
        self._taken, self._refused = [], {}
        sets = answer.get("sets")
        if not sets and time.monotonic() - asked_at < _AT_ONCE:
            self._stopped.wait(_AT_ONCE)  # the server has too many who wait, and answered at once
        for jti, unverified in sets.items() if isinstance(sets, dict) else ():
            try:
                self._receiver.take(str(unverified))
                self._taken.append(jti)
            except SetRefused as error:
                self._refused[jti] = {"err": error.error, "description": str(error)}

    def _note_connected(self, connected: bool) -> None:
        self._verifier.hears_events = connected
        (self.is_connected.set if connected else self.is_connected.clear)()
