"""`POST /oauth/token`, on Authlib's authorization server: which grant it is, and the shape of its answers."""

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from authlib.oauth2 import AuthorizationServer as AuthlibServer
from authlib.oauth2.rfc6749 import OAuth2Request, TokenEndpointMixin
from authlib.oauth2.rfc6749.errors import OAuth2Error
from authlib.oauth2.rfc6749.grants import BaseGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from flask import Request, Response
from werkzeug.datastructures import Headers

from authserver import exchange, holder, metrics, strict_json, traces
from authserver.actors.client_authentication import ClientCredentials
from authserver.approvals.opening import Opened
from authserver.endpoints.answers import error_answer, json_answer
from authserver.endpoints.forms import Form, read_form
from authserver.errors import Refusal, error_uri
from authserver.exchange import ExchangeRequest, Issued, Wanted
from authserver.holder import Attempt, Presented
from authserver.ledger import idempotency
from authserver.policy.details import ActionDetails, action_from_scope, parse_authorization_details
from authserver.services import Services
from authserver.tokens import grants

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105

# What may differ between a request and its retry (contract §6).
_FRESH_EACH_TIME = frozenset({"actor_token", "client_assertion"})
_TARGETS = frozenset({"resource", "audience"})
# Nothing was decided yet, so there is nothing to record: whoever waits asks every few seconds.
_UNDECIDED = frozenset({"authorization_pending", "slow_down"})


class TokenRequest(OAuth2Request):
    """Authlib's view of a request whose form was read strictly."""

    def __init__(self, services: Services, request: Request, form: Form) -> None:
        # The configured URL, not the Host header: TLS may end before this process.
        super().__init__(request.method, services.token_endpoint, headers=request.headers)
        self.payload = BasicOAuth2Payload(form.single())
        self.form_read = form
        self.attempt = Attempt()


class TokenExchangeGrant(BaseGrant, TokenEndpointMixin):
    """RFC 8693 for delegation grants. The client is the actor: its assertion authenticates it."""

    GRANT_TYPE = EXCHANGE
    TOKEN_ENDPOINT_AUTH_METHODS: ClassVar[list[str]] = ["none"]

    @classmethod
    def check_token_endpoint(cls, request: TokenRequest) -> bool:
        """Whether this grant is meant: a delegation grant is asked for of `hand_over.HandOverGrant`."""
        asked = request.payload.data.get("requested_token_type")
        return bool(super().check_token_endpoint(request)) and asked != grants.TOKEN_TYPE

    def validate_token_request(self) -> None:
        """Parse the request; nothing in it is believed yet."""
        with traces.step("parse"):
            self.parsed = parse_exchange(self.request.form_read, self.request.headers, self.server.services)

    def create_token_response(self) -> tuple[int, dict[str, object], list[tuple[str, str]]]:
        """Decide, commit, sign."""
        services = self.server.services
        now = services.clock.now()
        outcome = exchange.exchange(services, self.parsed, self.request.attempt, now)
        headers = nonce_for(self.parsed.presented.unverified_proof, services, now)
        if isinstance(outcome, Opened):
            return 400, awaiting(outcome, services, now), headers
        return 200, issued_answer(outcome, int(now.timestamp())), headers


class TokenEndpoint(AuthlibServer):
    """The token endpoint."""

    def __init__(self, services: Services) -> None:
        super().__init__()
        self.services = services
        self.register_grant(TokenExchangeGrant)

    def respond(self, request: Request) -> Response:
        """Answer one request; every refusal leaves one audit event, and every answer is counted."""
        begun, attempt = time.perf_counter(), Attempt()
        try:
            token_request = TokenRequest(self.services, request, _form(request))
            attempt = token_request.attempt
            with traces.request("POST /oauth/token", request.headers.get("traceparent")):
                response = self._granted(token_request)
            outcome = _outcome(attempt, response)
            reason = attempt.record.rule or outcome
        except Refusal as refusal:
            outcome, reason = _outcome_of(refusal), refusal.rule or refusal.error
            if outcome == "refused":
                holder.refused(self.services, attempt, refusal, self.services.clock.now())
            response = error_answer(refusal)
        metrics.exchanged(attempt.event, outcome, reason, time.perf_counter() - begun)
        return response

    def _granted(self, request: TokenRequest) -> Response:
        request.form_read.only_once(but=_TARGETS)
        request.form_read.required("grant_type")
        response: Response = self.create_token_response(request)
        return response

    def create_oauth2_request(self, request: TokenRequest) -> TokenRequest:
        """Authlib's hook: the request was made already."""
        return request

    def handle_error_response(self, request: TokenRequest, error: OAuth2Error) -> Response:
        """Authlib's hook: its own errors leave by the same door as ours."""
        raise Refusal(
            error.error, error.description or "the request is not acceptable", rule=f"token.{error.error}"
        )

    def handle_response(
        self, status: int, payload: Mapping[str, object], headers: Sequence[tuple[str, str]]
    ) -> Response:
        """Authlib's hook: shape the answer."""
        return json_answer(payload, status, headers)


def _outcome(attempt: Attempt, response: Response) -> str:
    """What an answer that is no refusal was: an agent may have to wait for a person from now on, or still."""
    if response.status_code == 200:
        return "permitted"
    return "deferred" if attempt.record.event == "exchange.deferred" else "pending"


def _outcome_of(refusal: Refusal) -> str:
    if refusal.status >= 500:
        return "failed"
    return "pending" if refusal.error in _UNDECIDED else "refused"


