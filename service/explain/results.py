"""Results of explaining in, the same bytes out for the same name: in memory, and on a shelf that processes share."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from time import time
from typing import Protocol

import structlog

from service.images.store import NotStored
from service.logs import Seldom

# Beside the shelf, and where there is none.
MEMORY_BYTES = 32 * 2**20
DIGEST_BYTES = 32

log = structlog.get_logger()


class Shelf(Protocol):
    """Where results are kept for other processes."""

    async def get(self, name: str) -> bytes | None:
        """What was put there under the name, unless it is too old or gone.

        Raises:
            NotStored, OSError: the shelf does not answer.
        """

    async def put(self, name: str, data: bytes) -> None:
        """Keep it, whole or not at all.

        Raises:
            NotStored, OSError: the shelf does not answer, or cannot.
        """

    async def sweep(self) -> None:
        """Remove what is too old or too much; what cannot be removed is logged."""

    async def close(self) -> None:
        """Let go of it; raises nothing, and waits for no answer."""


class Results:
    """What shows no picture is kept in memory as well; with no shelf it alone is kept."""

    def __init__(self, shelf: Shelf | None, *, max_seconds: float) -> None:
        self._shelf = shelf
        self._max_seconds = max_seconds
        self._memory: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._memory_bytes = 0
        self._may_warn = Seldom()

    async def get(self, name: str) -> bytes | None:
        """What was kept under the name, unless it is too old, gone or damaged, or the shelf does not answer."""
        if name in self._memory:
            made, data = self._memory[name]
            if time() - made <= self._max_seconds:
                self._memory.move_to_end(name)
                return data
            self._forget(name)
        try:
            kept = await self._shelf.get(name) if self._shelf else None
        except (NotStored, OSError):
            return None
        return None if kept is None else _unsealed(kept)

    async def put(self, name: str, data: bytes, *, shows_picture: bool) -> None:
        """Keep it; a shelf that cannot is logged, once a minute."""
        if not shows_picture:
            self._remember(name, data)
        try:
            if self._shelf:
                await self._shelf.put(name, hashlib.sha256(data).digest() + data)
        except (NotStored, OSError) as problem:
            if self._may_warn():
                log.warning("result_not_kept", reason=str(problem))

    async def sweep(self) -> None:
        """Remove what is too old or too much."""
        for name in [name for name, (made, _) in self._memory.items() if time() - made > self._max_seconds]:
            self._forget(name)
        if self._shelf:
            await self._shelf.sweep()

    async def close(self) -> None:
        """Let go of the shelf."""
        if self._shelf:
            await self._shelf.close()

    def _remember(self, name: str, data: bytes) -> None:
        self._forget(name)
        self._memory[name] = (time(), data)
        self._memory_bytes += len(data)
        while self._memory_bytes > MEMORY_BYTES:
            self._forget(next(iter(self._memory)))

    def _forget(self, name: str) -> None:
        if name in self._memory:
            self._memory_bytes -= len(self._memory.pop(name)[1])


def _unsealed(kept: bytes) -> bytes | None:
    """The data of `kept`, which begins with its digest; None where it is damaged."""
    digest, data = kept[:DIGEST_BYTES], kept[DIGEST_BYTES:]
    return data if hashlib.sha256(data).digest() == digest else None
