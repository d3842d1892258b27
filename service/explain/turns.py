"""Whose turn it is to explain, and how many may wait: of one process, or of all workers of a service.

Workers lock files, which the kernel releases however a process ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from pathlib import Path

import structlog

from service.errors import ExplanationFailed

log = structlog.get_logger()


class Turn:
    """One at a time may have it."""

    def __init__(self, file: Path | None) -> None:
        """`file`: what all workers lock."""
        self._here = asyncio.Lock()
        self._file = file
        self._locked: int | None = None
        self._waiter: asyncio.Future[None] | None = None
        # A thread waits for the lock: whoever gave up ends no system call, and the next one waits for it too.
        self._locking = False

    async def __aenter__(self) -> None:
        """Wait for it.

        Raises:
            ExplanationFailed: the file cannot be opened or locked.
        """
        await self._here.acquire()
        if self._file is None:
            return
        try:
            await self._lock(self._file)
        except BaseException:
            self._release()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        """Let the next one have it."""
        self._release()

    async def _lock(self, file: Path) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        if not self._locking:
            threading.Thread(target=self._wait, args=(file, loop), name="turn", daemon=True).start()
            self._locking = True
        await self._waiter

    def _wait(self, file: Path, loop: asyncio.AbstractEventLoop) -> None:
        locked: int | OSError
        try:
            locked = _locked(file)
        except OSError as problem:
            locked = problem
        try:
            loop.call_soon_threadsafe(self._hand_over, locked)
        except RuntimeError:
            # The service has ended meanwhile.
            if isinstance(locked, int):
                os.close(locked)

    def _hand_over(self, locked: int | OSError) -> None:
        self._locking = False
        waiter = None if self._waiter is None or self._waiter.done() else self._waiter
        if isinstance(locked, OSError):
            log.error(ExplanationFailed.code, exc_info=locked)
            if waiter is not None:
                waiter.set_exception(ExplanationFailed("its turn could not be had"))
        elif waiter is not None:
            self._locked = locked
            waiter.set_result(None)
        else:
            os.close(locked)

    def _release(self) -> None:
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


def _locked(file: Path) -> int:
    """The descriptor of the file, once it is locked; closing it releases the lock."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
