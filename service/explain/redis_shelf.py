"""Results of explaining in a Redis that several hosts share: each is a key that expires."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from service.images.connection import asked, close, connect
from service.images.store import REST_SECONDS, NotStored

PREFIX = "sichtbar:explanation:"

T = TypeVar("T")


class RedisShelf:
    """How many bytes it holds is its own `maxmemory` and policy; where it does not answer it is left alone a while."""

    def __init__(self, url: str, *, max_seconds: int) -> None:
        """See `connect` for what it raises."""
        self._redis = connect(url)
        self._max_seconds = max_seconds
        self._rest_until = 0.0
        self._problem = ""

    async def get(self, name: str) -> bytes | None:
        """See `Shelf`."""
        found = await self._asked(lambda: self._redis.get(PREFIX + name))
        return found if isinstance(found, bytes) else None

    async def put(self, name: str, data: bytes) -> None:
        """See `Shelf`."""
        await self._asked(lambda: self._redis.set(PREFIX + name, data, ex=self._max_seconds))

    async def sweep(self) -> None:
        """Redis does it."""

    async def close(self) -> None:
        """Close the connections."""
        await close(self._redis)

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        if monotonic() < self._rest_until:
            raise NotStored("unavailable", f"left alone since it last failed: {self._problem}")
        try:
            return await asked(ask())
        except NotStored as problem:
            if problem.reason == "unavailable":
                self._rest_until = monotonic() + REST_SECONDS
                self._problem = str(problem)
            raise
