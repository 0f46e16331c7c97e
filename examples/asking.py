"""How an agent asks a person for a delegation: by browser (RFC 9126, PKCE), or by a device's code (RFC 8628)."""

import hashlib
import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from examples.world import CALLBACK, Delegated

_DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
_JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"


class NotAllowed(Exception):
    """The server or the person said no; the message is the answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that waits for its person: where their browser goes, and what the agent keeps to itself."""

    url: str
    verifier: str = field(repr=False)
    state: str


@dataclass(frozen=True, slots=True)
class AskedByDevice:
    """What a device shows, and what it polls with."""

    url: str
    user_code: str
    device_code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Asking:
    """An agent that asks; `assertion` gives a JWT-SVID of its workload that is good now."""

    issuer: str
    client_id: str
    assertion: Callable[[], str]

    def by_browser(self, details: dict[str, Any]) -> Asked:
        """Push the request; the person's browser gets nothing but its reference. Raises `NotAllowed`."""
        verifier, state, metadata = secrets.token_urlsafe(48), secrets.token_urlsafe(16), self._metadata()
        challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        pushed = self._post(
            metadata["pushed_authorization_request_endpoint"],
            response_type="code",
            redirect_uri=CALLBACK,
            state=state,
            code_challenge=challenge,
            code_challenge_method="S256",
            authorization_details=json.dumps([details]),
        )
        query = urlencode({"client_id": self.client_id, "request_uri": pushed["request_uri"]})
        return Asked(f"{metadata['authorization_endpoint']}?{query}", verifier, state)

    def claim(self, asked: Asked, callback: str) -> Delegated:
        """Come for the grant, with the address to which the person's browser was sent back. Raises `NotAllowed`."""
        told = {name: values[0] for name, values in parse_qs(urlsplit(callback).query).items()}
        # RFC 9207 and RFC 9700 §4.4: the answer is this server's, and to this request.
        if (told.get("iss"), told.get("state")) != (self.issuer, asked.state) or "code" not in told:
            raise NotAllowed(callback)
        return self._token(
            grant_type="authorization_code",
            code=told["code"],
            redirect_uri=CALLBACK,
            code_verifier=asked.verifier,
        )

    def by_device(self, details: dict[str, Any]) -> AskedByDevice:
        """Ask for a code that the person types elsewhere. Raises `NotAllowed`."""
        asked = self._post(
            self._metadata()["device_authorization_endpoint"], authorization_details=json.dumps([details])
        )
        return AskedByDevice(asked["verification_uri_complete"], asked["user_code"], asked["device_code"])

    def claim_by_device(self, asked: AskedByDevice) -> Delegated:
        """Come for the grant after the person has answered. Raises `NotAllowed`, also while they have not."""
        return self._token(grant_type=_DEVICE_CODE, device_code=asked.device_code)

    def _metadata(self) -> dict[str, str]:
        found: dict[str, str] = httpx.get(f"{self.issuer}/.well-known/oauth-authorization-server").json()
        return found

    def _token(self, **form: str) -> Delegated:
        granted = self._post(self._metadata()["token_endpoint"], **form)
        [details] = granted["authorization_details"]
        return Delegated(granted["grant_id"], granted["access_token"], details)

    def _post(self, url: str, **form: str) -> dict[str, Any]:
        proof = {"client_assertion_type": _JWT_SPIFFE, "client_assertion": self.assertion()}
        answer = httpx.post(url, data={"client_id": self.client_id, **proof, **form})
        if not answer.is_success:
            raise NotAllowed(answer.text)
        body: dict[str, Any] = answer.json()
        return body
