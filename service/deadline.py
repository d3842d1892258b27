"""How long something may take, and what is said where it takes longer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import TracebackType

from service.errors import ServiceError

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout


class Deadline:
    """`async with Deadline(seconds, late)`: what is awaited inside is cancelled after so long, and `late()` is raised.

    By the event loop's own timer: every request passes two, and anyio's take three times as long to set.
    """

    __slots__ = ("_late", "_timeout")

    def __init__(self, seconds: float, late: Callable[[], ServiceError]) -> None:
        self._timeout = timeout(seconds)
        self._late = late

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        # In Python 3.10 it is no other name of the built-in one.
        except asyncio.TimeoutError:
            raise self._late() from None
