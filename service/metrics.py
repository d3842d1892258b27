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
EXPLANATION_SECONDS = tuple(0.05 * 2**power for power in range(14))
SAMPLES = tuple(2**power for power in range(4, 15))
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
        self.images_stored = Counter("sichtbar_images_stored", "Pictures written to the store.", registry=self.registry)
        self.images_not_stored = Counter(
            "sichtbar_images_not_stored",
            "Pictures classified, but not kept as they should have been, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.images_removed = Counter(
            "sichtbar_images_removed",
            "Pictures that this process removed from the folder: expired, to make room, or abandoned half written.",
            ["reason"],
            registry=self.registry,
        )
        self.image_lookups = Counter(
            "sichtbar_image_lookups",
            "Pictures asked for by id: found, unknown, or the store was unavailable.",
            ["result"],
            registry=self.registry,
        )
        self.image_bytes = Gauge(
            "sichtbar_image_bytes",
            "Bytes of pictures in the folder, as this process counts them; those of others at every sweep.",
            registry=self.registry,
        )
        self.explanations = Counter(
            "sichtbar_explanations",
            "Explanations computed, by outcome: done, failed or cancelled.",
            ["method", "model", "version", "outcome"],
            registry=self.registry,
        )
        self.explanation_seconds = Histogram(
            "sichtbar_explanation_seconds",
            "Seconds that an explanation took, without its wait for a turn.",
            ["method", "model", "version"],
            buckets=EXPLANATION_SECONDS,
            registry=self.registry,
        )
        self.explanation_samples = Histogram(
            "sichtbar_explanation_samples",
            "Perturbed pictures that one LIME explanation asked the model about.",
            ["model", "version"],
            buckets=SAMPLES,
            registry=self.registry,
        )
        self.explanation_jobs = Gauge(
            "sichtbar_explanation_jobs", "Explanations queued, and running.", ["state"], registry=self.registry
        )
        self.explanation_cache = Counter(
            "sichtbar_explanation_cache",
            "Explanations and drawings looked up among those computed before: hit or miss.",
            ["kind", "result"],
            registry=self.registry,
        )
        self.explainer_restarts = Counter(
            "sichtbar_explainer_restarts",
            "Times that the process that explains was started anew.",
            registry=self.registry,
        )
        self.load_seconds = Histogram(
            "sichtbar_model_load_seconds",
            "Seconds that it took to verify, load, warm up and probe a version.",
            ["model"],
            buckets=EXPLANATION_SECONDS,
            registry=self.registry,
        )
        self.load_failures = Counter(
            "sichtbar_model_load_failures",
            "Versions that could not be loaded; each is tried again when its files change.",
            ["model"],
            registry=self.registry,
        )
        self.version_state = Gauge(
            "sichtbar_model_version_state",
            "1 for the state of a version: loading, available, unloading, unloaded, incomplete or failed.",
            ["model", "version", "state", "engine"],
            registry=self.registry,
        )
        Info("sichtbar_build", "What runs.", registry=self.registry).info({"version": __version__})

    def watch_queue(self, model: str, version: str, waiting: Callable[[], int]) -> None:
        """Read the queue's length when it is scraped."""
        self.queue_length.labels(model, version).set_function(waiting)

    def forget_queue(self, model: str, version: str) -> None:
        """The version has no queue any more."""
        self.queue_length.remove(model, version)

    def watch_explanations(self, count: Callable[[bool], int]) -> None:
        """Count those under way when they are scraped: `count(running)`."""
        self.explanation_jobs.labels("queued").set_function(lambda: count(False))
        self.explanation_jobs.labels("running").set_function(lambda: count(True))

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
