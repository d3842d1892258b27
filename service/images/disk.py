"""Pictures in a folder that all processes of a machine share; past its cap or age, the least recently used go."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from time import perf_counter, time
from typing import NamedTuple, TypeVar

import anyio
import structlog

from service.errors import Overloaded, StartupFailed
from service.images.store import IMAGE_ID, KeepingStore, NotStored, Reason
from service.metrics import Metrics
from service.pool import BoundedPool

# What is being written; renamed to its place once it is whole.
NEW = "new"
SHARD = re.compile(r"[0-9a-f]{2}")
NEW_NAME = re.compile(r"[0-9a-f]{16}")
# Whoever writes that long is dead.
NEW_SECONDS = 600
# What a file takes up on most disks.
BLOCK = 4096
# How much is left of what is allowed once it has been passed, and of what a small disk has: both rarely met again.
KEEP_SHARE = 0.9
# Others write too: the whole is counted again after so much of the cap, and so many seconds.
RECOUNT_SHARE = 1 / 16
SWEEP_SECONDS = 600.0
# Counting takes at most one tenth of a thread.
IDLE_SHARE = 9
THREADS, MAX_QUEUE = 2, 256
REASONS: dict[int, Reason] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EFBIG: "full",
    errno.EROFS: "denied",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
}

T = TypeVar("T")

log = structlog.get_logger()


class _File(NamedTuple):
    used: float
    size: int
    path: Path


class _Swept(NamedTuple):
    left: int
    gone: list[str]


class DiskStore(KeepingStore):
    """Each picture is a file, named by its sha256; its time of modification is that of its last use."""

    def __init__(self, folder: Path, *, required: bool, max_bytes: int, max_seconds: int, metrics: Metrics) -> None:
        super().__init__(max_seconds, metrics)
        self._folder = folder
        self._required = required
        self._max_bytes = max_bytes
        self._threads = BoundedPool(THREADS, max_queue=MAX_QUEUE, name="images")
        self._due = asyncio.Event()
        self._total = self._written = 0

    async def __aenter__(self) -> DiskStore:
        """Begin to sweep.

        Raises:
            StartupFailed: the folder is `required`, and not this user's alone, or cannot be made.
        """
        try:
            await anyio.to_thread.run_sync(secure, self._folder)
        except NotStored as refused:
            if self._required:
                raise StartupFailed(str(refused)) from None
            self._warn(refused)
        except OSError as problem:
            reason = _not_stored(problem)
            # A disk that is full now may have room later; predictions do without.
            if self._required and reason.reason != "full":
                raise StartupFailed(
                    f"expected a folder for pictures that can be made, got {self._folder}: {problem.strerror}"
                ) from None
            self._warn(reason)
        self._sweeper = asyncio.create_task(self._sweep_on(), name="images")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Leave the pictures where they are."""
        self._sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._sweeper
        self._threads.close()

    async def _keep(self, data: bytes, image_id: str) -> None:
        size = _blocks(len(data))
        if size > self._max_bytes:
            raise NotStored("too_large", f"expected at most {self._max_bytes} bytes, got {len(data)}")
        try:
            written = await self._run(lambda: self._write(data, image_id))
        except NotStored as reason:
            if reason.reason == "full":
                self._due.set()
            raise
        if written:
            self._metrics.images_stored.inc()
            self._written += size
            self._count(self._total + size)
            if self._total > self._max_bytes or self._written > self._max_bytes * RECOUNT_SHARE:
                self._due.set()

    async def _find(self, image_id: str) -> bytes | None:
        return await self._run(lambda: self._read(image_id))

    async def _run(self, function: Callable[[], T]) -> T:
        try:
            return await self._threads.run(function)
        except Overloaded:
            raise NotStored("busy", f"{MAX_QUEUE} pictures wait for the disk") from None
        except OSError as problem:
            raise _not_stored(problem) from problem

    def _path(self, image_id: str) -> Path:
        return self._folder / image_id[:2] / image_id

    def _write(self, data: bytes, image_id: str) -> bool:
        """Whether it was not there yet."""
        secure(self._folder)
        path = self._path(image_id)
        try:
            # A crash of the machine may have left a part of it.
            if path.lstat().st_size == len(data):
                os.utime(path)
                return False
        except FileNotFoundError:
            pass
        new = self._folder / NEW / token_hex(8)
        try:
            self._write_new(new, data)
            _with_parent(path, lambda: new.replace(path))
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        return True

    def _write_new(self, new: Path, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(_with_parent(new, lambda: os.open(new, flags, 0o600)), "wb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]

    def _read(self, image_id: str) -> bytes | None:
        secure(self._folder)
        path = self._path(image_id)
        try:
            with path.open("rb") as file:
                if time() - os.fstat(file.fileno()).st_mtime > self._max_seconds:
                    return None
                data = file.read()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data).hexdigest() != image_id:
            log.warning("picture_damaged", path=str(path))
            path.unlink(missing_ok=True)
            return None
        # Removed meanwhile, or on a disk that can only be read, the picture is whole all the same.
        with suppress(OSError):
            os.utime(path)
        return data

    async def _sweep_on(self) -> None:
        while True:
            self._due.clear()
            self._written = 0
            started = perf_counter()
            try:
                swept = await anyio.to_thread.run_sync(self._sweep, abandon_on_cancel=True)
                self._count(swept.left + self._written)
                for image_id in swept.gone:
                    self._forget(image_id)
            except NotStored:
                # Not a folder to remove anything from; each picture that is not kept says so.
                pass
            except OSError as problem:
                log.warning("pictures_not_swept", detail=str(problem))
            except Exception:
                # What expired must go, whatever happened this time.
                log.exception("bug")
            await asyncio.sleep(IDLE_SHARE * (perf_counter() - started))
            with anyio.move_on_after(min(SWEEP_SECONDS, self._max_seconds / 2)):
                await self._due.wait()

    def _sweep(self) -> _Swept:
        """Remove what has expired, then the least recently used until the rest has room."""
        secure(self._folder)
        now = time()
        self._remove([file for file in self._files(NEW, NEW_NAME) if now - file.used > NEW_SECONDS], "abandoned")
        shards = [path.name for path in self._folder.iterdir() if SHARD.fullmatch(path.name)]
        files = sorted(file for shard in shards for file in self._files(shard, IMAGE_ID))
        fresh = next((place for place, file in enumerate(files) if now - file.used <= self._max_seconds), len(files))
        gone = self._remove(files[:fresh], "expired")
        files = files[fresh:]
        left = sum(file.size for file in files)
        disk = os.statvfs(self._folder)
        allowed = min(self._max_bytes, int((left + disk.f_bavail * disk.f_frsize) * KEEP_SHARE))
        if left > allowed:
            victims = []
            for file in files:
                if left <= allowed * KEEP_SHARE:
                    break
                victims.append(file)
                left -= file.size
            gone += self._remove(victims, "room")
        return _Swept(left, gone)

    def _files(self, folder: str, names: re.Pattern[str]) -> Iterator[_File]:
        """The folder may be the user's choice: what is not named as ours is not ours to count or remove."""
        try:
            with os.scandir(self._folder / folder) as entries:
                for entry in entries:
                    if names.fullmatch(entry.name):
                        try:
                            found = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
                        yield _File(found.st_mtime, _blocks(found.st_size), Path(entry.path))
        except (FileNotFoundError, NotADirectoryError):
            return

    def _remove(self, files: list[_File], reason: str) -> list[str]:
        """The names of what went."""
        gone = []
        for file in files:
            try:
                # Another process may have used it since it was counted.
                if file.path.lstat().st_mtime == file.used:
                    file.path.unlink()
                    self._metrics.images_removed.labels(reason).inc()
                    gone.append(file.path.name)
            except FileNotFoundError:
                # Another process sweeps as well.
                gone.append(file.path.name)
        return gone

    def _count(self, total: int) -> None:
        self._total = total
        self._metrics.image_bytes.set(total)


def secure(folder: Path) -> None:
    """Make the folder where it is missing; strangers must neither read the pictures nor choose where they go.

    Raises:
        NotStored: the folder is another user's, others may enter it, or it is a link.
        OSError: it cannot be made.
    """
    try:
        found = folder.lstat()
    except FileNotFoundError:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotStored("unsafe", f"expected a folder, no link and no file, got {folder}")
    if found.st_uid != os.geteuid():
        raise NotStored("unsafe", f"expected {folder} to be of user {os.geteuid()}, got user {found.st_uid}")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise NotStored("unsafe", f"expected {folder} to be closed to others (chmod 700), got mode {mode:o}")


def _with_parent(path: Path, action: Callable[[], T]) -> T:
    try:
        return action()
    except FileNotFoundError:
        path.parent.mkdir(0o700, exist_ok=True)
        return action()


def _not_stored(problem: OSError) -> NotStored:
    return NotStored(REASONS.get(problem.errno or 0, "failed"), str(problem))


def _blocks(size: int) -> int:
    return max(1, -(-size // BLOCK)) * BLOCK
