"""A token exchange that asks for a delegation grant: one agent hands on to another (contract §9)."""

from typing import ClassVar

from authlib.oauth2.rfc6749 import TokenEndpointMixin
from authlib.oauth2.rfc6749.grants import BaseGrant
from werkzeug.datastructures import Headers

from authserver import hand_over, strict_json
from authserver.consent import Granted
from authserver.endpoints.forms import Form
from authserver.endpoints.token import EXCHANGE, TokenRequest, nonce_for, presented, repeatable, task_id
from authserver.errors import Refusal
from authserver.hand_over import HandOver
from authserver.policy.delegation_details import DelegationDetails, parse_delegation
from authserver.policy.reading import refusal_of
from authserver.services import Services
from authserver.tokens import grants
from authserver.values import NotAValue


class HandOverGrant(BaseGrant, TokenEndpointMixin):
    """RFC 8693 with `requested_token_type` a delegation grant. The client is the actor, as in every exchange."""

    GRANT_TYPE = EXCHANGE
    TOKEN_ENDPOINT_AUTH_METHODS: ClassVar[list[str]] = ["none"]

    @classmethod
    def check_token_endpoint(cls, request: TokenRequest) -> bool:
        """Whether this grant is meant."""
        asked = request.payload.data.get("requested_token_type")
        return bool(super().check_token_endpoint(request)) and asked == grants.TOKEN_TYPE

    def validate_token_request(self) -> None:
        """Parse the request; nothing in it is believed yet."""
        self.request.attempt.event = "hand_over"
        self.request.attempt.start()
        self.parsed = parse_hand_over(self.request.form_read, self.request.headers, self.server.services)

    def create_token_response(self) -> tuple[int, dict[str, object], list[tuple[str, str]]]:
        """Decide, commit, sign."""
        services = self.server.services
        now = services.clock.now()
        granted = hand_over.hand_over(services, self.parsed, self.request.attempt, now)
        headers = nonce_for(self.parsed.presented.unverified_proof, services, now)
        return 200, _answer(granted, int(now.timestamp())), headers


def parse_hand_over(form: Form, headers: Headers, services: Services) -> HandOver:
    """The parameters of contract §6 and §9. Raises `Refusal`."""
    for name in ("resource", "audience"):
        if name in form.parameters:
            raise Refusal(
                "invalid_target", f"a delegation grant is for this server: no {name}", "target.hand_over"
            )
    if form.one("scope") is not None:
        raise Refusal("invalid_request", "a delegation grant takes authorization_details", "form.scope")
    return HandOver(
        presented=presented(form, headers),
        requested_actor=form.required("requested_actor"),
        details=_details(form.required("authorization_details"), services),
        task_id=task_id(form),
        repeatable=repeatable(form, headers),
    )


def _details(unverified_text: str, services: Services) -> DelegationDetails:
    try:
        entries = strict_json.parse(unverified_text)
    except strict_json.JsonRefused as error:
        raise refusal_of(NotAValue(str(error))) from error
    if not isinstance(entries, list) or len(entries) != 1:
        raise refusal_of(NotAValue("must be an array of exactly one object"))
    return parse_delegation(entries[0], services.vocabulary)


def _answer(granted: Granted, now: int) -> dict[str, object]:
    """The answer of contract §5."""
    return {
        "access_token": granted.grant,
        "issued_token_type": grants.TOKEN_TYPE,
        "token_type": "Bearer",
        "expires_in": int(granted.details.expires.timestamp()) - now,
        "grant_id": granted.grant_id,
        "authorization_details": [granted.details.to_json()],
    }
