"""The grants of `POST /oauth/token` by which an agent comes for what a person allowed: a code, or a device's code."""

import re
from typing import ClassVar

from authlib.oauth2.rfc6749 import TokenEndpointMixin
from authlib.oauth2.rfc6749.grants import BaseGrant

from authserver import claim, dpop
from authserver.actors.agents import Agent
from authserver.claim import CodeClaim
from authserver.consent import Granted
from authserver.endpoints.clients import client_of
from authserver.endpoints.token import credentials, proof_in
from authserver.errors import Refusal
from authserver.holder import read_proof
from authserver.services import Services
from authserver.tokens import grants

AUTHORIZATION_CODE = "authorization_code"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4.1


class _ClaimingGrant(BaseGrant, TokenEndpointMixin):
    """What both have in common: the agent authenticates, and gets its delegation grant."""

    TOKEN_ENDPOINT_AUTH_METHODS: ClassVar[list[str]] = ["none"]
    EVENT: ClassVar[str]

    def validate_token_request(self) -> None:
        """Who is calling; what was sent is looked at afterwards."""
        services: Services = self.server.services
        self.request.attempt.event = self.EVENT
        self.request.attempt.start()
        sent = credentials(self.request.form_read, self.request.headers)
        caller = client_of(services, sent, services.clock.now())
        if not isinstance(caller, Agent):
            raise Refusal("unauthorized_client", "only agents hold grants", rule="claim.not_an_agent")
        self.request.attempt.record.client_id = caller.client_id
        self.caller = caller

    def _answer(self, granted: Granted) -> tuple[int, dict[str, object], list[tuple[str, str]]]:
        """Contract §5."""
        now = self.server.services.clock.now()
        answer: dict[str, object] = {
            "access_token": granted.grant,
            "issued_token_type": grants.TOKEN_TYPE,
            "token_type": "Bearer",
            "expires_in": int((granted.details.expires - now).total_seconds()),
            "grant_id": granted.grant_id,
            "authorization_details": [granted.details.to_json()],
        }
        headers = []
        if "DPoP" in self.request.headers:
            headers.append(("DPoP-Nonce", self.server.services.nonces.make(now)))
        return 200, answer, headers


class AuthorizationCodeGrant(_ClaimingGrant):
    """RFC 6749 §4.1.3 with PKCE (RFC 7636); everything about the code is checked in one transaction."""

    GRANT_TYPE = AUTHORIZATION_CODE
    EVENT = "authorization_code"

    def create_token_response(self) -> tuple[int, dict[str, object], list[tuple[str, str]]]:
        """Use up the code, sign the grant."""
        services, form = self.server.services, self.request.form_read
        verifier = form.required("code_verifier")
        if not _VERIFIER.fullmatch(verifier):
            raise Refusal(
                "invalid_grant", "code_verifier takes 43 to 128 unreserved characters", "form.verifier"
            )
        now = services.clock.now()
        brought = CodeClaim(form.required("code"), form.one("redirect_uri"), verifier, self._proof())
        record = self.request.attempt.record
        return self._answer(claim.claim_by_code(services, brought, self.caller, record, now))

    def _proof(self) -> dpop.Proof | None:
        services = self.server.services
        return read_proof(
            services, proof_in(self.request.headers), services.token_endpoint, services.clock.now()
        )


class DeviceCodeGrant(_ClaimingGrant):
    """RFC 8628 §3.4."""

    GRANT_TYPE = DEVICE_CODE
    EVENT = "device_code"

    def create_token_response(self) -> tuple[int, dict[str, object], list[tuple[str, str]]]:
        """The grant, or why there is none yet."""
        services, code = self.server.services, self.request.form_read.required("device_code")
        record = self.request.attempt.record
        return self._answer(claim.claim_by_device(services, code, self.caller, record, services.clock.now()))
