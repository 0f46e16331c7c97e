"""An authenticator in Chromium that is as real as can be without a thumb (CDP, WebAuthn domain), and one in Python.

The second says what no browser would: another origin, an old counter, somebody else's challenge.
"""

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from playwright.sync_api import CDPSession, Page


@dataclass
class VirtualAuthenticator:
    """The authenticator of one page's browser."""

    session: CDPSession = field(repr=False)
    id: str

    @classmethod
    def of(cls, page: Page) -> "VirtualAuthenticator":
        """Give the page's browser a platform authenticator that always finds its person."""
        session = page.context.new_cdp_session(page)
        session.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        made = session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        return cls(session, made["authenticatorId"])

    def credentials(self) -> list[dict[str, Any]]:
        """The keys that it holds."""
        found = self.session.send("WebAuthn.getCredentials", {"authenticatorId": self.id})
        credentials: list[dict[str, Any]] = found["credentials"]
        return credentials

    def is_there(self, verified: bool) -> None:
        """Whether its person proves to be the one."""
        self.session.send(
            "WebAuthn.setUserVerified", {"authenticatorId": self.id, "isUserVerified": verified}
        )


@dataclass
class Forger:
    """A software authenticator that signs whatever it is told to."""

    origin: str
    rp_id: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    credential_id: bytes = b"k" * 32
    user_handle: bytes = b""
    flags: int = 0x05  # a person was there, and was verified

    def made(self, challenge: str) -> str:
        """The answer to `navigator.credentials.create`."""
        numbers = self.key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + struct.pack(">H", len(self.credential_id)) + self.credential_id
        data = self._data(0, self.flags | 0x40) + attested + cbor2.dumps(public)
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", challenge)
        return self._answer({"clientDataJSON": client, "attestationObject": attestation})

    def signed(self, challenge: str, counter: int) -> str:
        """The answer to `navigator.credentials.get`."""
        data, client = self._data(counter, self.flags), self._client("webauthn.get", challenge)
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(SHA256()))
        response = {"clientDataJSON": client, "authenticatorData": data, "signature": signature}
        return self._answer(response | ({"userHandle": self.user_handle} if self.user_handle else {}))

    def _data(self, counter: int, flags: int) -> bytes:
        return hashlib.sha256(self.rp_id.encode()).digest() + struct.pack(">BI", flags, counter)

    def _client(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin}).encode()

    def _answer(self, response: dict[str, bytes]) -> str:
        id = _text(self.credential_id)
        encoded = {name: _text(value) for name, value in response.items()}
        return json.dumps({"id": id, "rawId": id, "type": "public-key", "response": encoded})


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
