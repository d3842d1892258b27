"""Run blocking functions on a few threads, with a bounded number waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.errors import Overloaded

Out = TypeVar("Out")


class BoundedPool:
    """Threads for work that releases the GIL."""

    def __init__(self, threads: int, *, max_queue: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = asyncio.Semaphore(threads)
        self._max_queue = max_queue
        self._waiting = 0

    async def run(self, function: Callable[[], Out]) -> Out:
        """Await `function()` on one of the threads.

        Raises:
            Overloaded: `max_queue` calls are waiting already.
        """
        if self._free.locked() and self._waiting >= self._max_queue:
            raise Overloaded(f"{self._max_queue} pictures wait to be decoded already")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        loop = asyncio.get_running_loop()
        work = self._threads.submit(function)
        # A caller that gives up frees no thread: the work goes on.
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free.release))
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Start nothing more, and wait for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
