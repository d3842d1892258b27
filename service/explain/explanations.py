"""A question about a picture in, its explanation or a drawing of it out: kept from before, or computed once for all."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, TypeVar

import anyio
import structlog
from pydantic import TypeAdapter, ValidationError

from service import __version__, tracing
from service.errors import DeadlineExceeded, Overloaded, ServiceError
from service.explain import tasks
from service.explain.flights import Flight, Flights, landed
from service.explain.messages import Lane
from service.explain.process import Explainer
from service.explain.question import Explanation, LimeExplanation, Question
from service.explain.results import Results
from service.explain.style import Style
from service.explain.turns import Places, Turn
from service.metrics import Metrics
from service.repository import Version

EXPLANATION: TypeAdapter[Explanation] = TypeAdapter(Explanation)
# Pictures that may wait to be drawn.
MAX_DRAWINGS = 64

R = TypeVar("R")
Picture = Callable[[], Awaitable[bytes]]

log = structlog.get_logger()


class Asked(NamedTuple):
    """A question to a version about a picture."""

    image_id: str
    version: Version
    question: Question

    @property
    def name(self) -> str:
        """What decides the answer, as a name: the picture, the version and its files, the question, this release."""
        manifest = self.version.manifest
        decides = (
            manifest.name,
            manifest.version,
            self.version.digest,
            self.version.engine,
            self.question,
            __version__,
        )
        return f"{self.image_id}-{_digest(decides)}.json"

    def drawing(self, style: Style) -> str:
        """The name of the answer's picture."""
        return f"{self.image_id}-{_digest((self.name, style))}.png"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


