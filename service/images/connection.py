"""The address of a Redis in, what it answers in time out, or why it does not."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from service.errors import StartupFailed
from service.images.store import NotStored

if TYPE_CHECKING:
    from redis.asyncio import Redis

CONNECTIONS = 32
SECONDS = 0.5

T = TypeVar("T")


def connect(url: str) -> Redis:
    """Connects when it is first used; Redis need not be up before.

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


async def asked(answer: Awaitable[T]) -> T:
    """What Redis answers.

    Raises:
        NotStored: it does not answer, or refuses.
    """
    from redis import exceptions

    try:
        return await answer
    except exceptions.OutOfMemoryError as full:
        raise NotStored("full", str(full)) from full
    except (exceptions.AuthenticationError, exceptions.ResponseError) as refusal:
        raise NotStored("denied", str(refusal)) from refusal
    except (exceptions.RedisError, OSError) as problem:
        raise NotStored("unavailable", str(problem) or type(problem).__name__) from problem


async def close(redis: Redis) -> None:
    """Close the connections, also those to a Redis that does not answer any more."""
    from redis import exceptions

    with suppress(exceptions.RedisError, OSError):
        await redis.aclose()
