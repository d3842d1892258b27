"""Pictures in a Redis that several hosts share. How many bytes it holds is its own `maxmemory` and policy."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from service.errors import StartupFailed
from service.images.store import KeepingStore, NotStored
from service.metrics import Metrics

if TYPE_CHECKING:
    from redis.asyncio import Redis

PREFIX = "sichtbar:image:"
CONNECTIONS = 32
SECONDS = 0.5

T = TypeVar("T")


class RedisStore(KeepingStore):
    """Each picture is a key that expires. Redis need not be up when the service starts."""

    def __init__(self, url: str, *, max_seconds: int, metrics: Metrics) -> None:
        super().__init__(max_seconds, metrics)
        self._redis = _client(url)

    async def __aenter__(self) -> RedisStore:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _keep(self, data: bytes, image_id: str) -> None:
        key = PREFIX + image_id
        # What this process has sent before need not travel again.
        if self._kept_before(image_id) and await _asked(self._redis.expire(key, self._max_seconds)):
            return
        await _asked(self._redis.set(key, data, ex=self._max_seconds))
        self._metrics.images_stored.inc()

    async def _find(self, image_id: str) -> bytes | None:
        found = await _asked(self._redis.getex(PREFIX + image_id, ex=self._max_seconds))
        return found if isinstance(found, bytes) else None


def _client(url: str) -> Redis:
    """Connects when it is first used.

    Raises:
        StartupFailed: the package is missing, or the address is none of a Redis.
    """
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise StartupFailed(
            "SICHTBAR_STORE names a Redis; install its client: pip install -c constraints.txt -e '.[redis]'"
        ) from None
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=SECONDS,
            socket_timeout=SECONDS,
            socket_connect_timeout=SECONDS,
            # A connection that Redis has closed is noticed when it is used.
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError:
        # Not with the address itself, which may hold a password.
        raise StartupFailed("SICHTBAR_STORE: expected redis://[user:password@]host[:port][/number]") from None
    return Redis.from_pool(pool)


async def _asked(answer: Awaitable[T]) -> T:
    from redis import exceptions

    try:
        return await answer
    except (exceptions.AuthenticationError, exceptions.NoPermissionError, exceptions.ReadOnlyError) as refusal:
        raise NotStored("denied", str(refusal)) from refusal
    except exceptions.OutOfMemoryError as full:
        raise NotStored("full", str(full)) from full
    except (exceptions.RedisError, OSError) as problem:
        raise NotStored("unavailable", str(problem) or type(problem).__name__) from problem
