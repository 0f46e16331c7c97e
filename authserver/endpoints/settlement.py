"""`POST /oauth/redeem` and `/oauth/redemptions/{id}/capture|void|refund`: JSON, with problem details (RFC 9457)."""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime

from flask import Request as FlaskRequest
from flask import Response

from authserver import metrics, settle, strict_json
from authserver.actors.client_authentication import ClientCredentials
from authserver.actors.resource_servers import ResourceServer
from authserver.audit.events import Record
from authserver.endpoints.answers import issuer_here, json_answer
from authserver.endpoints.clients import client_of
from authserver.endpoints.forms import read_body
from authserver.errors import Refusal
from authserver.jose import MAX_TOKEN_BYTES
from authserver.ledger import idempotency
from authserver.ledger.idempotency import Request
from authserver.policy.details import Merchant
from authserver.services import Services
from authserver.settle import Answer, Redemption, Step
from authserver.values import Money, NotAValue

_ASSERTION = ("client_assertion_type", "client_assertion")
_VERBS: Mapping[str, Callable[[Services, Step, ResourceServer, Record, datetime], Answer]] = {
    "capture": settle.capture,
    "void": settle.void,
    "refund": settle.refund,
}


def is_at(path: str) -> bool:
    """Whether a request to that path asks for settlement, whatever became of it: its errors are problem details."""
    return path.endswith("/oauth/redeem") or "/oauth/redemptions/" in path


def redeem(services: Services, request: FlaskRequest) -> Response:
    """Answer one redemption."""

    def run(body: dict[str, object], key: Request | None, caller: ResourceServer, record: Record) -> Answer:
        redemption = Redemption(
            unverified_token=_token(body),
            amount=_amount(body),
            merchant=_merchant(body),
            capture=_capture(body),
            request=key,
        )
        return settle.redeem(services, redemption, caller, record, services.clock.now())

    return _respond(
        services, request, "redemption", frozenset({"token", "amount", "merchant", "capture"}), run
    )


def step(services: Services, request: FlaskRequest, redemption_id: str, verb: str) -> Response:
    """Answer one capture, void or refund."""

    def run(body: dict[str, object], key: Request | None, caller: ResourceServer, record: Record) -> Answer:
        return _VERBS[verb](
            services, Step(redemption_id, _amount(body), key), caller, record, services.clock.now()
        )

    return _respond(services, request, verb, frozenset({"amount"}), run)


def _respond(
    services: Services,
    request: FlaskRequest,
    event: str,
    known: frozenset[str],
    run: Callable[[dict[str, object], Request | None, ResourceServer, Record], Answer],
) -> Response:
    record = Record(event)
    try:
        body = _body(request)
        caller = _caller(services, request, body)
        record.data["resource_server"] = caller.identifier
        if unknown := body.keys() - known:
            raise _malformed(f"{len(unknown)} unknown members in the body", "settle.members")
        answer = run(body, _key(request, body), caller, record)
    except Refusal as refusal:
        if refusal.status < 500:
            failed, now = refusal, services.clock.now()
            services.database.write(lambda connection: record.refused(connection, now, failed))
        outcome = "failed" if refusal.status >= 500 else "refused"
        metrics.settled(event, outcome, refusal.rule or refusal.error)
        return _told_how(services, problem_answer(refusal))
    outcome = "permitted" if answer.status < 400 else "refused"
    metrics.settled(event, outcome, record.rule or outcome)
    return _shaped(answer)


def _told_how(services: Services, response: Response) -> Response:
    # RFC 9110 §15.5.2: with a 401 goes a challenge, also where no header was tried.
    if response.status_code == 401:
        response.headers.setdefault("WWW-Authenticate", f'Basic realm="{services.issuer}"')
    return response


def _shaped(answer: Answer) -> Response:
    response = json_answer(answer.body, answer.status)
    if answer.status >= 400:
        response.mimetype = "application/problem+json"
    return response


def problem_answer(refusal: Refusal) -> Response:
    """The refusal as problem details."""
    response = json_answer(refusal.to_problem(issuer_here()), refusal.status, refusal.headers.items())
    response.mimetype = "application/problem+json"
    return response


def _body(request: FlaskRequest) -> dict[str, object]:
    if request.query_string:
        raise _malformed("nothing belongs in the query string", "settle.query")
    raw = read_body(request)
    if not raw:
        return {}
    if request.mimetype != "application/json":
        raise _malformed("the body must be application/json", "settle.content_type", 415)
    try:
        body = strict_json.parse(raw, max_bytes=4 * MAX_TOKEN_BYTES)
    except strict_json.JsonRefused as error:
        raise _malformed(str(error), "settle.json") from error
    if not isinstance(body, dict):
        raise _malformed("the body must be a JSON object", "settle.json")
    return body


def _caller(services: Services, request: FlaskRequest, body: dict[str, object]) -> ResourceServer:
    assertion_type, assertion = (_text(body.pop(name, None), name) for name in _ASSERTION)
    credentials = ClientCredentials(request.headers.get("Authorization"), None, assertion_type, assertion)
    caller = client_of(services, credentials, services.clock.now())
    if not isinstance(caller, ResourceServer):
        raise Refusal(
            "forbidden", "only resource servers settle", rule="settle.not_a_resource_server", status=403
        )
    return caller


def _key(request: FlaskRequest, body: dict[str, object]) -> Request | None:
    key = idempotency.parse_key(request.headers.get("Idempotency-Key"))
    if key is None:
        return None
    same = json.dumps([request.path, body], sort_keys=True).encode()
    return Request(key, hashlib.sha256(same).digest())


def _token(body: dict[str, object]) -> str:
    token = _text(body.get("token"), "token")
    if token is None:
        raise _malformed("token is missing", "settle.token")
    return token


def _text(value: object, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise _malformed(f"{name} must be a string", f"settle.{name}")
    return value


def _amount(body: dict[str, object]) -> Money | None:
    if "amount" not in body:
        return None
    amount = body["amount"]
    if not isinstance(amount, dict) or amount.keys() != {"currency", "value"}:
        raise _malformed("amount must be an object of currency and value", "settle.amount")
    try:
        return Money.parse(amount["currency"], amount["value"])
    except NotAValue as error:
        raise _malformed(f"amount: {error}", "settle.amount") from error


def _merchant(body: dict[str, object]) -> Merchant | None:
    if "merchant" not in body:
        return None
    try:
        return Merchant.parse(body["merchant"])
    except NotAValue as error:
        raise _malformed(f"merchant: {error}", "settle.merchant") from error


def _capture(body: dict[str, object]) -> bool:
    capture = body.get("capture", True)
    if not isinstance(capture, bool):
        raise _malformed("capture must be true or false", "settle.capture")
    return capture


def _malformed(description: str, rule: str, status: int = 400) -> Refusal:
    return Refusal("invalid_request", description, rule=rule, status=status)
