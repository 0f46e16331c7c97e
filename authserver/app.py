"""Wiring: configuration in, Flask application out."""

import traceback
from collections.abc import Callable
from functools import cache, partial, wraps
from urllib.parse import urlsplit

import structlog
from flask import Blueprint, Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from authserver import pages, traces
from authserver.clock import Clock, SystemClock
from authserver.config import ConfigurationError, Settings, load_settings
from authserver.endpoints import (
    authorization,
    grants,
    health,
    introspection,
    metadata,
    metrics,
    revocation,
    settlement,
    ssf,
    tasks,
)
from authserver.endpoints.answers import error_answer
from authserver.endpoints.claims import AuthorizationCodeGrant, DeviceCodeGrant
from authserver.endpoints.deferred import DeferredGrant
from authserver.endpoints.hand_over import HandOverGrant
from authserver.endpoints.status import StatusEndpoint
from authserver.endpoints.token import TokenEndpoint
from authserver.errors import Refusal
from authserver.logs import begin_request, configure_logging, end_request
from authserver.migration import check_usable
from authserver.pages import answers
from authserver.pages.signed_in import visitor
from authserver.services import Services, load_policies, open_database, open_services

log = structlog.get_logger()
Answer = Callable[..., Response]
_MOST_LINES = 100  # of one failure in the log
_API_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")  # refused by the API itself


def create_app(settings: Settings | None = None, clock: Clock | None = None) -> Flask:
    """The server as a WSGI application.

    `settings` default to the configuration file, `clock` to the machine's. Raises `ConfigurationError`; also where the
    database's schema is behind, or it is a standby.
    """
    settings = settings or load_settings()
    configure_logging(settings.log.level, settings.log.format)
    database = open_database(settings)
    check_usable(database)
    services = open_services(settings, clock or SystemClock(), database)
    _trace(settings)
    return build(services)


def _trace(settings: Settings) -> None:
    if settings.traces.endpoint is None:
        return
    try:
        traces.start(settings.traces.endpoint, settings.traces.share, settings.server.issuer)
    except ImportError as error:
        raise ConfigurationError("traces.endpoint: takes the extra `traces` to be installed") from error


def build(services: Services) -> Flask:
    """The application around services that are open already. Raises `ConfigurationError` where a policy is broken."""
    load_policies(services)
    app = Flask("authserver", static_folder=None)
    app.extensions["authserver"] = services
    app.url_map.merge_slashes = False  # a client_id in a path may be a URL
    services.trust_domains.warm_up(services.clock.now())
    prefix = urlsplit(services.issuer).path
    app.register_blueprint(_oauth(services), url_prefix=prefix or None)
    app.register_blueprint(pages.blueprint(services), url_prefix=prefix or None)
    if prefix:
        # RFC 8414 §3.1, SSF §7.2: for an issuer with a path, the well-known part goes before it.
        app.add_url_rule(
            f"/.well-known/ssf-configuration{prefix}", "ssf_with_path", lambda: ssf.metadata(services)
        )
        app.add_url_rule(
            f"/.well-known/oauth-authorization-server{prefix}",
            "metadata_with_path",
            lambda: metadata.metadata_response(services),
        )
    app.register_error_handler(Exception, _unexpected)
    app.register_error_handler(HTTPException, _http_error)
    app.before_request(_begun)
    app.after_request(_guarded)
    app.teardown_request(_ended)
    return app


def _oauth(services: Services) -> Blueprint:
    endpoint, status = TokenEndpoint(services), StatusEndpoint(services)
    for grant in (AuthorizationCodeGrant, DeferredGrant, DeviceCodeGrant, HandOverGrant):
        endpoint.register_grant(grant)
    routes = Blueprint("oauth", __name__)
    _route(routes, "POST", "/oauth/token", _on_whole_history(services, lambda: endpoint.respond(request)))
    _route(routes, "POST", "/oauth/introspect", lambda: introspection.respond(services, request))
    _route(routes, "POST", "/oauth/revoke", lambda: revocation.respond(services, request))
    _route(
        routes,
        "POST",
        "/oauth/tasks/<task_id>/complete",
        lambda task_id: tasks.complete(services, request, task_id),
    )
    redeem = _on_whole_history(services, lambda: settlement.redeem(services, request))
    _route(routes, "POST", "/oauth/redeem", redeem)
    _route(
        routes,
        "POST",
        "/oauth/redemptions/<redemption_id>/<any(capture,void,refund):verb>",
        _on_whole_history(
            services, lambda redemption_id, verb: settlement.step(services, request, redemption_id, verb)
        ),
    )
    _route(routes, "POST", "/oauth/par", lambda: authorization.push(services, request))
    _route(
        routes,
        "POST",
        "/oauth/device_authorization",
        lambda: authorization.start_device(services, request, visitor(services, request)),
    )
    for method in ("GET", "DELETE"):
        _route(
            routes,
            method,
            "/oauth/grants/<grant_id>",
            lambda grant_id: grants.respond(services, request, grant_id),
        )
    _route(routes, "GET", "/oauth/jwks", lambda: metadata.jwks_response(services))
    # No list has an id that the database could not hold.
    _route(
        routes,
        "GET",
        f"/oauth/status/<int(max={2**63 - 1}):list_id>",
        lambda list_id: status.respond(request, list_id),
    )
    _route(
        routes,
        "GET",
        "/.well-known/oauth-authorization-server",
        lambda: metadata.metadata_response(services),
    )
    _ssf(routes, services)
    _route(routes, _API_METHODS, "/api/v1/<path:path>", _api(services))
    _route(routes, "GET", "/healthz", health.alive)
    _route(routes, "GET", "/readyz", lambda: health.ready(services))
    _route(routes, "GET", "/metrics", lambda: metrics.respond(services, request))
    return routes


