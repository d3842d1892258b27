"""Results of explaining in, the same bytes out for the same name: in memory, and on a disk that processes share."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import time

import structlog

from service.explain.disk import NEW, SWEEP_SECONDS, Disk
from service.images.store import NotStored

# Beside the disk, and where nothing may be on a disk.
MEMORY_BYTES = 32 * 2**20
# After so much of the cap has been written by this process, the whole folder is counted again.
SWEEP_SHARE = 1 / 16
# Once the cap is passed, so much of it is left.
KEEP_SHARE = 0.9
# Whoever writes that long is dead.
NEW_SECONDS = 600.0
DIGEST_BYTES = 32

log = structlog.get_logger()


class Results:
    """What shows no picture is kept in memory as well; with no folder it alone is kept.

    A file's time of modification is when it was made, that of access when it was last used.
    """

    def __init__(self, folder: Path | None, *, above: Sequence[Path] = (), max_bytes: int, max_seconds: float) -> None:
        """Keep results in `folder`; it and those `above` must be this user's alone, and are made where missing."""
        self._disk = None if folder is None else Disk(folder, above, name="results")
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._memory: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._memory_bytes = 0
        self._written = 0
        self._sweeping = threading.Lock()

    async def get(self, name: str) -> bytes | None:
        """What was kept under the name, unless it is too old, gone or damaged, or the disk does not answer."""
        if name in self._memory:
            made, data = self._memory[name]
            if time() - made <= self._max_seconds:
                self._memory.move_to_end(name)
                return data
            self._forget(name)
        disk = self._disk
        if disk is None:
            return None
        try:
            return await disk.run(lambda: self._read(disk, name))
        except (NotStored, OSError):
            return None

    async def put(self, name: str, data: bytes, *, shows_picture: bool) -> None:
        """Keep it; a disk that cannot is logged."""
        if not shows_picture:
            self._remember(name, data)
        disk = self._disk
        if disk is None:
            return
        try:
            await disk.run(lambda: disk.write(name, hashlib.sha256(data).digest() + data))
        except (NotStored, OSError) as problem:
            log.warning("result_not_kept", reason=str(problem))
        self._written += len(data)
        if self._written > self._max_bytes * SWEEP_SHARE:
            self._written = 0
            await self.sweep()

    async def sweep(self) -> None:
        """Remove what is too old, then the least recently used until the rest is within the cap."""
        for name in [name for name, (made, _) in self._memory.items() if time() - made > self._max_seconds]:
            self._forget(name)
        disk = self._disk
        if disk is not None:
            try:
                await disk.run(lambda: self._sweep(disk.folder), seconds=SWEEP_SECONDS)
            except (NotStored, OSError) as problem:
                log.warning("results_not_swept", reason=str(problem))

    def close(self) -> None:
        """Wait for no disk."""
        if self._disk is not None:
            self._disk.close()

    def _remember(self, name: str, data: bytes) -> None:
        self._forget(name)
        self._memory[name] = (time(), data)
        self._memory_bytes += len(data)
        while self._memory_bytes > MEMORY_BYTES:
            self._forget(next(iter(self._memory)))

    def _forget(self, name: str) -> None:
        if name in self._memory:
            self._memory_bytes -= len(self._memory.pop(name)[1])

    def _read(self, disk: Disk, name: str) -> bytes | None:
        content, path = disk.read(name), disk.folder / name
        made = path.stat().st_mtime
        digest, data = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if time() - made > self._max_seconds or hashlib.sha256(data).digest() != digest:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        # Removed meanwhile, or on a disk that can only be read, it is whole all the same.
        with suppress(OSError):
            os.utime(path, (time(), made))
        return data

    def _sweep(self, folder: Path) -> None:
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            kept: list[tuple[float, int, Path]] = []
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
