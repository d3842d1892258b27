"""Whose turn it is to explain, and how many may wait: of one process, or of all workers of a service.

Workers lock files, which the kernel releases however a process ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from pathlib import Path


class Turn:
    """One at a time may have it."""

    def __init__(self, file: Path | None) -> None:
        """`file`: what all workers lock."""
        self._here = asyncio.Lock()
        self._file = file
        self._locked: int | None = None

    async def __aenter__(self) -> None:
        """Wait for it."""
        await self._here.acquire()
        if self._file is None:
            return
        try:
            self._locked = await _lock(self._file)
        except BaseException:
            self._here.release()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        """Let the next one have it."""
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None
        self._here.release()


class Places:
    """As many as all workers together may take."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._files = [folder / str(number) for number in range(limit)]

    def take(self) -> int | None:
        """The descriptor of a place, which closing it gives back; None where all are taken."""
        for file in self._files:
            place = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(place)
            else:
                return place
        return None


async def _lock(file: Path) -> int:
    """The descriptor of the file, once it is locked; closing it releases the lock."""
    loop = asyncio.get_running_loop()
    locked: asyncio.Future[int] = loop.create_future()

    def hand_over(descriptor: int) -> None:
        # Whoever waited may have given up, which ends no system call.
        if locked.cancelled():
            os.close(descriptor)
        else:
            locked.set_result(descriptor)

    def wait() -> None:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            loop.call_soon_threadsafe(hand_over, descriptor)
        except RuntimeError:
            # The service has ended meanwhile.
            os.close(descriptor)

    threading.Thread(target=wait, name="turn", daemon=True).start()
    return await locked
