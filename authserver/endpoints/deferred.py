"""`POST /oauth/token` with the deferred grant: an agent asks whether its approval has been answered (contract §8)."""

from typing import ClassVar

from authlib.oauth2.rfc6749 import TokenEndpointMixin
from authlib.oauth2.rfc6749.grants import BaseGrant
from werkzeug.datastructures import Headers

from authserver import defer
from authserver.defer import Poll, StillWaiting
from authserver.endpoints.answers import issuer_here
from authserver.endpoints.forms import Form
from authserver.endpoints.token import JWT, credentials, issued_answer, nonce_for, proof_in
from authserver.errors import Refusal, error_uri

DEFERRED = "urn:ietf:params:oauth:grant-type:deferred"
_LONGEST_CODE = 128


class DeferredGrant(BaseGrant, TokenEndpointMixin):
    """draft-ietf-oauth-deferred-token-response. The client is the agent that asked: it proves so again."""

    GRANT_TYPE = DEFERRED
    TOKEN_ENDPOINT_AUTH_METHODS: ClassVar[list[str]] = ["none"]

    def validate_token_request(self) -> None:
        """Parse the request; nothing in it is believed yet."""
        self.request.attempt.event = "deferred"
        self.request.attempt.start()
        self.poll = parse_poll(self.request.form_read, self.request.headers)

    def create_token_response(self) -> tuple[int, dict[str, object], list[tuple[str, str]]]:
        """The token, or that nobody has answered yet."""
        services = self.server.services
        now = services.clock.now()
        outcome = defer.poll(services, self.poll, self.request.attempt, now)
        headers = nonce_for(self.poll.unverified_proof, services, now)
        if isinstance(outcome, StillWaiting):
            return 400, _waiting(outcome), headers
        return 200, issued_answer(outcome, int(now.timestamp())), headers


def parse_poll(form: Form, headers: Headers) -> Poll:
    """The parameters of a poll. Raises `Refusal`."""
    form.only_once()
    code, actor_token = form.required("deferral_code"), form.one("actor_token")
    if len(code) > _LONGEST_CODE:
        raise Refusal("invalid_grant", "the deferral_code is not acceptable", rule="approval.unknown_code")
    if form.one("actor_token_type") != (None if actor_token is None else JWT):
        raise Refusal("invalid_request", "actor_token_type takes a JWT", rule="form.actor_token_type")
    return Poll(code, actor_token, proof_in(headers), credentials(form, headers))


def _waiting(waiting: StillWaiting) -> dict[str, object]:
    error, description = (
        ("slow_down", "asked too soon; the interval is longer now")
        if waiting.too_soon
        else ("authorization_pending", "nobody has answered yet")
    )
    return {
        "error": error,
        "error_description": description,
        "error_uri": error_uri(issuer_here(), error),
        "interval": waiting.interval,
        "expires_in": waiting.expires_in,
    }
