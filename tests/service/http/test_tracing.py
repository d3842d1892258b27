"""Traces, as a collector receives them."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service import __version__
from service.app import create_app
from service.errors import StartupFailed
from service.settings import Settings
from service.tracing import Tracing
from tests.conftest import LiveServer, draw, encode
from tests.service.http.explaining import until
from tests.service.test_main import Program

PICTURE = encode(draw("circle", 1))
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
RESPONSE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0([0-3])")
SAMPLED = 1


class Collector:
    """Takes spans over HTTP as a real one does."""

    def __init__(self) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in resource.resource.attributes})
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def trace(self, trace_id: str, name: str) -> dict[str, Span]:
        """A trace's spans by name, once the one of that name is among them."""
        spans: dict[str, Span] = until(
            lambda: (
                found
                if name in (found := {span.name: span for span in list(self.spans) if span.trace_id.hex() == trace_id})
                else None
            )
        )
        return spans

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def attributes(span: Span) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def ids(answer: httpx.Response) -> tuple[str, str]:
    """The trace and the span that an answer names."""
    match = RESPONSE.fullmatch(answer.headers["traceresponse"])
    assert match
    return match[1], match[2]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    running = Collector()
    monkeypatch.setenv(ENDPOINT, running.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    yield running
    running.close()


@pytest.fixture
def app(shapes_models: Path) -> FastAPI:
    return create_app(Settings(models=shapes_models, engine="openvino", cache_bytes=2**20))


@pytest.fixture
def client(collector: Collector, app: FastAPI, serve: Callable[[FastAPI], httpx.Client]) -> httpx.Client:
    return serve(app)


def test_a_request_is_a_span_and_each_stage_one_below_it(client: httpx.Client, collector: Collector) -> None:
    answer = client.post("/predict?top_k=1", files={"file": encode(draw("circle", 1001))})
    trace_id, span_id = ids(answer)
    spans = collector.trace(trace_id, "POST /predict")
    assert set(spans) == {"POST /predict", "decode", "queue", "inference", "store"}
    request = spans.pop("POST /predict")
    assert request.span_id.hex() == span_id
    assert request.parent_span_id == b""
    assert request.kind == Span.SPAN_KIND_SERVER
    assert request.status.code == Status.STATUS_CODE_UNSET
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "url.path": "/predict",
        "url.scheme": "http",
    }
    for span in spans.values():
        assert span.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    assert spans["decode"].end_time_unix_nano <= spans["inference"].end_time_unix_nano
    assert attributes(spans["inference"]) == {"sichtbar.model": "shapes", "sichtbar.version": "1"}
    assert collector.resources[0]["service.name"] == "sichtbar"
    assert collector.resources[0]["service.version"] == __version__


def test_a_kept_answer_has_no_inference(client: httpx.Client, collector: Collector) -> None:
    client.post("/predict?store=false", files={"file": PICTURE})
    trace_id, _ = ids(client.post("/predict?store=false", files={"file": PICTURE}))
    assert set(collector.trace(trace_id, "POST /predict")) == {"POST /predict", "cache"}


def test_a_request_goes_on_its_client_s_trace(client: httpx.Client, collector: Collector) -> None:
    given = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "shop=1"}
    trace_id, _ = ids(client.get("/models", headers=given))
    assert trace_id == TRACE
    span = collector.trace(TRACE, "GET /models")["GET /models"]
    assert span.parent_span_id.hex() == PARENT
    assert span.trace_state == "shop=1"


@pytest.mark.parametrize(
    "given",
    [
        "nonsense",
        f"00-{'0' * 32}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE[1:]}-{PARENT}-01",
    ],
    ids=["words", "zero", "version", "short", "digits"],
)
def test_a_malformed_traceparent_is_ignored(client: httpx.Client, collector: Collector, given: str) -> None:
    answer = client.get("/models", headers={"traceparent": given})
    assert answer.status_code == 200
    trace_id, _ = ids(answer)
    assert trace_id != TRACE
    assert collector.trace(trace_id, "GET /models")["GET /models"].parent_span_id == b""


