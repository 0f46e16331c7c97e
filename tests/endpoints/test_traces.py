"""Spans of an exchange at a real OTLP/HTTP receiver; request ids in logs and answers."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from structlog.testing import capture_logs

from authserver import traces
from authserver.logs import configure_logging
from tests.listening import listening
from tests.settling import eur
from tests.world import World

STEPS = {"parse", "actor", "delegation", "decide", "reserve", "commit", "sign"}


@dataclass
class Collector:
    """What was sent to an OTLP receiver."""

    bodies: list[bytes] = field(default_factory=list)
    endpoint: str = ""

    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [s for r in requests for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A receiver on loopback, to which this process sends its spans meanwhile."""
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with listening(server):
        kept.endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
        traces.start(kept.endpoint, 1.0, "https://auth.example")
        yield kept
        traces.stop()


def test_an_exchange_has_a_span_for_each_step_below_the_callers(
    shared_world: World, collector: Collector
) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01"}
    assert shared_world.exchange(shared_world.granted().grant, headers=headers).status_code == 200
    traces.stop()
    spans = {span.name: span for span in collector.spans()}
    assert spans.keys() == STEPS | {"POST /oauth/token"}
    root = spans["POST /oauth/token"]
    assert {span.trace_id.hex() for span in spans.values()} == {trace}
    assert root.parent_span_id.hex() == parent
    assert {spans[name].parent_span_id for name in STEPS} == {root.span_id}
    begins = [
        spans[name].start_time_unix_nano for name in ("parse", "actor", "delegation", "decide", "reserve")
    ]
    assert begins == sorted(begins)


def test_A122_no_token_and_no_name_is_in_a_span(shared_world: World, collector: Collector) -> None:
    world, granted = shared_world, shared_world.granted()
    answer = world.exchange(granted.grant, task_id="secret-task")
    world.refuses(
        world.exchange(granted.grant, action=world.action(amount=eur("81.00"))),
        "invalid_authorization_details",
    )
    traces.stop()
    refused = [span for span in collector.spans() if span.attributes]
    assert {a.value.string_value for span in refused for a in span.attributes} == {"limits.per_action"}
    sent = b"".join(collector.bodies)
    body = answer.json()
    for kept in (
        granted.grant,
        granted.grant_id,
        body["access_token"],
        body["action_id"],
        "secret-task",
        "ada",
    ):
        assert kept.encode() not in sent


@pytest.mark.parametrize(("share", "flag", "sent"), [(1.0, "00", True), (1e-9, "01", False)])
def test_a_callers_flag_neither_hides_a_request_nor_has_it_traced_beyond_the_share(
    shared_world: World, collector: Collector, share: float, flag: str, sent: bool
) -> None:
    traces.stop()
    traces.start(collector.endpoint, share, "https://auth.example")
    headers = {"traceparent": f"00-0af7651916cd43ddeeeeeeeeeeeeeeee-b7ad6b7169203331-{flag}"}
    assert shared_world.exchange(shared_world.granted().grant, headers=headers).status_code == 200
    traces.stop()
    assert bool(collector.spans()) is sent


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported_and_a_step_costs_nothing() -> None:
    program = "import authserver.app, sys; print([n for n in sys.modules if n.startswith('opentelemetry')])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
    begun = time.perf_counter()
    for _ in range(10_000):
        with traces.step("decide"):
            pass
    assert time.perf_counter() - begun < 0.1  # 10 us each would be far too much; it is about 0.1


# --- request ids ----------------------------------------------------------------------------------------------------


def test_every_answer_has_a_request_id_the_callers_own_where_it_is_one(shared_world: World) -> None:
    client = shared_world.client
    assert (
        client.get("/healthz", headers={"X-Request-Id": "mine-1.2_3"}).headers["x-request-id"] == "mine-1.2_3"
    )
    for bad in ("a b", "x" * 65, 'a"}', "\u00e9".encode().decode("latin-1")):
        said = client.get("/nowhere", headers={"X-Request-Id": bad.encode("latin-1")}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{16}", said)
    assert client.get("/healthz").headers["x-request-id"] != client.get("/healthz").headers["x-request-id"]


def test_A122_an_unexpected_error_is_logged_without_its_own_words(
    shared_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, address = "eyJ.of.ada", "ada@example.org"

    def fails(_services: object) -> None:
        try:
            raise KeyError(token)
        except KeyError as error:
            raise ValueError(address) from error

    monkeypatch.setattr("authserver.endpoints.metadata.jwks_response", fails)
    with capture_logs() as events:
        assert shared_world.client.get("/oauth/jwks").status_code == 500
    (event,) = (one for one in events if one["event"] == "request.failed")
    assert token not in repr(event)
    assert address not in repr(event)
    # Where it failed is told, and where what caused it did.
    assert {"ValueError", "KeyError"} <= set(event["stack"])
    assert sum("in fails" in line for line in event["stack"]) == 2


def test_what_is_logged_in_a_request_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    from authserver.logs import begin_request, end_request

    configure_logging("info", "json")
    trace = "0af7651916cd43dd8448eb211c80319c"
    begin_request("mine", f"00-{trace}-b7ad6b7169203331-01")
    structlog.get_logger().info("something.happened")
    end_request()
    structlog.get_logger().info("something.else")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["request_id"], first["trace_id"]) == ("mine", trace)
    assert "request_id" not in second
