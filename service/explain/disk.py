"""A folder that is this user's alone, read and written in time: a disk that hangs is left alone for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import TypeVar

import anyio

from service.errors import Overloaded
from service.images.disk import secure
from service.images.store import NotStored
from service.pool import BoundedPool

THREADS, MAX_QUEUE = 2, 256
SECONDS, SWEEP_SECONDS = 5.0, 60.0
REST_SECONDS = 30.0
# What is being written; renamed to its place once it is whole.
NEW = ".new"

Out = TypeVar("Out")


class Disk:
    """The folder and those `above` must be this user's alone, and are made where missing."""

    def __init__(self, folder: Path, above: Sequence[Path], *, name: str) -> None:
        self.folder = folder
        self._secured = (*above, folder)
        self._threads = BoundedPool(THREADS, max_queue=MAX_QUEUE, name=name)
        self._rest_until = 0.0

    async def run(self, function: Callable[[], Out], *, seconds: float | None = None) -> Out:
        """Await `function()` on a thread, for `SECONDS` unless given.

        Raises:
            NotStored: too many wait for the disk.
            OSError: as the function did, or the disk does not answer.
        """
        if monotonic() < self._rest_until:
            raise TimeoutError("the disk is left alone since it last did not answer")
        seconds = seconds or SECONDS
        try:
            with anyio.fail_after(seconds):
                return await self._threads.run(function)
        except TimeoutError:
            self._rest_until = monotonic() + REST_SECONDS
            raise TimeoutError(f"the disk did not answer within {seconds:g} s") from None
        except Overloaded:
            raise NotStored("busy", f"{MAX_QUEUE} wait for the disk") from None

    def secure(self) -> None:
        """See `service.images.disk.secure`."""
        for folder in self._secured:
            secure(folder)

    def read(self, name: str) -> bytes:
        """A file of a secure folder."""
        self.secure()
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        self.secure()
        new = self.folder / f"{token_hex(8)}{NEW}"
        try:
            new.write_bytes(data)
            new.replace(self.folder / name)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Start nothing more, and wait for nothing."""
        self._threads.close()
