"""OpenTelemetry: a span for each request, and below it one for each stage, sent to a collector over HTTP.

OpenTelemetry's own environment variables say where to, and how. Where they name no collector, none of it is imported.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING

import structlog

from service import __version__
from service.errors import StartupFailed

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

NAMED_BY = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# Orchestrators and Prometheus ask for these all the time.
NOT_TRACED = re.compile(r"/health/.*|/metrics")
# How long the last spans may take at the end; a collector that hangs keeps nobody.
FLUSH_SECONDS = 2.0
OFF = nullcontext()

_current: ContextVar[Trace | None] = ContextVar("trace", default=None)

log = structlog.get_logger()


class Tracing:
    """Where spans go; nowhere, until it is opened and the environment names a collector."""

    def __init__(self) -> None:
        self._tracer: Tracer | None = None
        self._provider: TracerProvider | None = None

    def open(self) -> None:
        """Begin to send. Spans wait in a bounded queue for a thread that sends them: no request waits for a collector.

        Raises:
            StartupFailed: what the environment says of the collector is not valid.
        """
        if not _wanted():
            return
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            log.warning(
                "tracing_not_installed", reason="expected the extra `otel`: pip install -c constraints.txt -e '.[otel]'"
            )
            return
        ours = Resource({"service.name": "sichtbar", "service.version": __version__})
        try:
            self._provider = TracerProvider(
                resource=Resource.create(ours.merge(OTELResourceDetector().detect()).attributes), shutdown_on_exit=False
            )
            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except ValueError as invalid:
            raise StartupFailed(f"OpenTelemetry: {invalid}") from None
        self._tracer = self._provider.get_tracer("sichtbar", __version__)

    async def close(self) -> None:
        """Send what is left, if the collector takes it soon."""
        if self._provider is not None:
            # Its own way waits for half a minute.
            sending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
            sending.start()
            await asyncio.to_thread(sending.join, FLUSH_SECONDS)

    def request(self, method: str, path: str, scheme: str, headers: Mapping[str, str]) -> Trace | None:
        """Begin the span of a request: in the trace of its `traceparent`, if that is valid, else in a new one.

        Stages in this context, and in tasks that begin in it, are below it. None where nothing is traced.
        """
        if self._tracer is None or NOT_TRACED.fullmatch(path):
            return None
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        given = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        span = self._tracer.start_span(
            method,
            context=TraceContextTextMapPropagator().extract(given),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "url.path": path, "url.scheme": scheme},
        )
        trace = Trace(self._tracer, span)
        _current.set(trace)
        return trace


class Trace:
    """The span of a request that is under way."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span

    @property
    def id(self) -> str:
        """The trace's id, 32 hex digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def response(self) -> str:
        """The value of the header `traceresponse`."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, method: str, route: str | None, status: int) -> None:
        """The request was answered."""
        from opentelemetry.trace import Status, StatusCode

        if route is not None:
            self._span.update_name(f"{method} {route}")
            self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def begin(self, name: str, labels: tuple[str, str] | None, started: int) -> Span:
        """The span of a stage, which began then, in nanoseconds since 1970."""
        from opentelemetry.trace import set_span_in_context

        span = self._tracer.start_span(name, context=set_span_in_context(self._span), start_time=started)
        if labels is not None:
            span.set_attributes({"sichtbar.model": labels[0], "sichtbar.version": labels[1]})
        return span


class _Stage:
    """A stage that is under way."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        if kind is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute("error.type", kind.__name__)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def stage(name: str, labels: tuple[str, str] | None = None) -> AbstractContextManager[object]:
    """The span of a stage of the request at hand, while the context is open; `labels`: a model's name and version."""
    trace = _current.get()
    return OFF if trace is None else _Stage(trace.begin(name, labels, time_ns()))


def ended(name: str, seconds: float, labels: tuple[str, str], *, ago: float = 0.0) -> None:
    """The span of a stage that took so long, and ended so many seconds ago."""
    trace = _current.get()
    if trace is not None:
        end = time_ns() - round(ago * 1e9)
        trace.begin(name, labels, end - round(seconds * 1e9)).end(end)


def _wanted() -> bool:
    environ = os.environ
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not off and any(environ.get(name) for name in NAMED_BY)
