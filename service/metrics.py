"""What Prometheus scrapes: every metric, its labels and its buckets, in one registry an app."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from time import perf_counter
from typing import get_args

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
from service.choices import EngineName, Method
from service.errors import ClientError, ImageError, Unavailable
from service.sums import Processes, Sums, share
from service.team import Team

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
    "route": (
        "a call's path as `/docs` has it; `/` and `/web/{name:path}`, the page; `turned away`, what was not read; "
        "or `unmatched`"
    ),
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
    "method": get_args(Method),
    "sichtbar_explanations.outcome": ("done", "failed", "cancelled"),
    "sichtbar_explanation_jobs.state": ("queued", "running"),
    "sichtbar_explanation_cache.kind": ("explanation", "drawing"),
    "sichtbar_explanation_cache.result": ("hit", "miss"),
    "sichtbar_model_version_state.state": ("loading", "available", "unloading", "unloaded", "incomplete", "failed"),
    "sichtbar_model_version_state.engine": (*get_args(EngineName), ""),
}


class Metrics:
    """Labels come from closed sets, see `LABELS`: nothing that a client may choose is one.

    Of several workers each shows what all have counted together, also those that have died since the service started.
    """

    def __init__(self, team: Team | None = None) -> None:
        self.registry = self._shown = CollectorRegistry()
        self._watched: dict[Gauge, Callable[[], float]] | None = None
        if team is None:
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        else:
            share(team)
            self._watched = {}
            self._shown = CollectorRegistry()
            self._shown.register(Sums(team.metrics))
            self._shown.register(Processes(team))
        PlatformCollector(registry=self._shown)
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
            multiprocess_mode="livemin",
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
            "sichtbar_cache_bytes",
            "Bytes of answers that are kept, by each worker for itself.",
            registry=self.registry,
            multiprocess_mode="livesum",
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
            multiprocess_mode="livesum",
        )
        self.queue_limit = Gauge(
            "sichtbar_queue_limit",
            "Pictures that may wait for one version; one more is refused.",
            registry=self.registry,
            multiprocess_mode="livesum",
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
            multiprocess_mode="livemostrecent",
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
            "sichtbar_explanation_jobs",
            "Explanations queued, and running.",
            ["state"],
            registry=self.registry,
            multiprocess_mode="livesum",
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
            "Workers in which a version is loading, available, unloading, unloaded, incomplete or failed; 1 of one.",
            ["model", "version", "state", "engine"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.label_problem = Gauge(
            "sichtbar_label_problem",
            "Workers in which a model's labels are not what its `labels.json` says; 1 of one.",
            ["model"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.workers = Gauge(
            "sichtbar_workers", "Processes that serve.", registry=self.registry, multiprocess_mode="livesum"
        )
        self.worker_restarts = Counter(
            "sichtbar_worker_restarts", "Times that a worker took the place of one that died.", registry=self.registry
        )
        self.build = Info("sichtbar_build", "What runs.", registry=self._shown)
        self.build.info({"version": __version__})
        # By labels, for what every request counts: prometheus-client's own way there takes a lock and checks each time.
        self.request_of = cache(self.requests.labels)
        self.request_seconds_of = cache(self.request_seconds.labels)
        self.model_request_of = cache(self.model_requests.labels)
        self.model_request_seconds_of = cache(self.model_request_seconds.labels)
        self.stage_seconds_of = cache(self.stage_seconds.labels)
        self.prediction_of = cache(self.predictions.labels)
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
            self.model_request_seconds_of(model, version).observe(perf_counter() - started)
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
            self.model_request_of(model, version, outcome).inc()

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Count a picture that turns out not to be readable."""
        try:
            yield
        except ImageError as error:
            self.images_refused.labels(error.code).inc()
            raise

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        """Say whether the service is ready; a worker that does not serve yet keeps none from being."""
        self.ready.set(1)
        self._watch(self.ready, ready)

    def watch_queue(self, model: str, version: str, waiting: Callable[[], int]) -> None:
        """Read the queue's length when it is scraped."""
        self._watch(self.queue_length.labels(model, version), waiting)

    def forget_queue(self, model: str, version: str) -> None:
        """The version has no queue any more."""
        if self._watched is not None:
            self._watched.pop(self.queue_length.labels(model, version), None)
        self._forget(self.queue_length, model, version)

    def forget_state(self, *labels: str) -> None:
        """A version is in that state no more: see `version_state`."""
        self._forget(self.version_state, *labels)

    def forget_label_problem(self, model: str) -> None:
        """A model's labels are what they shall be: see `label_problem`."""
        self._forget(self.label_problem, model)

    def watch_explanations(self, count: Callable[[bool], int]) -> None:
        """Count those under way when they are scraped: `count(running)`."""
        for state, running in (("queued", False), ("running", True)):
            self._watch(self.explanation_jobs.labels(state), partial(count, running))

    def refresh(self) -> None:
        """Read what is watched now, where another worker may be the one that is scraped."""
        for gauge, read in (self._watched or {}).items():
            gauge.set(read())

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        self.refresh()
        return generate_latest(self._shown)

    def _watch(self, gauge: Gauge, read: Callable[[], float]) -> None:
        if self._watched is None:
            gauge.set_function(read)
        else:
            self._watched[gauge] = read

    def _forget(self, gauge: Gauge, *labels: str) -> None:
        if self._watched is None:
            gauge.remove(*labels)
        else:
            # Nothing can be taken out of a file.
            gauge.labels(*labels).set(0)