def test_what_a_client_does_not_sample_is_not_sent(client: httpx.Client, collector: Collector) -> None:
    answer = client.get("/models", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert ids(answer)[0] == TRACE
    assert not int(answer.headers["traceresponse"][-1]) & SAMPLED
    # What came after it has arrived.
    collector.trace(ids(client.get("/models"))[0], "GET /models")
    assert TRACE not in {span.trace_id.hex() for span in collector.spans}


def test_probes_and_scrapes_are_no_traces(client: httpx.Client, collector: Collector) -> None:
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert "traceresponse" not in client.get(path).headers
    collector.trace(ids(client.get("/models"))[0], "GET /models")
    assert {span.name for span in collector.spans} == {"GET /models"}


def test_no_span_is_named_by_a_stranger(client: httpx.Client, collector: Collector) -> None:
    trace_id, _ = ids(client.get("/secret/of/a/scanner"))
    spans = collector.trace(trace_id, "GET")
    assert "http.route" not in attributes(spans["GET"])


def test_a_client_s_mistake_is_no_error_of_the_service_but_shows_where(
    client: httpx.Client, collector: Collector
) -> None:
    trace_id, _ = ids(client.post("/predict", files={"file": b"no picture"}))
    spans = collector.trace(trace_id, "POST /predict")
    assert spans["POST /predict"].status.code == Status.STATUS_CODE_UNSET
    assert attributes(spans["POST /predict"])["http.response.status_code"] == 415
    assert spans["decode"].status.code == Status.STATUS_CODE_ERROR
    assert attributes(spans["decode"])["error.type"] == "UnsupportedImage"


def test_a_bug_is_an_error(app: FastAPI, client: httpx.Client, collector: Collector) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    app.add_api_route("/broken", broken)
    answer = client.get("/broken", timeout=60)
    assert answer.status_code == 500
    span = collector.trace(ids(answer)[0], "GET /broken")["GET /broken"]
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "500"


def test_explaining_drawing_and_looking_are_stages(client: httpx.Client, collector: Collector) -> None:
    picture = encode(draw("stripes", 1001))
    explained = client.post("/explain?samples=32&wait=60", files={"file": picture}, timeout=60)
    assert explained.status_code == 200
    spans = collector.trace(ids(explained)[0], "POST /explain")
    assert set(spans) == {"POST /explain", "decode", "store", "explain", "render"}
    assert {span.parent_span_id for name, span in spans.items() if name != "POST /explain"} == {
        spans["POST /explain"].span_id
    }
    looked = client.post("/activations?layer=input", files={"file": picture}, timeout=60)
    assert set(collector.trace(ids(looked)[0], "POST /activations")) == {"POST /activations", "look"}


def test_a_job_s_explanation_belongs_to_the_request_that_asked_for_it(
    client: httpx.Client, collector: Collector
) -> None:
    started = client.post("/explanations?samples=32", files={"file": encode(draw("stripes", 1002))}, timeout=60)
    assert started.status_code == 202
    spans = collector.trace(ids(started)[0], "explain")
    assert spans["explain"].parent_span_id.hex() == ids(started)[1]


@pytest.fixture(params=["closed", "silent"])
def bad_collector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One that is not there, or takes connections and never answers; few spans may wait for it."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    if request.param == "silent":
        listening.listen()
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{listening.getsockname()[1]}")
    for name, value in {"SCHEDULE_DELAY": "1", "MAX_QUEUE_SIZE": "8", "MAX_EXPORT_BATCH_SIZE": "4"}.items():
        monkeypatch.setenv(f"OTEL_BSP_{name}", value)
    yield
    listening.close()


@pytest.mark.usefixtures("bad_collector")
def test_a_collector_that_fails_costs_no_prediction_and_keeps_no_service_from_stopping(app: FastAPI) -> None:
    with LiveServer(app) as server, httpx.Client(base_url=server.url) as client:
        for _ in range(50):
            assert client.post("/predict", files={"file": PICTURE}).status_code == 200
    # Leaving has waited for the server, not for the collector, which is as it was.
    assert not server._thread.is_alive()


def test_the_log_tells_each_request_s_trace_and_the_last_spans_are_sent_at_the_end(
    collector: Collector, shapes_models: Path
) -> None:
    later = {ENDPOINT: collector.url, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    program = Program(SICHTBAR_MODELS=str(shapes_models), SICHTBAR_ENGINE="openvino", **later)
    try:
        answer = httpx.get(f"{program.wait_for('serving')['url']}/models")
        assert program.wait_for("request")["trace_id"] == ids(answer)[0]
        assert collector.spans == []
        assert program.stop() == 0
    finally:
        program.process.kill()
        program.process.wait()
        program.rest()
        program.process.stdout.close()
    assert [span.name for span in collector.spans] == ["GET /models"]


@pytest.mark.parametrize(
    "environ",
    [{}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}],
    ids=["no endpoint", "disabled", "no exporter"],
)
def test_where_nothing_is_traced_nothing_of_it_is_imported(environ: dict[str, str], collector: Collector) -> None:
    program = """
import sys
from service.tracing import Tracing, stage
tracing = Tracing()
tracing.open()
assert tracing.request("GET", "/models", "http", {}) is None
with stage("decode"):
    pass
sys.exit(any(name.split(".")[0] == "opentelemetry" for name in sys.modules))
"""
    variables = {ENDPOINT: collector.url} | environ if environ else {}
    finished = subprocess.run([sys.executable, "-c", program], env=variables, cwd=Path.cwd())
    assert finished.returncode == 0


def test_without_the_extra_it_is_said_and_the_service_serves(
    collector: Collector, shapes_models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with (
        LiveServer(create_app(Settings(models=shapes_models, engine="openvino"))) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        answer = client.get("/models")
    assert answer.status_code == 200
    assert "traceresponse" not in answer.headers
    assert ".[otel]" in capsys.readouterr().out


@pytest.mark.usefixtures("collector")
def test_a_setting_of_opentelemetry_s_that_is_not_valid_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    with pytest.raises(StartupFailed, match="OpenTelemetry: max_queue_size"):
        Tracing().open()
