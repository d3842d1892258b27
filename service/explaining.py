"""The explaining half of the service: what is kept of its work, and its jobs, from start to end."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

import structlog

from service.explain.disk_shelf import DiskShelf
from service.explain.explanations import Explanations
from service.explain.jobs import Jobs
from service.explain.process import Explainer
from service.explain.records import Records
from service.explain.redis_shelf import RedisShelf
from service.explain.results import Results, Shelf
from service.images import NOTHING, default_folder, names_redis
from service.images.disk import secure
from service.images.store import NotStored
from service.metrics import Metrics
from service.repository import Version
from service.settings import Settings

SWEEP_SECONDS = 60.0
TELL_SECONDS = 0.5
FOLDER = "explanations"

log = structlog.get_logger()


class Explaining:
    """Opened once models are loaded; closed when no request comes any more."""

    explanations: Explanations
    jobs: Jobs

    def __init__(self, settings: Settings, metrics: Metrics, turns: Path | None = None) -> None:
        """`turns`: see `Explanations`."""
        self._turns = turns
        self._settings = settings
        self._metrics = metrics
        self._deadline: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._background: list[asyncio.Task[None]] = []
        self._opened = False

    async def open(self, explainer: Explainer, versions: list[Version]) -> None:
        """Take questions; the process that explains starts in the background, or with the first of them."""
        settings = self._settings
        self._loop = asyncio.get_running_loop()
        records, folder = None, await asyncio.to_thread(_folder, settings.store)
        if folder is not None:
            records = Records(folder / "jobs", above=(folder.parent, folder), max_seconds=settings.explain_keep_seconds)
            try:
                await records.open()
            except (NotStored, OSError) as problem:
                log.warning("explanations_in_memory", reason=str(problem))
                records = folder = None
        self._results = Results(_shelf(settings, folder), max_seconds=settings.explain_keep_seconds)
        self.explanations = Explanations(
            explainer,
            self._results,
            self._metrics,
            limit=settings.max_explanations,
            max_bytes=settings.max_total_bytes,
            max_pixels=settings.max_pixels,
            seconds=settings.explain_timeout,
            turns=self._turns,
        )
        self.jobs = Jobs(
            self.explanations,
            records,
            limit=settings.max_explanations,
            max_seconds=settings.explain_keep_seconds,
        )
        self._background.append(asyncio.create_task(self._sweep(), name="sweep explanations"))
        self._opened = True
        self.preload(versions)

    def preload(self, versions: Sequence[Version]) -> None:
        """Load versions where they are explained, in the background, if the settings say so."""
        if self._settings.explain_preload and self._opened:
            preload = self.explanations.preload([weakref.ref(version) for version in versions])
            task = asyncio.create_task(preload, name="preload explainer")
            self._background.append(task)
            task.add_done_callback(self._background.remove)

    def drain_within(self, seconds: float) -> None:
        """Take no new jobs, and say when all must be over."""
        self.jobs.draining = True
        # Those who wait are told before the server cuts them off.
        seconds -= min(TELL_SECONDS, seconds / 4)
        self._deadline = monotonic() + seconds
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_in, seconds)

    async def close(self) -> None:
        """Let what is under way finish until the deadline of `drain_within`."""
        self.jobs.draining = True
        until = monotonic() + self._settings.drain_seconds if self._deadline is None else self._deadline
        for task in list(self._background):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self.explanations.close(max(0.0, until - monotonic()))
        await self.jobs.close(max(TELL_SECONDS, until - monotonic()))
        await self._results.close()

    def _end_in(self, seconds: float) -> None:
        self._background.append(asyncio.create_task(self._end(seconds), name="end explanations"))

    async def _end(self, seconds: float) -> None:
        # Until then requests that were accepted may still begin to compute, and to draw what was computed.
        await asyncio.sleep(seconds)
        await self.explanations.close(0)

    async def _sweep(self) -> None:
        while True:
            try:
                await self.explanations.sweep()
                await self.jobs.sweep()
            except Exception:
                # What is too old must go, whatever happened this time.
                log.exception("bug")
            await asyncio.sleep(SWEEP_SECONDS)


def _shelf(settings: Settings, folder: Path | None) -> Shelf | None:
    """Where results are kept: where the pictures are."""
    if settings.store and names_redis(settings.store):
        return RedisShelf(settings.store, max_seconds=settings.explain_keep_seconds)
    if folder is None:
        return None
    return DiskShelf(
        folder / "results",
        above=(folder.parent, folder),
        max_bytes=settings.explain_max_bytes,
        max_seconds=settings.explain_keep_seconds,
    )


def _folder(store: str | None) -> Path | None:
    """Where jobs are kept, and results unless Redis has them: beside the pictures, or on this host's disk."""
    if store == NOTHING:
        return None
    kept = Path(store) if store and not names_redis(store) else default_folder()
    try:
        secure(kept)
        secure(kept / FOLDER)
    except (NotStored, OSError) as problem:
        log.warning("explanations_in_memory", reason=str(problem))
        return None
    return kept / FOLDER
