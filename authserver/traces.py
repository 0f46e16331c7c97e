"""Where the time of an exchange goes: a span for each of its steps, sent by OTLP, where an operator wants that.

Off, it costs a look at one variable, and nothing of OpenTelemetry is imported. A span has names and times and, where a
step refused, the rule that did; never a token, an id or a name that somebody chose.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from authserver.errors import Refusal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

_NOTHING: AbstractContextManager[object] = nullcontext()
_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


def start(endpoint: str, share: float, issuer: str) -> None:
    """Send spans to the OTLP/HTTP collector at `endpoint`, of that share of all requests; in this process.

    Raises `ImportError` where the extra `traces` is not installed.
    """
    global _provider, _tracer
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    of = {"service.name": "authserver", "service.instance.id": str(os.getpid()), "authserver.issuer": issuer}
    ours = TraceIdRatioBased(share)
    # Anybody may send a `traceparent`: its flag neither has a request traced beyond the share nor hides one.
    sampler = ParentBased(ours, remote_parent_sampled=ours, remote_parent_not_sampled=ours)
    _provider = TracerProvider(resource=Resource(of), sampler=sampler)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
    _tracer = _provider.get_tracer("authserver")


def stop() -> None:
    """Send what is still to be sent, and nothing more."""
    global _provider, _tracer
    if _provider is not None:
        _provider.shutdown()
    _provider = _tracer = None


def request(name: str, traceparent: str | None) -> AbstractContextManager[object]:
    """The span around a whole request; `traceparent` is what the caller said of its own (W3C Trace Context)."""
    return _NOTHING if _tracer is None else _Step(_tracer, name, _context_of(traceparent))


def step(name: str) -> AbstractContextManager[object]:
    """A span for one step of a request."""
    return _NOTHING if _tracer is None else _Step(_tracer, name, None)


class Commit:
    """The time between the last statement of a transaction and its commit, as a span."""

    def __init__(self) -> None:
        self._span: Span | None = None

    def begins(self) -> None:
        """The last statement is done; again, where the transaction was begun anew."""
        if _tracer is not None:
            self._span = _tracer.start_span("commit")

    def is_done(self) -> None:
        """It is on the disk."""
        if self._span is not None:
            self._span.end()


class _Step:
    def __init__(self, tracer: "Tracer", name: str, context: Any) -> None:
        # An exception's own words may hold what was asked: neither they nor the stack go out.
        self._span = tracer.start_as_current_span(
            name, context=context, record_exception=False, set_status_on_exception=False
        )

    def __enter__(self) -> Self:
        self._entered = self._span.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            from opentelemetry.trace import StatusCode

            rule = error.rule or error.error if isinstance(error, Refusal) else type(error).__name__
            self._entered.set_attribute(
                "authserver.refused_by", "policy" if rule.startswith("policy:") else rule
            )
            self._entered.set_status(StatusCode.ERROR)
        self._span.__exit__(None, None, None)


def _context_of(traceparent: str | None) -> Any:
    if traceparent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})
