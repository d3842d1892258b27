"""What is known of a job in, the same out to every process that shares the folder, also when the job's own has died."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from time import time
from typing import IO, Literal, TypeVar

import structlog
from pydantic import ValidationError

from service.errors import Interrupted
from service.explain.disk import NEW, SWEEP_SECONDS, Disk
from service.explain.question import Frozen, LimeExplanation, Question
from service.explain.style import Style
from service.images.store import NotStored
from service.logs import Seldom
from service.states import ACTIVE, JobState

Format = Literal["png", "json"]

RECORD, PREVIEW, CANCEL, OWNERS = ".job", ".preview", ".cancel", "owners"
# Finished records that are kept; then the oldest go.
MAX_RECORDS = 1000
NEW_SECONDS = 600.0

T = TypeVar("T")

log = structlog.get_logger()


class Counted(Frozen):
    """How far a job is."""

    done: int
    total: int
    r2: float | None


class Failure(Frozen):
    """Why a job failed: a code of `service.errors`, and what happened."""

    code: str
    detail: str


class Record(Frozen):
    """All that is known of a job."""

    id: str
    owner: str
    """The process that works on it."""
    revision: int = 0
    """Grows with each change."""
    state: JobState
    image_id: str
    model: str
    version: int
    question: Question
    style: Style
    format: Format
    label: str | None
    """As asked for; None: the predicted class."""
    result: str
    """The result's name among `Results`."""
    created: datetime
    ahead: int | None = None
    """How many wait or run before it, while it is queued."""
    started: datetime | None = None
    finished: datetime | None = None
    progress: Counted | None = None
    preview: bool = False
    """Whether there is one."""
    failure: Failure | None = None

    @property
    def active(self) -> bool:
        """Whether something will still become of it."""
        return self.state in ACTIVE


class Records:
    """Jobs' records in a folder. Each process holds a lock there, which the kernel releases however it ends."""

    def __init__(self, folder: Path, *, above: Sequence[Path] = (), max_seconds: float) -> None:
        """Keep records in `folder`; it and those `above` must be this user's alone, and are made where missing."""
        self._folder = folder
        self._disk = Disk(folder, above, name="jobs")
        self._max_seconds = max_seconds
        self._lock: IO[str] | None = None
        self._claiming = threading.Lock()
        self._may_warn = Seldom()
        self.owner = token_hex(16)

    async def open(self) -> None:
        """Let others see that this process lives.

        Raises:
            NotStored: the folder, or one above, is not this user's alone.
            OSError: the folder cannot be written, or the disk does not answer.
        """
        await self._disk.run(self._claim)

    async def close(self) -> None:
        """Let others see that this process works on nothing any more."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            with suppress(NotStored, OSError):
                await self._disk.run(self._owner_file(self.owner).unlink)
        self._disk.close()

    async def write(self, record: Record, preview: LimeExplanation | None = None) -> None:
        """Keep the record, whole or not at all; a disk that cannot is logged, at most once a minute."""
        files = {f"{record.id}{RECORD}": record.model_dump_json()}
        if preview is not None:
            files[f"{record.id}{PREVIEW}"] = preview.model_dump_json()
        try:
            await self._disk.run(lambda: self._write(files))
        except (NotStored, OSError) as problem:
            # Each job is written several times a second.
            if self._may_warn():
                log.warning("job_not_recorded", job=record.id, reason=str(problem))

    async def read(self, job: str) -> Record | None:
        """The record, where the disk has it and answers; one whose process died while it worked is failed."""
        with suppress(NotStored, OSError):
            return await self._disk.run(lambda: self._read(job))
        return None

    async def preview(self, job: str) -> LimeExplanation | None:
        """The latest preview, where the disk has it and answers."""
        with suppress(NotStored, OSError):
            return await self._disk.run(lambda: self._parse(f"{job}{PREVIEW}", LimeExplanation.model_validate_json))
        return None

    async def cancel(self, job: str) -> None:
        """Ask the process that works on it to stop."""
        with suppress(NotStored, OSError):
            await self._disk.run((self._folder / f"{job}{CANCEL}").touch)

    async def is_cancelled(self, job: str) -> bool:
        """Whether some process asked to stop it; not, where the disk does not answer."""
        with suppress(NotStored, OSError):
            return await self._disk.run((self._folder / f"{job}{CANCEL}").exists)
        return False

    async def sweep(self) -> None:
        """Remove what was finished long enough ago, and what dead processes left."""
        try:
            await self._disk.run(self._sweep, seconds=SWEEP_SECONDS)
        except (NotStored, OSError) as problem:
            log.warning("jobs_not_swept", reason=str(problem))

    def _claim(self) -> None:
        self._disk.secure()
        owners = self._folder / OWNERS
        owners.mkdir(0o700, exist_ok=True)
        new = owners / f"{self.owner}{NEW}"
        self._lock = new.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Seen by others only once it is locked.
        new.replace(self._owner_file(self.owner))

    def _owner_file(self, owner: str) -> Path:
        return self._folder / OWNERS / owner

    def _lives(self, owner: str) -> bool:
        try:
            with self._owner_file(owner).open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            # Locked; or that cannot be told, and what may live is not taken for dead.
            return True
        return False

    def _write(self, files: dict[str, str]) -> None:
        self._disk.secure()
        with self._claiming:
            # Whoever cleaned the folder up took the lock's name along: others would take this process for dead.
            if self._lock is not None and not self._owner_file(self.owner).exists():
                self._lock.close()
                self._claim()
        for name, text in files.items():
            self._disk.write(name, text.encode())

    def _read(self, job: str) -> Record | None:
        record = self._parse(f"{job}{RECORD}", Record.model_validate_json)
        if record is None or not record.active or self._lives(record.owner):
            return record
        # It may have finished and ended since.
        record = self._parse(f"{job}{RECORD}", Record.model_validate_json)
        if record is None or not record.active:
            return record
        gone = Interrupted("the process of the service that worked on it has ended; ask for it again")
        return record.model_copy(
            update={
                "state": "failed",
                "revision": record.revision + 1,
                "ahead": None,
                "finished": datetime.fromtimestamp((self._folder / f"{job}{RECORD}").stat().st_mtime).astimezone(),
                "failure": Failure(code=gone.code, detail=str(gone)),
            }
        )

    def _parse(self, name: str, read: Callable[[bytes], T]) -> T | None:
        with suppress(ValidationError):
            return read(self._disk.read(name))
        return None

    def _sweep(self) -> None:
        records = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                changed = path.stat().st_mtime
                if path.suffix == RECORD:
                    records.append((changed, path))
                elif path.suffix == NEW and time() - changed > NEW_SECONDS:
                    path.unlink()
        for place, (changed, path) in enumerate(sorted(records, reverse=True)):
            if place >= MAX_RECORDS or time() - changed > self._max_seconds:
                try:
                    record = self._read(path.stem)
                except FileNotFoundError:
                    # Another process sweeps as well.
                    record = None
                if record is None or not record.active:
                    for suffix in (PREVIEW, CANCEL, RECORD):
                        path.with_suffix(suffix).unlink(missing_ok=True)
        for path in (self._folder / OWNERS).iterdir():
            with suppress(FileNotFoundError):
                if time() - path.stat().st_mtime > NEW_SECONDS and not self._lives(path.name):
                    path.unlink()
