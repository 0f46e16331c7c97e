"""How a request to the API is answered: who calls, how often, whether they may, whether it fits; then it is done."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from flask import Request, Response
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule

from authserver import metrics, strict_json
from authserver.accounts import tries
from authserver.accounts.tries import Bound, Taken
from authserver.accounts.users import UserExists
from authserver.actors import AlreadyRegistered, NotRegistered
from authserver.admin.callers import NOT_RECENT, Caller, caller_of
from authserver.admin.document import document_of
from authserver.admin.once import once
from authserver.admin.operations import Call, Operation, Reply, conflict, not_found
from authserver.admin.resources import ALL
from authserver.admin.resources.policies import problem_members
from authserver.administration.roles import require
from authserver.audit.events import Record
from authserver.endpoints.answers import json_answer
from authserver.endpoints.forms import read_body
from authserver.endpoints.settlement import problem_answer
from authserver.errors import Refusal
from authserver.guard import MAX_BODY_BYTES
from authserver.move_policies import NoSuchSet
from authserver.policy.cedar_text import PolicyError
from authserver.revoke import UnknownTarget
from authserver.services import Services
from authserver.strict_json import JsonRefused
from authserver.values import NotAValue

log = structlog.get_logger()
_ROOT = "/api/v1"
_MINUTE = timedelta(minutes=1)
_DOCUMENT = "openapi"


class Api:
    """The operations, routed. One object serves all threads of a process."""

    def __init__(self, services: Services) -> None:
        """`services` are the running server's."""
        self._services = services
        self._operations = {operation.name: operation for operation in ALL}
        rules = [
            Rule(_template(one.path), methods=[one.method], endpoint=one.name, strict_slashes=True)
            for one in ALL
        ]
        rules.append(Rule("/openapi.json", methods=["GET"], endpoint=_DOCUMENT))
        self._routes = Map(rules, merge_slashes=False)
        self._document: str | None = None

    def respond(self, request: Request, path: str) -> Response:
        """Answer a request to what comes after `/api/v1` in its path."""
        try:
            name, arguments = self._routes.bind("").match(f"/{path}", method=request.method)
        except MethodNotAllowed as error:
            allowed = ", ".join(sorted(error.valid_methods or ()))
            refusal = Refusal(
                "method_not_allowed", "not by this method", status=405, headers={"Allow": allowed}
            )
            return problem_answer(refusal)
        except NotFound:
            return problem_answer(not_found("resource"))
        if name == _DOCUMENT:
            return self._described()
        return self._answered(self._operations[name], request, arguments)

    def _described(self) -> Response:
        if self._document is None:
            self._document = strict_json.write(document_of(ALL, self._services.issuer + _ROOT))
        return Response(self._document, mimetype="application/json", headers={"Cache-Control": "no-cache"})

    def _answered(self, operation: Operation, request: Request, path: Mapping[str, Any]) -> Response:
        record, now, headers = Record("administration"), self._services.clock.now(), dict[str, str]()
        record.data["operation"] = operation.name
        try:
            call = self._call(operation, request, path, now, record, headers)
            reply = _done(operation, call)
        except Refusal as refusal:
            self._audit(operation, record, refusal, now)
            response = problem_answer(refusal)
        else:
            response = _shaped(operation, reply, self._services.issuer)
        response.headers.extend(headers)
        return response

    def _call(
        self,
        operation: Operation,
        request: Request,
        path: Mapping[str, Any],
        now: datetime,
        record: Record,
        headers: dict[str, str],
    ) -> Call:
        caller = caller_of(self._services, request, now)
        record.data["by"] = caller.by
        headers.update(self._within_limit(caller, now))
        require(caller.role, operation.role)
        if any(not str(value).isprintable() for value in path.values()):
            raise not_found("resource")
        query, body = _query(operation, request), _body(operation, request)
        if operation.changes and "If-Match" not in request.headers:
            raise Refusal(
                "precondition_required",
                "If-Match takes the ETag of the record as it was read",
                rule="api.if_match",
                status=428,
            )
        return Call(self._services, request, caller, now, path, query, body)

    def _within_limit(self, caller: Caller, now: datetime) -> dict[str, str]:
        most = self._services.settings.api.requests_per_minute
        taken = self._services.database.write(
            lambda connection: tries.take(connection, f"api:{caller.by}", Bound(most, _MINUTE), now)
        )
        headers = _limit_headers(taken, most, now)
        if taken.number > most:
            raise Refusal(
                "too_many_requests",
                "too many requests; wait a little",
                rule="api.too_many",
                status=429,
                headers={**headers, "Retry-After": str(_seconds(taken.until, now))},
            )
        return headers

    def _audit(self, operation: Operation, record: Record, refusal: Refusal, now: datetime) -> None:
        if not operation.writes:
            return
        if refusal.status == 401 and refusal.rule != NOT_RECENT:
            # The audit keeps everything for ever: whoever is nobody must not be able to fill it.
            log.info("api.unauthenticated", operation=operation.name, rule=refusal.rule)
            metrics.unauthenticated(refusal.rule)
            return
        # Whoever asks too often would fill the audit as well.
        if refusal.status < 500 and refusal.status != 429:
            self._services.database.write(lambda connection: record.refused(connection, now, refusal))


