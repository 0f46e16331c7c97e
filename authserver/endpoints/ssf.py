"""The transmitter's endpoints: metadata, stream management, poll (OpenID SSF 1.0 §7, §8; RFC 8936).

A resource server says who it is as everywhere: by its secret (`Authorization: Basic`), or by a client assertion, as
`Authorization: Bearer`, since GET and DELETE have no body to put it into.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from flask import Request, Response

from authserver import jose, manage_stream, strict_json, transmit
from authserver.actors.client_authentication import JWT_BEARER, JWT_SPIFFE, ClientCredentials
from authserver.actors.resource_servers import ResourceServer
from authserver.audit.events import Record
from authserver.endpoints.answers import json_answer
from authserver.endpoints.clients import client_of
from authserver.endpoints.forms import read_body
from authserver.errors import Refusal
from authserver.manage_stream import METHODS, Wish, WishedDelivery
from authserver.services import Services
from authserver.streams import records
from authserver.streams.records import Status, Stream
from authserver.transmit import Asked, Handed, Places

_STATUSES: Mapping[str, Status] = {"enabled": "enabled", "paused": "paused", "disabled": "disabled"}
_MOST_EVENTS = 100  # of one answer to a poll
_MOST_ACKNOWLEDGED = 1_000
_LONGEST_TEXT = 1_024
_MOST_REQUESTED = 64
_HEADER = re.compile(r"[!-~](?:[ -~]{0,2046}[!-~])?")
_CHOSEN = frozenset({"delivery", "events_requested", "description"})
# A connection that gets nothing for 10 s is ended (`guard`), and a server that stops waits for who waits here.
_WAIT_SECONDS = 3.0
_WAITING = Places(128, 16)  # polls of one process that wait; another is answered at once


def metadata(services: Services) -> Response:
    """The transmitter's configuration (SSF §7.1), which anyone may keep for a while."""
    issuer = services.issuer
    response = json_answer(
        {
            "spec_version": "1_0",
            "issuer": issuer,
            "jwks_uri": f"{issuer}/oauth/jwks",
            "delivery_methods_supported": list(METHODS),
            "configuration_endpoint": f"{issuer}/oauth/ssf/streams",
            "status_endpoint": f"{issuer}/oauth/ssf/status",
            "verification_endpoint": f"{issuer}/oauth/ssf/verify",
            "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:7617"}, {"spec_urn": "urn:ietf:rfc:7523"}],
            "default_subjects": "ALL",
        }
    )
    del response.headers["Pragma"]
    response.headers["Cache-Control"] = "public, max-age=300"
    return response


# --- streams --------------------------------------------------------------------------------------------------------


def create(services: Services, request: Request) -> Response:
    """`POST` (§8.1.1.1)."""

    def run(receiver: ResourceServer) -> Response:
        body = _body(request, _CHOSEN)
        stream = manage_stream.create(services, receiver, _wish(body), services.clock.now())
        return json_answer(manage_stream.configuration(services, receiver, stream), 201)

    return _as_receiver(services, request, run)


def read(services: Services, request: Request) -> Response:
    """`GET` (§8.1.1.2): one stream, or all of the receiver's."""

    def run(receiver: ResourceServer) -> Response:
        named = _in_query(request, required=False)
        if named is not None:
            stream = _own(services, receiver, named)
            return json_answer(manage_stream.configuration(services, receiver, stream))
        streams = services.database.read(lambda c: records.of_receiver(c, receiver.id))
        shown = [manage_stream.configuration(services, receiver, stream) for stream in streams]
        response = Response(strict_json.write(shown), mimetype="application/json")
        response.headers["Cache-Control"] = "no-store"
        return response

    return _as_receiver(services, request, run)


def update(services: Services, request: Request) -> Response:
    """`PATCH` (§8.1.1.3): what is not named stays."""
    return _changed(services, request, keep=True)


def put(services: Services, request: Request) -> Response:
    """`PUT` (§8.1.1.4): what is not named is taken away."""
    return _changed(services, request, keep=False)


def _changed(services: Services, request: Request, *, keep: bool) -> Response:
    def run(receiver: ResourceServer) -> Response:
        body = _body(request, None)
        stream = _own(services, receiver, _required(body, "stream_id"))
        before = manage_stream.configuration(services, receiver, stream)
        # What the transmitter supplies may be there, and must be what it is.
        for name in body.keys() - _CHOSEN:
            if before.get(name) != body[name]:
                raise _malformed(f"{name} is not the receiver's to change", "stream.supplied")
        changed = manage_stream.change(
            services, receiver, stream, _wish(body, stream if keep else None), services.clock.now()
        )
        return json_answer(manage_stream.configuration(services, receiver, changed))

    return _as_receiver(services, request, run)