class Explanations:
    """Every explanation is computed once, however many ask for it, and kept for a while."""

    def __init__(
        self,
        explainer: Explainer,
        results: Results,
        metrics: Metrics,
        *,
        limit: int,
        max_bytes: int,
        max_pixels: int,
        seconds: float,
        turns: Path | None = None,
    ) -> None:
        """`turns`: a folder where all workers of the service take turns, and places."""
        self._explainer = explainer
        self._results = results
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._seconds = seconds
        self._computing: Flights[Explanation] = Flights(
            limit, "explanations", None if turns is None else Places(turns, limit)
        )
        self._bytes = 0
        self._drawing: Flights[bytes] = Flights(MAX_DRAWINGS, "drawings")
        # The process computes one long explanation after the other; those that wait here can still be taken back.
        self._turn = Turn(None if turns is None else turns / "turn")
        self._shared = turns is not None
        metrics.watch_explanations(lambda running: self._computing.count(running=running))

    async def kept(self, name: str) -> Explanation | None:
        """An explanation that was computed before."""
        explanation = await self._find(name)
        self._metrics.explanation_cache.labels("explanation", "miss" if explanation is None else "hit").inc()
        return explanation

    async def kept_drawing(self, name: str) -> bytes | None:
        """A picture that was drawn before."""
        data = await self._results.get(name)
        self._metrics.explanation_cache.labels("drawing", "miss" if data is None else "hit").inc()
        return data

    def computing(self, name: str) -> bool:
        """Whether it is under way."""
        return name in self._computing

    def join(self, asked: Asked, data: bytes) -> Flight[Explanation]:
        """Compute it, or wait with those who do. Whoever joined must `leave`.

        Raises:
            Overloaded: as many are queued and running as may be, or they hold as many bytes of pictures as they may.
        """
        lane: Lane = "quick" if asked.question.method == "gradcam" else "long"
        new = asked.name not in self._computing
        if new and self._bytes + len(data) > self._max_bytes:
            raise Overloaded(f"explanations hold {self._bytes} bytes of pictures already")
        flight = self._computing.join(asked.name, lambda flight: self._compute(flight, asked, data), lane)
        if new:
            self._bytes += len(data)
            flight.task.add_done_callback(lambda _: self._release(len(data)))
        return flight

    def full(self) -> Overloaded:
        """The answer to an explanation too many."""
        return self._computing.full()

    def ahead(self, flight: Flight[Explanation]) -> int:
        """How many wait or run before it, where it waits for its turn."""
        return self._computing.ahead(flight)

    def leave(self, flight: Flight[Explanation]) -> None:
        """Wait no longer."""
        self._computing.leave(flight)

    async def draw(
        self, asked: Asked, explanation: Explanation, style: Style, picture: Picture, *, keep: bool
    ) -> bytes:
        """A PNG of an explanation.

        Raises:
            Overloaded: too many wait to be drawn.
            ServiceError: as `picture` and the process that draws.
        """
        data = await picture()
        # Of an explanation still under way each preview is another.
        name = asked.drawing(style) if keep else f"{asked.drawing(style)}-{_digest(explanation.model_dump_json())}"

        async def work(flight: Flight[bytes]) -> bytes:
            started = perf_counter()
            with tracing.stage("render", asked.version.metric_labels):
                png = await self._within(
                    self._explainer.run(
                        tasks.draw,
                        asked.version.folder,
                        data,
                        explanation,
                        style,
                        self._max_pixels,
                        lane="quick",
                        digest=asked.version.digest,
                    )
                )
            self._metrics.stage_seconds_of(*asked.version.metric_labels, "render").observe(perf_counter() - started)
            if keep:
                await self._results.put(name, png, shows_picture=True)
            return png

        flight = self._drawing.join(name, work)
        try:
            return await landed(flight)
        finally:
            self._drawing.leave(flight)

    async def preload(self, versions: Sequence[weakref.ref[Version]]) -> None:
        """Load each version where it is explained, first what LIME needs, then what Grad-CAM needs; but none that has
        gone before its turn.
        """
        for task, alive in product((tasks.load_engine, tasks.load_tensorflow), versions):
            if version := alive():
                try:
                    await self._explainer.run(task, version.folder, lane="long", digest=version.digest)
                except ServiceError as failure:
                    log.warning(
                        "preload_failed",
                        model=version.manifest.name,
                        version=version.manifest.version,
                        reason=str(failure),
                    )

    async def sweep(self) -> None:
        """Remove what was kept long enough."""
        await self._results.sweep()

    async def close(self, seconds: float) -> None:
        """Let what is under way finish for so long; what is computed may still be drawn."""
        started = perf_counter()
        await self._computing.close(seconds)
        await self._drawing.close(max(0.0, seconds - (perf_counter() - started)))

    def _release(self, size: int) -> None:
        self._bytes -= size

    async def _compute(self, flight: Flight[Explanation], asked: Asked, data: bytes) -> Explanation:
        labels = (asked.question.method, *asked.version.metric_labels)
        outcome: str | None = "cancelled"
        turn: AbstractAsyncContextManager[object] = self._turn if flight.lane == "long" else nullcontext()
        try:
            async with turn:
                flight.start()
                # Another worker may have computed it meanwhile.
                if self._shared and (explanation := await self._find(asked.name)) is not None:
                    outcome = None
                    return explanation
                started = perf_counter()
                with tracing.stage("explain", asked.version.metric_labels):
                    explanation = await self._within(
                        self._explainer.run(
                            tasks.explain,
                            asked.version.folder,
                            data,
                            asked.question,
                            self._max_pixels,
                            lane=flight.lane,
                            digest=asked.version.digest,
                            on_progress=flight.report,
                        )
                    )
                taken = perf_counter() - started
                await self._results.put(asked.name, explanation.model_dump_json().encode(), shows_picture=False)
            outcome = "done"
        except Exception:
            outcome = "failed"
            raise
        finally:
            if outcome is not None:
                self._metrics.explanations.labels(*labels, outcome).inc()
        self._metrics.explanation_seconds.labels(*labels).observe(taken)
        if isinstance(explanation, LimeExplanation):
            self._metrics.explanation_samples.labels(*labels[1:]).observe(explanation.samples)
        return explanation

    async def _find(self, name: str) -> Explanation | None:
        data = await self._results.get(name)
        # What another build of this release has written may be of another form.
        with suppress(ValidationError):
            return None if data is None else EXPLANATION.validate_json(data)
        return None

    async def _within(self, work: Awaitable[R]) -> R:
        try:
            with anyio.fail_after(self._seconds):
                return await work
        except TimeoutError:
            raise DeadlineExceeded(f"no explanation within {self._seconds:g} s") from None
