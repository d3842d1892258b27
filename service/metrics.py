"""What Prometheus scrapes: every metric, its labels and its buckets, in one registry an app."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

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
from service.errors import ClientError, ImageError, Unavailable

# Geometric: a small CNN answers in a millisecond, a large one on a busy machine in seconds.
SECONDS = tuple(0.0005 * 2**power for power in range(16))
EXPLANATION_SECONDS = tuple(0.05 * 2**power for power in range(14))
SAMPLES = tuple(2**power for power in range(4, 15))
BATCH_SIZES = tuple(2**power for power in range(9))

# What a label may be, by its own name, or by its metric's and its own where that decides; in words where no code lists
# it.
LABELS: dict[str, tuple[str, ...] | str] = {
    "model": "a folder's name below `SICHTBAR_MODELS`",
    "version": "a version's number there",
    "route": "a call's path as `/docs` has it, or `unmatched`",
    "status": "HTTP's, of three digits; 499 where the client had gone",
    "code": "a problem's `code`",
    "sichtbar_build.version": "this release",
    "sichtbar_http_requests.method": ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "other"),
    "sichtbar_model_requests.outcome": ("answered", "refused", "unavailable", "failed", "abandoned"),
    "sichtbar_stage_seconds.stage": ("decode", "queue", "inference", "cache", "render"),
    "sichtbar_cache.result": ("hit", "miss"),
    "sichtbar_images_refused.reason": tuple(sorted(kind.code for kind in ImageError.__subclasses__())),
    "sichtbar_images_not_stored.reason": (
        "busy",
        "denied",
        "failed",
        "full",
        "slow",
        "too_large",
        "unavailable",
        "unsafe",
    ),
    "sichtbar_images_removed.reason": ("abandoned", "expired", "room"),
    "sichtbar_image_lookups.result": ("found", "unknown", "unavailable"),
    "method": ("lime", "gradcam"),
    "sichtbar_explanations.outcome": ("done", "failed", "cancelled"),
    "sichtbar_explanation_jobs.state": ("queued", "running"),
    "sichtbar_explanation_cache.kind": ("explanation", "drawing"),
    "sichtbar_explanation_cache.result": ("hit", "miss"),
    "sichtbar_model_version_state.state": ("loading", "available", "unloading", "unloaded", "incomplete", "failed"),
    "sichtbar_model_version_state.engine": ("openvino", "tensorflow", ""),
}


class Metrics:
    """Labels come from closed sets, see `LABELS`: nothing that a client may choose is one."""

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
        self.ready = Gauge(
            "sichtbar_ready",
            "1 while the service is ready for pictures, as /health/ready says.",
            registry=self.registry,
        )
        self.model_requests = Counter(
            "sichtbar_model_requests",
            "Requests to a version for predictions, by whatever protocol, and what became of them.",
            ["model", "version", "outcome"],
            registry=self.registry,
        )
        self.model_request_seconds = Histogram(
            "sichtbar_model_request_seconds",
            "From a request's pictures as sent to all their answers, where it was answered.",
            ["model", "version"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.predictions = Counter(
            "sichtbar_predictions",
            "Pictures classified, those from the cache too.",
            ["model", "version"],
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "sichtbar_stage_seconds",
            "Seconds of a picture in a stage: decode, queue and inference, or cache; render draws its explanation.",
            ["model", "version", "stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.cache = Counter(
            "sichtbar_cache",
            "Pictures looked up among those answered before, where SICHTBAR_CACHE_BYTES keeps any.",
            ["model", "version", "result"],
            registry=self.registry,
        )
        self.cache_bytes = Gauge(
            "sichtbar_cache_bytes", "Bytes of answers that this process keeps.", registry=self.registry
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
        self.queue_limit = Gauge(
            "sichtbar_queue_limit",
            "Pictures that may wait for one version; one more is refused.",
            registry=self.registry,
        )
        self.errors = Counter(
            "sichtbar_errors",
            "Requests that were refused or failed, by the problem's code.",
            ["code"],
            registry=self.registry,
        )
        self.images_refused = Counter(
            "sichtbar_images_refused",
            "Pictures that cannot be read, by the problem's code.",
            ["reason"],
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
        self.look_seconds = Histogram(
            "sichtbar_look_seconds",
            "Seconds that a look inside took: at feature maps, kernels, or a picture's walk.",
            ["model", "version"],
            buckets=EXPLANATION_SECONDS,
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
        self.loads = Counter(
            "sichtbar_model_loads", "Times that a version was loaded.", ["model", "version"], registry=self.registry
        )
        self.load_failures = Counter(
            "sichtbar_model_load_failures",
            "Times that a version could not be loaded; it is tried again when its files change.",
            ["model", "version"],
            registry=self.registry,
        )
        self.version_state = Gauge(
            "sichtbar_model_version_state",
            "1 for the state of a version: loading, available, unloading, unloaded, incomplete or failed.",
            ["model", "version", "state", "engine"],
            registry=self.registry,
        )
        self.build = Info("sichtbar_build", "What runs.", registry=self.registry)
        self.build.info({"version": __version__})
        for reason in LABELS["sichtbar_images_refused.reason"]:
            # A counter that starts at nothing hides its first increase.
            self.images_refused.labels(reason)

    @contextmanager
    def model_request(self, model: str, version: str) -> Iterator[None]:
        """Count a request to a version, and time it if it is answered."""
        started, outcome = perf_counter(), "abandoned"
        try:
            yield
            outcome = "answered"
            self.model_request_seconds.labels(model, version).observe(perf_counter() - started)
        except ClientError:
            outcome = "refused"
            raise
        except Unavailable:
            outcome = "unavailable"
            raise
        except Exception:
            outcome = "failed"
            raise
        finally:
            self.model_requests.labels(model, version, outcome).inc()

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Count a picture that turns out not to be readable."""
        try:
            yield
        except ImageError as error:
            self.images_refused.labels(error.code).inc()
            raise

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
