"""Gather single items into batches: one bounded queue, one worker task, one thread.

The batcher knows nothing of pictures, models or HTTP. It never waits to fill a batch: a batch is what queued while the
thread was busy. Under more load than it can bear it takes few, and those soon have their answers.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar

from service.crowd import Crowd
from service.errors import Draining, InferenceFailed, Overloaded, ServiceError
from service.statistics import Duration

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Answer(Generic[Out]):
    """What `run` made of one item, and how long that took, in seconds."""

    value: Out
    queued: float
    ran: float


@dataclass(frozen=True, eq=False)
class _Job(Generic[In, Out]):
    item: In
    answer: asyncio.Future[Answer[Out]]
    arrived: float


class Batcher(Generic[In, Out]):
    """Turns `run`, from a sequence of inputs to as many outputs, into `submit`, from one input to its output."""

    def __init__(
        self,
        run: Callable[[Sequence[In]], Sequence[Out]],
        *,
        max_batch: int,
        max_queue: int,
        drain_seconds: float,
        patience: float = math.inf,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._drain_seconds = drain_seconds
        self._on_batch = on_batch
        self.executions: defaultdict[int, Duration] = defaultdict(Duration)
        """Runs that succeeded, by their number of items."""
        # While a quarter of a batch runs, another waits: a large network has its answers twice as soon as with halves.
        self._crowd = Crowd(max_queue, max(1, max_batch // 4), patience)
        self._jobs: deque[_Job[In, Out]] = deque()
        self._arrival = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher[In, Out]:
        """See `start`."""
        self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """See `close`."""
        await self.close(self._drain_seconds)

    def start(self) -> None:
        """Take items from now on."""
        self._worker = asyncio.create_task(self._work(), name="batcher")

    async def close(self, within: float) -> None:
        """Refuse new items, finish the accepted ones within so many seconds, then stop."""
        self._closing = True
        self._arrival.set()
        if self._worker is not None:
            await asyncio.wait([self._worker], timeout=within)
            self._worker.cancel()
            await asyncio.wait([self._worker])
        _refuse(self._jobs, _too_late)
        self._jobs.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)
        # What it runs may be large, and whoever asked last may hold the batcher for long.
        self._run = _nothing

    @property
    def alive(self) -> bool:
        """Whether the worker takes items."""
        return self._worker is not None and not self._worker.done() and not self._closing

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return len(self._jobs)

    def admit(self) -> None:
        """Ask before the work on a request begins, whatever number of items it has: it is refused whole, or not at all.

        Raises:
            Overloaded: too many items wait already.
            Draining: the batcher is closing.
        """
        if self._closing:
            raise Draining("the service is shutting down")
        if not self._crowd.takes(len(self._jobs)):
            refused = self._overloaded(len(self._jobs))
            self._shed()
            raise refused

    async def submit(self, item: In) -> Answer[Out]:
        """Await the item's output. The caller sets the deadline: a cancelled item that still waits is never run.

        Raises:
            Overloaded: `max_queue` items are waiting already, or too many came after this one.
            Draining: the batcher is closing.
            InferenceFailed: `run` raised, or gave another number of outputs than of inputs.
        """
        if self._closing:
            raise Draining("the service is shutting down")
        if len(self._jobs) >= self._max_queue:
            raise self._overloaded(len(self._jobs))
        answer: asyncio.Future[Answer[Out]] = asyncio.get_running_loop().create_future()
        job = _Job(item, answer, perf_counter())
        self._jobs.append(job)
        self._arrival.set()
        try:
            return await answer
        except asyncio.CancelledError:
            # Whoever gave up must not hold a place.
            with suppress(ValueError):
                self._jobs.remove(job)
            raise

    def _shed(self) -> None:
        """Refuse those that have waited longest, and would still when those behind them do."""
        waiting = len(self._jobs)
        shed = [self._jobs.popleft() for _ in range(self._crowd.surplus(waiting))]
        _refuse(shed, lambda: self._overloaded(waiting))

    def _overloaded(self, waiting: int) -> Overloaded:
        return Overloaded(
            f"{waiting} pictures are waiting for the model already", retry_after=self._crowd.pace.of(waiting)
        )

    async def _work(self) -> None:
        while True:
            if jobs := self._next_batch():
                await self._answer(jobs)
            elif self._closing:
                return
            else:
                self._crowd.over()
                self._arrival.clear()
                await self._arrival.wait()

    def _next_batch(self) -> list[_Job[In, Out]]:
        jobs: list[_Job[In, Out]] = []
        room = self._crowd.at_once(self._max_batch)
        while self._jobs and len(jobs) < room:
            job = self._jobs.popleft()
            if not job.answer.done():
                jobs.append(job)
        return jobs

    async def _answer(self, jobs: list[_Job[In, Out]]) -> None:
        started = perf_counter()
        self._on_batch(len(jobs))
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._run, [job.item for job in jobs]
            )
            if len(outputs) != len(jobs):
                raise ValueError(f"{len(jobs)} inputs gave {len(outputs)} outputs")
        except asyncio.CancelledError:
            _refuse(jobs, _too_late)
            raise
        except Exception as error:
            cause = error
            _refuse(jobs, lambda: _failure(cause))
            return
        ran = perf_counter() - started
        self.executions[len(jobs)].add(ran)
        self._crowd.pace.took(ran / len(jobs))
        for job, output in zip(jobs, outputs, strict=True):
            # The client may have gone while the model ran.
            if not job.answer.done():
                job.answer.set_result(Answer(output, started - job.arrived, ran))


def _refuse(jobs: Iterable[_Job[In, Out]], error: Callable[[], ServiceError]) -> None:
    for job in jobs:
        if not job.answer.done():
            # One exception object per client: a shared one would gather every client's traceback.
            job.answer.set_exception(error())


def _nothing(items: Sequence[object]) -> Sequence[Any]:
    return ()


def _too_late() -> Draining:
    return Draining("the service stopped before it had an answer")


def _failure(cause: Exception) -> InferenceFailed:
    failure = InferenceFailed("the model failed on the batch that held this picture")
    failure.__cause__ = cause
    return failure