def remove(services: Services, request: Request) -> Response:
    """`DELETE` (§8.1.1.5)."""

    def run(receiver: ResourceServer) -> Response:
        manage_stream.remove(services, receiver, _in_query(request) or "", services.clock.now())
        return _empty()

    return _as_receiver(services, request, run)


def status(services: Services, request: Request) -> Response:
    """`GET` of the status (§8.1.2.1)."""
    return _as_receiver(
        services, request, lambda receiver: _status(_own(services, receiver, _in_query(request) or ""))
    )


def set_status(services: Services, request: Request) -> Response:
    """`POST` of the status (§8.1.2.2)."""

    def run(receiver: ResourceServer) -> Response:
        body = _body(request, frozenset({"stream_id", "status", "reason"}))
        wanted = _STATUSES.get(_required(body, "status"))
        if wanted is None:
            raise _malformed("status takes enabled, paused or disabled", "stream.status")
        named, reason = _required(body, "stream_id"), _text(body, "reason")
        now = services.clock.now()
        return _status(manage_stream.set_status(services, receiver, named, wanted, reason, now))

    return _as_receiver(services, request, run)


def verify(services: Services, request: Request) -> Response:
    """`POST` of a verification (§8.1.4.2)."""

    def run(receiver: ResourceServer) -> Response:
        body = _body(request, frozenset({"stream_id", "state"}))
        named, state = _required(body, "stream_id"), _text(body, "state")
        manage_stream.verify(services, receiver, named, state, services.clock.now())
        return _empty()

    return _as_receiver(services, request, run)


# --- poll -----------------------------------------------------------------------------------------------------------


def poll(services: Services, request: Request, stream_id: str) -> Response:
    """`POST` of a poll (RFC 8936 §2): at once, or as soon as there is something, within a few seconds."""

    def run(receiver: ResourceServer) -> Response:
        body = _body(request, None)
        stream, asked = _own(services, receiver, stream_id), _asked(body)
        handed = transmit.hand_out(services, stream, asked, services.clock.now())
        if handed.sets or asked.most == 0 or _immediately(body):
            return json_answer(_handed(handed))
        # The answer begins now and its body comes later, so that it keeps nobody from a turn (`guard.Gate`).
        body_later = _later(services, receiver.id, stream.id, replace(asked, taken=(), refused={}))
        response = Response(body_later, mimetype="application/json")
        response.headers["Cache-Control"] = "no-store"
        return response

    return _as_receiver(services, request, run)


def _later(services: Services, receiver_id: str, stream_id: str, asked: Asked) -> Iterator[bytes]:
    handed, may_wait = Handed({}, more=False), _WAITING.take(receiver_id)
    until = time.monotonic() + (_WAIT_SECONDS if may_wait else 0)
    try:
        while not handed.sets and (left := until - time.monotonic()) > 0:
            transmit.wait_for_news(services, stream_id, left)
            stream = services.database.read(lambda connection: records.find(connection, stream_id))
            if stream is None:
                break
            handed = transmit.hand_out(services, stream, asked, services.clock.now())
    except Refusal:
        pass  # the database is away: there is nothing to hand out, and the receiver asks again
    finally:
        if may_wait:
            _WAITING.leave(receiver_id)
    yield strict_json.write(_handed(handed)).encode()


def _handed(handed: Handed) -> dict[str, object]:
    return {"sets": dict(handed.sets), "moreAvailable": handed.more}


def _asked(body: Mapping[str, object]) -> Asked:
    most = body.get("maxEvents", _MOST_EVENTS)
    if type(most) is not int or most < 0:
        raise _malformed("maxEvents takes a number", "poll.max_events")
    taken, errors = body.get("ack", []), body.get("setErrs", {})
    if not isinstance(taken, list) or not all(isinstance(jti, str) for jti in taken):
        raise _malformed("ack takes an array of jti", "poll.ack")
    if not isinstance(errors, dict) or not all(isinstance(error, dict) for error in errors.values()):
        raise _malformed("setErrs takes an object of errors by jti", "poll.errors")
    if any(len(jti) > _LONGEST_TEXT for jti in (*taken, *errors)):
        raise _malformed(f"a jti has at most {_LONGEST_TEXT} characters", "poll.jti")  # it goes into the log
    if len(taken) + len(errors) > _MOST_ACKNOWLEDGED:
        raise _malformed("too many at once", "poll.many")
    refused = {jti: str(error.get("err", ""))[:64] for jti, error in errors.items()}
    return Asked(tuple(taken), refused, min(most, _MOST_EVENTS))


def _immediately(body: Mapping[str, object]) -> bool:
    said = body.get("returnImmediately", False)
    if not isinstance(said, bool):
        raise _malformed("returnImmediately takes true or false", "poll.immediately")
    return said


# --- who, and what they say -----------------------------------------------------------------------------------------


