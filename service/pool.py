"""Run blocking functions on a few threads, with a bounded number waiting."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TypeVar

from service.crowd import Crowd
from service.errors import Overloaded

Out = TypeVar("Out")
# Of each thread, where more come than can be done.
CROWDED = 4


class BoundedPool:
    """Threads for work that releases the GIL."""

    def __init__(self, threads: int, *, max_queue: int, name: str, patience: float = math.inf) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = asyncio.Semaphore(threads)
        self._max_queue = max_queue
        self._waiting = 0
        self._count = threads
        self._crowd = Crowd(max_queue, CROWDED * threads, patience)

    def admit(self) -> None:
        """Ask before the work on a request begins, whatever number of calls it needs.

        Raises:
            Overloaded: too many calls wait already.
        """
        if self._free.locked() and not self._crowd.takes(self._waiting):
            raise self._overloaded()

    async def run(self, function: Callable[[], Out]) -> Out:
        """Await `function()` on one of the threads.

        Raises:
            Overloaded: `max_queue` calls are waiting already.
        """
        if self._free.locked() and self._waiting >= self._max_queue:
            raise self._overloaded()
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        loop = asyncio.get_running_loop()
        started = perf_counter()

        def done() -> None:
            self._crowd.pace.took((perf_counter() - started) / self._count)
            self._free.release()

        work = self._threads.submit(function)
        # A caller that gives up frees no thread: the work goes on.
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(done))
        return await asyncio.wrap_future(work)

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"{self._waiting} pictures wait to be decoded already", retry_after=self._crowd.pace.of(self._waiting)
        )

    def close(self) -> None:
        """Start nothing more, and wait for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
