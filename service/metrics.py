"""What Prometheus scrapes: every metric, its labels and its buckets, in one registry an app."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from service import __version__

# Geometric: a small CNN answers in a millisecond, a large one on a busy machine in seconds.
SECONDS = tuple(0.0005 * 2**power for power in range(16))
BATCH_SIZES = tuple(2**power for power in range(9))


class Metrics:
    """Labels come from closed sets: routes, codes, stages, and the models that are on disk."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = Counter(
            "sichtbar_http_requests",
            "Requests by method, route template and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "sichtbar_http_request_seconds",
            "From a request's first byte to its answer's last.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.predictions = Counter(
            "sichtbar_predictions", "Pictures classified.", ["model", "version"], registry=self.registry
        )
        self.stage_seconds = Histogram(
            "sichtbar_stage_seconds",
            "Seconds that one picture spent in a stage: decode, queue or inference.",
            ["model", "version", "stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "sichtbar_batch_size",
            "Pictures in one inference.",
            ["model", "version"],
            buckets=BATCH_SIZES,
            registry=self.registry,
        )
        self.queue_length = Gauge(
            "sichtbar_queue_length",
            "Pictures that wait for the model.",
            ["model", "version"],
            registry=self.registry,
        )
        self.errors = Counter(
            "sichtbar_errors",
            "Requests that were refused or failed, by the problem's code.",
            ["code"],
            registry=self.registry,
        )
        self.version_state = Gauge(
            "sichtbar_model_version_state",
            "1 for the state of a version on disk: available or failed.",
            ["model", "version", "state", "engine"],
            registry=self.registry,
        )
        Info("sichtbar_build", "What runs.", registry=self.registry).info({"version": __version__})

    def watch_queue(self, model: str, version: str, waiting: Callable[[], int]) -> None:
        """Read the queue's length when it is scraped."""
        self.queue_length.labels(model, version).set_function(waiting)

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
