"""Logs are events with fields, one line each, never a token."""

import logging
import re
import secrets
import sys
from contextvars import ContextVar

import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


_ACCEPTED = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_request: ContextVar[tuple[str, str | None] | None] = ContextVar("request", default=None)


def begin_request(unverified_id: str | None, traceparent: str | None) -> str:
    """Let what is logged from here on say which request it was; returns the request's id.

    The caller's own `X-Request-Id` where it is one, else one of ours. With a `traceparent`, the trace's id is told too.
    """
    request_id = (
        unverified_id if unverified_id and _ACCEPTED.fullmatch(unverified_id) else secrets.token_hex(8)
    )
    trace = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
    _request.set((request_id, None if trace is None else trace[1]))
    return request_id


def end_request() -> None:
    """What is logged from here on is no request's."""
    _request.set(None)


def _of_the_request(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    running = _request.get()
    if running is not None:
        event["request_id"], trace_id = running
        if trace_id is not None:
            event["trace_id"] = trace_id
    return event


def configure_logging(level: str, format: str) -> None:
    """Send events of `level` and above to standard error, as JSON lines or, for `console`, for a person.

    Both renderers escape control characters, so that a logged value can never begin a line of its own.
    """
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if format == "console"
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _of_the_request,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(),
            _escaped if format == "console" else _unchanged,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,  # so that what is configured later holds, too
    )


def _unchanged(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return event


def _escaped(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    # CWE-117: what an attacker sent is shown as text on one line.
    return {
        name: value.encode("unicode_escape").decode("ascii") if isinstance(value, str) else value
        for name, value in event.items()
    }
