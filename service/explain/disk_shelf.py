"""Results of explaining in a folder that the processes of one host share: the least recently used make room."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import time

import structlog

from service.explain.disk import NEW, SWEEP_SECONDS, Disk
from service.images.store import NotStored

# After so much of the cap has been written by this process, the whole folder is counted again.
SWEEP_SHARE = 1 / 16
# Once the cap is passed, so much of it is left.
KEEP_SHARE = 0.9
# Whoever writes that long is dead.
NEW_SECONDS = 600.0

log = structlog.get_logger()


class DiskShelf:
    """A file's time of modification is when it was made, that of access when it was last used."""

    def __init__(self, folder: Path, *, above: Sequence[Path], max_bytes: int, max_seconds: float) -> None:
        """`folder` and those `above` must be this user's alone, and are made where missing."""
        self._disk = Disk(folder, above, name="results")
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._written = 0
        self._sweeping = threading.Lock()

    async def get(self, name: str) -> bytes | None:
        """See `Shelf`; what is too old is removed."""
        return await self._disk.run(lambda: self._read(name))

    async def put(self, name: str, data: bytes) -> None:
        """See `Shelf`."""
        await self._disk.run(lambda: self._disk.write(name, data))
        self._written += len(data)
        if self._written > self._max_bytes * SWEEP_SHARE:
            self._written = 0
            await self.sweep()

    async def sweep(self) -> None:
        """See `Shelf`: too old, then the least recently used until the rest is within the cap."""
        try:
            await self._disk.run(self._sweep, seconds=SWEEP_SECONDS)
        except (NotStored, OSError) as problem:
            log.warning("results_not_swept", reason=str(problem))

    async def close(self) -> None:
        """Wait for no disk."""
        self._disk.close()

    def _read(self, name: str) -> bytes | None:
        data, path = self._disk.read(name), self._disk.folder / name
        made = path.stat().st_mtime
        if time() - made > self._max_seconds:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        # Removed meanwhile, or on a disk that can only be read, it is whole all the same.
        with suppress(OSError):
            os.utime(path, (time(), made))
        return data

    def _sweep(self) -> None:
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            kept: list[tuple[float, int, Path]] = []
            folder = self._disk.folder
            for path in folder.iterdir() if folder.is_dir() else ():
                # Other processes sweep as well.
                with suppress(FileNotFoundError):
                    found = path.stat()
                    if time() - found.st_mtime > (NEW_SECONDS if path.suffix == NEW else self._max_seconds):
                        path.unlink()
                    else:
                        kept.append((found.st_atime, found.st_size, path))
            total = sum(size for _, size, _ in kept)
            if total <= self._max_bytes:
                return
            for _, size, path in sorted(kept):
                if total <= self._max_bytes * KEEP_SHARE:
                    return
                path.unlink(missing_ok=True)
                total -= size
        finally:
            self._sweeping.release()