def _on_whole_history(services: Services, answer: Answer) -> Answer:
    """What moves an amount or mints: not while the database lacks what it once knew (threats F15)."""

    def respond(**arguments: str | int) -> Response:
        services.history.must_be_whole()
        return answer(**arguments)

    return respond


def _ssf(routes: Blueprint, services: Services) -> None:
    """What resource servers hear events by (OpenID Shared Signals Framework 1.0)."""
    streams = {"POST": ssf.create, "GET": ssf.read, "PATCH": ssf.update, "PUT": ssf.put, "DELETE": ssf.remove}
    for method, answer in streams.items():
        _route(routes, method, "/oauth/ssf/streams", partial(answer, services, request))
    for method, answer in {"GET": ssf.status, "POST": ssf.set_status}.items():
        _route(routes, method, "/oauth/ssf/status", partial(answer, services, request))
    _route(routes, "POST", "/oauth/ssf/verify", lambda: ssf.verify(services, request))
    _route(
        routes,
        "POST",
        "/oauth/ssf/poll/<stream_id>",
        lambda stream_id: ssf.poll(services, request, stream_id),
    )
    _route(routes, "GET", "/.well-known/ssf-configuration", lambda: ssf.metadata(services))


def _api(services: Services) -> Answer:
    """The administrators' API, imported when it is first called: most processes of a company never are."""

    @cache
    def opened() -> Callable[..., Response]:
        from authserver.admin.serving import api

        return api(services)

    return lambda path: opened()(request, path)


def _route(routes: Blueprint, method: str | tuple[str, ...], path: str, answer: Answer) -> None:
    @wraps(answer)
    def respond(**arguments: str | int) -> Response:
        try:
            return answer(**arguments)
        except Refusal as refusal:
            return _refused(refusal)

    methods = (method,) if isinstance(method, str) else method
    # What is routed by itself answers OPTIONS by itself, too.
    automatic = None if isinstance(method, str) else False
    routes.add_url_rule(
        path,
        f"{methods[0]} {path}".replace(".", "_"),
        respond,
        methods=methods,
        provide_automatic_options=automatic,
    )


def _begun() -> None:
    headers = request.headers
    g.request_id = begin_request(headers.get("X-Request-Id"), headers.get("traceparent"))


def _ended(error: BaseException | None) -> None:
    end_request()


def _guarded(response: Response) -> Response:
    # What says nothing of its own is no page: no sniffing, no framing, no content of any kind.
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers["X-Request-Id"] = g.get("request_id", "")
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    return response


def _refused(refusal: Refusal) -> Response:
    if answers.wants_a_page(request):
        answers.speak(answers.services_here(), request)
        return answers.refusal_page(refusal)
    # Contract §7, §10: where settlement is, and for administrators, every error is problem details.
    problems = settlement.is_at(request.path) or "/api/v1/" in f"{request.path}/"
    shape = settlement.problem_answer if problems else error_answer
    return shape(refusal)


def _http_error(error: HTTPException) -> Response:
    code = "invalid_request" if error.code != 404 else "not_found"
    allowed = error.get_response().headers.get("Allow")
    headers = {"Allow": allowed} if allowed else {}
    return _refused(Refusal(code, error.name.lower(), status=error.code or 500, headers=headers))


def _unexpected(error: Exception) -> Response:
    log.error("request.failed", error=type(error).__name__, path=_pattern(), stack=_stack(error))
    return _refused(Refusal("server_error", "the server failed; this was recorded", status=500))


def _stack(error: BaseException | None) -> list[str]:
    """Where it failed, and where what caused it did. No error's own words: they may hold a token that was sent."""
    lines = list[str]()
    while error is not None and len(lines) < _MOST_LINES:
        lines.append(type(error).__name__)
        lines += [line.strip() for line in traceback.format_tb(error.__traceback__)]
        error = error.__cause__ or error.__context__
    return lines[:_MOST_LINES]


def _pattern() -> str:
    # An enrolment link's path is a secret; what it is an instance of is none.
    return str(request.url_rule) if request.url_rule else request.path