def _template(path: str) -> str:
    # A client id may be an address.
    return path.replace("{client_id}", "<path:client_id>").replace("{", "<").replace("}", ">")


# --- what comes in ------------------------------------------------------------------------------------------------


def _query(operation: Operation, request: Request) -> BaseModel | None:
    said = request.args.to_dict(flat=False)
    if any(len(values) > 1 for values in said.values()):
        raise _malformed("a parameter is repeated", "api.query")
    if operation.query is None:
        if said:
            raise _malformed("this takes no parameters", "api.query")
        return None
    return _fitting(operation.query, {name: values[0] for name, values in said.items()}, "api.query")


def _body(operation: Operation, request: Request) -> BaseModel | None:
    raw = read_body(request)
    if operation.body is None:
        if raw:
            raise _malformed("this takes no body", "api.body")
        return None
    if raw and request.mimetype != "application/json":
        raise _malformed("the body must be application/json", "api.content_type", 415)
    try:
        unverified = strict_json.parse(raw, max_bytes=MAX_BODY_BYTES) if raw else {}
    except JsonRefused as error:
        raise _malformed(f"the body {error}", "api.json") from error
    return _fitting(operation.body, unverified, "api.body")


def _fitting(model: type[BaseModel], unverified: object, rule: str) -> BaseModel:
    try:
        return model.model_validate(unverified)
    except ValidationError as error:
        # Never the input, which may be a secret in the wrong place.
        found = error.errors(include_url=False, include_input=False, include_context=False)[:20]
        errors = [{"member": ".".join(map(str, one["loc"])), "detail": one["msg"]} for one in found]
        refusal = _malformed("the request does not fit the document of this API", rule)
        raise replace(refusal, extra={"errors": errors}) from None


def _malformed(description: str, rule: str, status: int = 400) -> Refusal:
    return Refusal("invalid_request", description, rule=rule, status=status)


# --- what is done -------------------------------------------------------------------------------------------------


def _done(operation: Operation, call: Call) -> Reply:
    def run() -> Reply:
        return _in_words(operation, call)

    if not operation.once:
        return run()
    body = {} if call.body is None else call.body.model_dump(exclude_unset=True)
    return once(call, operation, body, run)


def _in_words(operation: Operation, call: Call) -> Reply:
    """Do it, and say in HTTP's terms why not."""
    try:
        return operation.run(call)
    except Refusal as refusal:
        # It fits the document, and cannot be done: the same answer wherever that was found out.
        raise (replace(refusal, status=422) if refusal.status == 400 else refusal) from refusal
    except NotAValue as error:
        raise _malformed(str(error), "api.value", 422) from error
    except (AlreadyRegistered, UserExists) as error:
        raise conflict("something of that name is registered already", "api.exists") from error
    except NotRegistered as error:
        raise not_found("record") from error
    except (UnknownTarget, NoSuchSet) as error:
        raise Refusal("not_found", str(error), rule="api.not_found", status=404) from error
    except PolicyError as error:
        problems = [problem_members(problem) for problem in error.problems]
        unusable = _malformed("these policies cannot be used", "api.policies", 422)
        raise replace(unusable, extra={"problems": problems}) from error


# --- what goes out ------------------------------------------------------------------------------------------------


def _shaped(operation: Operation, reply: Reply, issuer: str) -> Response:
    if isinstance(reply.body, Mapping):
        response = json_answer(reply.body, operation.status)
    else:
        response = Response(reply.body, operation.status, mimetype=operation.media_type)
        response.headers["Cache-Control"] = "no-store"
    if reply.etag is not None and operation.shows_etag:
        response.set_etag(reply.etag)
    if reply.location is not None:
        response.autocorrect_location_header = False
        response.headers["Location"] = f"{issuer}{_ROOT}{reply.location}"
    return response


def _limit_headers(taken: Taken, most: int, now: datetime) -> dict[str, str]:
    # draft-ietf-httpapi-ratelimit-headers §3, §4: quota and window; what is left, and seconds until there is more.
    return {
        "RateLimit-Policy": f'"default";q={most};w=60',
        "RateLimit": f'"default";r={max(most - taken.number, 0)};t={_seconds(taken.until, now)}',
    }


def _seconds(until: datetime, now: datetime) -> int:
    return max(1, -((now - until) // timedelta(seconds=1)))


Respond = Callable[[Request, str], Response]


def api(services: Services) -> Respond:
    """The API of a running server."""
    return Api(services).respond