def _form(request: Request) -> Form:
    if request.method != "POST":
        raise Refusal("invalid_request", "the token endpoint takes POST", rule="form.method", status=405)
    return read_form(request)


def parse_exchange(form: Form, headers: Headers, services: Services) -> ExchangeRequest:
    """Contract §6, the table of parameters. Raises `Refusal`."""
    shown = presented(form, headers)
    if form.one("requested_token_type") not in (None, ACCESS_TOKEN):
        raise _malformed("requested_token_type takes an access token", "form.requested_token_type")
    if form.one("requested_actor") is not None:
        raise _malformed("requested_actor goes with a delegation grant", "form.requested_actor")
    waits = _completion_mode(form) == "deferred"
    asked, by_scope = _asked(form, services)
    return ExchangeRequest(
        shown,
        Wanted(
            asked=asked,
            by_scope=by_scope,
            resource=_target(form, "resource"),
            audience=_target(form, "audience"),
            task_id=task_id(form),
            repeatable=repeatable(form, headers),
            waits=waits,
        ),
    )


def presented(form: Form, headers: Headers) -> Presented:
    """What a holder shows: its grant, its workload assertion, a proof. Raises `Refusal`."""
    subject_token, actor_token = form.required("subject_token"), form.required("actor_token")
    if form.required("subject_token_type") not in (JWT, grants.TOKEN_TYPE):
        raise _malformed("subject_token_type takes a delegation grant", "form.subject_token_type")
    if form.required("actor_token_type") != JWT:
        raise _malformed("actor_token_type takes a JWT", "form.actor_token_type")
    return Presented(subject_token, actor_token, proof_in(headers), credentials(form, headers))


def credentials(form: Form, headers: Headers) -> ClientCredentials:
    """What the client sent to authenticate itself."""
    return ClientCredentials(
        authorization=headers.get("Authorization"),
        client_id=form.one("client_id"),
        client_assertion_type=form.one("client_assertion_type"),
        client_assertion=form.one("client_assertion"),
    )


def _asked(form: Form, services: Services) -> tuple[ActionDetails, bool]:
    details, scope = form.one("authorization_details"), form.one("scope")
    if (details is None) == (scope is None):
        raise _malformed("either authorization_details or scope must be there", "form.details_or_scope")
    if details is not None:
        return parse_authorization_details(details, services.vocabulary), False
    return action_from_scope(scope or "", services.vocabulary), True


def _target(form: Form, name: str) -> str | None:
    # RFC 8707 allows several; a token for one action has one place.
    values = form.parameters.get(name, ())
    if len(values) > 1:
        raise Refusal("invalid_target", f"{name} is repeated", rule="target.several")
    return values[0] if values else None


def task_id(form: Form) -> str | None:
    """The task that the request belongs to. Raises `Refusal`."""
    name = form.one("task_id")
    return None if name is None else checked_task_id(name)


def checked_task_id(unverified: str) -> str:
    """The name of a task. Raises `Refusal`."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", unverified):
        raise _malformed("task_id takes 1 to 64 of A-Z a-z 0-9 . _ -", "form.task_id")
    return unverified


def _completion_mode(form: Form) -> str | None:
    mode = form.one("completion_mode")
    if mode not in (None, "deferred"):
        raise _malformed("completion_mode takes deferred", "form.completion_mode")
    return mode


def proof_in(headers: Headers) -> str | None:
    """The DPoP proof that was sent. Raises `Refusal` where there are several."""
    proof = headers.get("DPoP")
    # RFC 9449 §4.3: not more than one; WSGI joins repeated headers with commas.
    if proof is not None and "," in proof:
        raise Refusal("invalid_dpop_proof", "more than one DPoP proof was sent", rule="dpop.several")
    return proof


def repeatable(form: Form, headers: Headers) -> idempotency.Request | None:
    """The `Idempotency-Key`, and what makes another request the same. Raises `Refusal`."""
    key = idempotency.parse_key(headers.get("Idempotency-Key"))
    if key is None:
        return None
    same = sorted((name, values) for name, values in form.parameters.items() if name not in _FRESH_EACH_TIME)
    return idempotency.Request(key, hashlib.sha256(strict_json.write(same).encode()).digest())


def nonce_for(proof: str | None, services: Services, now: datetime) -> list[tuple[str, str]]:
    """RFC 9449 §8.2: whoever sends proofs is told the next nonce with the answer."""
    return [] if proof is None else [("DPoP-Nonce", services.nonces.make(now))]


def awaiting(opened: Opened, services: Services, now: datetime) -> dict[str, object]:
    """Contract §8: what an agent gets that is to wait for an approval."""
    approval = opened.approval
    return {
        "error": "authorization_pending",
        "error_description": "a person has to approve this first",
        "error_uri": error_uri(services.issuer, "authorization_pending"),
        "deferral_code": opened.code,
        "interval": approval.poll_interval,
        "expires_in": int((approval.expires_at - now).total_seconds()),
        "approval_uri": f"{services.issuer}/approvals/{approval.id}",
    }


def issued_answer(issued: Issued, now: int) -> dict[str, object]:
    """The answer of contract §6, at `now` in seconds."""
    action = issued.action
    answer: dict[str, object] = {
        "access_token": issued.token,
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "DPoP" if action.jkt is not None else "Bearer",
        "expires_in": int(action.expires_at.timestamp()) - now,
        "authorization_details": [json.loads(action.details)],
        "action_id": action.id,
    }
    if action.scope:
        answer["scope"] = action.action
    return answer


def _malformed(description: str, rule: str) -> Refusal:
    return Refusal("invalid_request", description, rule=rule)
