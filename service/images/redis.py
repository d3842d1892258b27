"""Pictures in a Redis that several hosts share. How many bytes it holds is its own `maxmemory` and policy."""

from __future__ import annotations

import asyncio
import hashlib

import structlog

from service.images.connection import asked, close, connect
from service.images.store import KeepingStore
from service.metrics import Metrics

PREFIX = "sichtbar:image:"
# Redis may lose all it has, as where it is started again.
FRESH_SECONDS = 5.0

log = structlog.get_logger()


class RedisStore(KeepingStore):
    """Each picture is a key that expires. Redis need not be up when the service starts."""

    def __init__(self, url: str, *, max_seconds: int, metrics: Metrics) -> None:
        """See `connect` for what it raises."""
        super().__init__(max_seconds, metrics, fresh_seconds=FRESH_SECONDS)
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
        if not isinstance(found, bytes):
            return None
        # Of the largest picture that takes a while.
        if (await asyncio.to_thread(hashlib.sha256, found)).hexdigest() != image_id:
            log.warning("picture_damaged", key=PREFIX + image_id)
            return None
        return found
