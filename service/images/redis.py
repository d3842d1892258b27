"""Pictures in a Redis that several hosts share. How many bytes it holds is its own `maxmemory` and policy."""

from __future__ import annotations

from service.images.connection import asked, close, connect
from service.images.store import KeepingStore
from service.metrics import Metrics

PREFIX = "sichtbar:image:"


class RedisStore(KeepingStore):
    """Each picture is a key that expires. Redis need not be up when the service starts."""

    def __init__(self, url: str, *, max_seconds: int, metrics: Metrics) -> None:
        """See `connect` for what it raises."""
        super().__init__(max_seconds, metrics)
        self._redis = connect(url)

    async def __aenter__(self) -> RedisStore:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the connections."""
        await close(self._redis)

    async def _keep(self, data: bytes, image_id: str) -> None:
        key = PREFIX + image_id
        # What this process has sent before need not travel again.
        if self._kept_before(image_id) and await asked(self._redis.expire(key, self._max_seconds)):
            return
        await asked(self._redis.set(key, data, ex=self._max_seconds))
        self._metrics.images_stored.inc()

    async def _find(self, image_id: str) -> bytes | None:
        found = await asked(self._redis.getex(PREFIX + image_id, ex=self._max_seconds))
        return found if isinstance(found, bytes) else None