def _as_receiver(services: Services, request: Request, run: Callable[[ResourceServer], Response]) -> Response:
    try:
        return run(_receiver(services, request))
    except Refusal as refusal:
        if refusal.status < 500:
            failed, now = refusal, services.clock.now()
            services.database.write(
                lambda connection: Record("event_stream").refused(connection, now, failed)
            )
        if refusal.status == 401:
            refusal.headers = {"WWW-Authenticate": f'Basic realm="{services.issuer}", Bearer'}
        raise


def _receiver(services: Services, request: Request) -> ResourceServer:
    caller = client_of(services, _credentials(request), services.clock.now())
    if not isinstance(caller, ResourceServer):
        raise Refusal("forbidden", "only resource servers hear events", "stream.not_a_receiver", status=403)
    return caller


def _credentials(request: Request) -> ClientCredentials:
    header = request.headers.get("Authorization")
    scheme, _, assertion = (header or "").partition(" ")
    if scheme.lower() != "bearer":
        return ClientCredentials(authorization=header)
    return ClientCredentials(client_assertion_type=_kind_of(assertion), client_assertion=assertion)


def _kind_of(unverified_assertion: str) -> str:
    # A header does not say which kind of assertion it is; RFC 7523 §3: who speaks for itself is issuer and subject.
    try:
        claims = jose.read_compact(unverified_assertion).claims
    except jose.TokenRefused:
        return JWT_BEARER
    return JWT_BEARER if claims.get("iss") == claims.get("sub") else JWT_SPIFFE


def _own(services: Services, receiver: ResourceServer, stream_id: str) -> Stream:
    return services.database.read(lambda connection: manage_stream.own(connection, receiver, stream_id))


def _in_query(request: Request, *, required: bool = True) -> str | None:
    named = request.args.getlist("stream_id")
    if len(named) > 1 or (required and not named):
        raise _malformed("stream_id goes into the query, once", "stream.stream_id")
    return named[0] if named else None


def _body(request: Request, known: frozenset[str] | None) -> dict[str, Any]:
    raw = read_body(request)
    if raw and request.mimetype != "application/json":
        raise Refusal(
            "invalid_request", "the body must be application/json", "stream.content_type", status=415
        )
    try:
        body = strict_json.parse(raw or b"{}", max_bytes=131_072)
    except strict_json.JsonRefused as error:
        raise _malformed(f"the body {error}", "stream.json") from error
    if not isinstance(body, dict):
        raise _malformed("the body must be a JSON object", "stream.json")
    return body if known is None else {name: value for name, value in body.items() if name in known}


def _wish(body: Mapping[str, Any], before: Stream | None = None) -> Wish:
    """What the receiver chose; what it does not name is as it was `before`, or is not there."""
    delivery = _delivery(body["delivery"]) if "delivery" in body else WishedDelivery("poll")
    requested, description = _requested(body), _text(body, "description")
    if before is None:
        return Wish(delivery, requested, description)
    return Wish(
        delivery if "delivery" in body else None,
        requested if "events_requested" in body else before.events_requested,
        description if "description" in body else before.description,
    )


def _delivery(unverified: object) -> WishedDelivery:
    if not isinstance(unverified, dict):
        raise _malformed("delivery takes an object", "stream.delivery")
    method = METHODS.get(_required(unverified, "method"))
    if method is None:
        raise _malformed("delivery.method is not supported", "stream.method")
    if method == "poll":
        return WishedDelivery("poll")  # where to ask is the transmitter's to say
    url, authorization = _required(unverified, "endpoint_url"), _text(unverified, "authorization_header")
    if authorization is not None and not _HEADER.fullmatch(authorization):
        raise _malformed("delivery.authorization_header takes visible ASCII", "stream.authorization")
    return WishedDelivery("push", url, authorization)


def _requested(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    requested = body.get("events_requested")
    if requested is None:
        return None
    if not isinstance(requested, list) or len(requested) > _MOST_REQUESTED:
        raise _malformed("events_requested takes an array of URIs", "stream.events_requested")
    if not all(isinstance(event, str) and len(event) <= _LONGEST_TEXT for event in requested):
        raise _malformed("events_requested takes an array of URIs", "stream.events_requested")
    return tuple(dict.fromkeys(requested))


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > _LONGEST_TEXT):
        raise _malformed(f"{name} takes a text of at most {_LONGEST_TEXT} characters", "stream.text")
    return value


def _required(body: Mapping[str, Any], name: str) -> str:
    value = _text(body, name)
    if not value:
        raise _malformed(f"{name} is missing", "stream.missing")
    return value


def _status(stream: Stream) -> Response:
    shown: dict[str, object] = {"stream_id": stream.id, "status": stream.status}
    if stream.reason is not None:
        shown["reason"] = stream.reason
    return json_answer(shown)


def _empty() -> Response:
    response = Response(status=204)
    response.headers["Cache-Control"] = "no-store"
    return response


def _malformed(description: str, rule: str) -> Refusal:
    return Refusal("invalid_request", description, rule)
