"""What is costly to compute and the same every time, kept on disk: arrays by the digest of all that they come from."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from training.errors import CacheError

HASHED_BLOCK = 2**26

Rows = Callable[[int, int], NDArray[Any]]
Done = Callable[[int], None]


def digest(*parts: object) -> str:
    """sha256 of arrays (their bytes, type and shape) and of anything that JSON can say, in order."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype.str}{part.shape}".encode())
            flat = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
            for start in range(0, flat.size, HASHED_BLOCK):
                found.update(flat[start : start + HASHED_BLOCK].data)
        else:
            found.update(json.dumps(part, sort_keys=True).encode())
        found.update(b"\0")
    return found.hexdigest()


@dataclass(frozen=True)
class Cache:
    """A folder of `<digest>.npy`. Deleting any of it costs time, nothing else."""

    folder: Path

    def array(
        self,
        key: str,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        compute: Rows,
        *,
        chunk: int,
        done: Done,
    ) -> NDArray[Any]:
        """The array of that key, read from disk as it is used; computed where it is not there yet.

        `compute(start, stop)` gives those rows; it is called in order, for `chunk` rows at a time, and `done(rows)`
        after each. Whoever was killed on the way left whole chunks, which are not computed again.

        Raises:
            CacheError: the folder cannot be written.
        """
        path = self.folder / f"{key}.npy"
        try:
            if not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._compute(path, shape, dtype, compute, chunk, done)
            else:
                done(shape[0])
            return np.asanyarray(np.load(path, mmap_mode="r"))
        except OSError as error:
            raise CacheError(f"{self.folder}: expected a folder to write to: {error.strerror or error}") from error

    def _compute(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        compute: Rows,
        chunk: int,
        done: Done,
    ) -> None:
        part, mark = path.with_suffix(".part"), path.with_suffix(".rows")
        with part.open("ab") as lock:
            # Another run may be computing it: wait, and take what it has made.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                part.unlink(missing_ok=True)
                done(shape[0])
                return
            if not part.stat().st_size:
                mark.unlink(missing_ok=True)
            start = int(mark.read_text()) if mark.exists() else 0
            done(start)
            array = np.lib.format.open_memmap(part, mode="r+" if start else "w+", dtype=dtype, shape=shape)
            # A disk that is too small says so now, and not by a signal that kills.
            os.posix_fallocate(lock.fileno(), 0, part.stat().st_size)
            while start < shape[0]:
                stop = min(start + chunk, shape[0])
                array[start:stop] = compute(start, stop)
                array.flush()
                replace_text(mark, str(stop))
                done(stop - start)
                start = stop
            del array
            part.replace(path)
            mark.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write it whole or not at all."""
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)
