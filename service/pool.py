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
        self._limit = threads + max_queue
        self._under_way = 0

    async def run(self, function: Callable[[], Out]) -> Out:
        """Await `function()` on one of the threads.

        Raises:
            Overloaded: `max_queue` calls are waiting already.
        """
        if self._under_way >= self._limit:
            raise Overloaded(f"{self._under_way} pictures are being decoded or wait for it already")
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)
        finally:
            self._under_way -= 1

    def close(self) -> None:
        """Let running calls finish and drop the rest."""
        self._threads.shutdown(cancel_futures=True)
