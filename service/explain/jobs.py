"""Explanations that come later: started, watched, cancelled, and known for a while when they are over."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from secrets import token_hex
from typing import NamedTuple

import anyio
import structlog

from service.errors import Draining, ExplanationFailed, Interrupted, ServiceError, UnknownExplanation
from service.explain.explanations import Asked, Explanations
from service.explain.flights import Flight, landed
from service.explain.question import Explanation, LimeExplanation
from service.explain.records import MAX_RECORDS, Counted, Failure, Format, Record, Records
from service.explain.style import Style

JOB_ID = re.compile(r"[0-9a-f]{32}")
# How often a job's progress is read, written for other processes, and told.
EVERY_SECONDS = 0.25
PREVIEW_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 10.0
# How long a process that works on a job gets to notice that another one cancelled it.
CANCEL_SECONDS = 3.0
# Pictures that nothing else keeps, of jobs that are over.
HELD_BYTES = 64 * 2**20

log = structlog.get_logger()


class Look(NamedTuple):
    """How a result is wanted."""

    style: Style
    format: Format
    label: str | None


class _Job:
    """A job of this process."""

    def __init__(self, record: Record, picture: bytes | None) -> None:
        self.record = record
        self.picture = picture
        self.preview: LimeExplanation | None = None
        self.changed = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.follower: asyncio.Task[None] | None = None
        # How it ended is being written: other processes may know it already.
        self.ending = False

    def changed_by(self, **changes: object) -> Record:
        """Its record after a change."""
        return self.record.model_copy(update={**changes, "revision": self.record.revision + 1})

    def update(self, record: Record) -> None:
        """Change its record, and tell who watches."""
        self.record = record
        self.changed.set()
        self.changed = asyncio.Event()


class Jobs:
    """Jobs of this process, at most `limit` at once; through `records` also those of other processes."""

    def __init__(self, explanations: Explanations, records: Records | None, *, limit: int, max_seconds: float) -> None:
        self._explanations = explanations
        self._records = records
        self._limit = limit
        self._max_seconds = max_seconds
        self._jobs: dict[str, _Job] = {}
        self.draining = False

    async def start(self, asked: Asked, look: Look, data: bytes, *, hold: bool) -> Record:
        """Make a job of a question; `hold`: nothing else keeps its picture.

        Raises:
            Overloaded: there are as many jobs as may be.
            Draining: the service is shutting down.
        """
        computing = self._explanations.computing(asked.name)
        done = not computing and await self._explanations.kept(asked.name) is not None
        if self.draining and not done:
            raise Draining("the service is shutting down and takes no new explanations")
        if not done and sum(job.record.active for job in self._jobs.values()) >= self._limit:
            raise self._explanations.full()
        manifest = asked.version.manifest
        now = datetime.now(timezone.utc)
        record = Record(
            id=token_hex(16),
            owner=self._records.owner if self._records else "",
            state="done" if done else "queued",
            image_id=asked.image_id,
            model=manifest.name,
            version=manifest.version,
            question=asked.question,
            style=look.style,
            format=look.format,
            label=look.label,
            result=asked.name,
            created=now,
            started=now if done else None,
            finished=now if done else None,
        )
        job = _Job(record, data if hold else None)
        if not done:
            flight = self._explanations.join(asked, data)
            self._look(job, flight)
            job.follower = asyncio.create_task(self._follow(job, flight), name=record.id)
        self._jobs[record.id] = job
        # Whoever is told of it may ask another process next.
        await self._write(job.record)
        self._forget_old()
        return job.record

    async def find(self, job_id: str) -> Record:
        """What is known of a job; of one whose end is being written, once it is, or the disk was waited for.

        Raises:
            UnknownExplanation: there is none of that id, or not any more.
        """
        job = self._jobs.get(job_id)
        if job is not None and job.ending and job.follower is not None:
            await asyncio.wait({job.follower})
        record = job.record if job is not None else None
        # Anything else is no name of ours, and might be a path.
        if record is None and self._records and JOB_ID.fullmatch(job_id):
            record = await self._records.read(job_id)
        if record is None or self._has_expired(record):
            raise UnknownExplanation(
                f"expected the id of an explanation that is kept, got {job_id!r}; ask for it again"
            )
        return record

    async def cancel(self, job_id: str) -> Record:
        """Stop waiting for a job's answer; nothing happens to one that is over.

        Raises:
            UnknownExplanation: there is none of that id, or not any more.
        """
        record = await self.find(job_id)
        job = self._jobs.get(job_id)
        if job is not None and job.follower is not None:
            job.cancelled.set()
            await asyncio.wait({job.follower})
            return job.record
        if self._records is not None and record.active:
            await self._records.cancel(job_id)
            with anyio.move_on_after(CANCEL_SECONDS):
                while record.active:
                    await asyncio.sleep(EVERY_SECONDS)
                    record = await self.find(job_id)
        return record

    async def watch(self, job_id: str) -> AsyncIterator[Record | None]:
        """What is known of a job now and after each change, until it is over or forgotten; None now and then while
        nothing changes.
        """
        told, quiet = -1, 0.0
        while True:
            job = self._jobs.get(job_id)
            changed = job.changed if job else asyncio.Event()
            try:
                record = await self.find(job_id)
            except UnknownExplanation:
                return
            if record.revision != told:
                told, quiet = record.revision, 0.0
                yield record
            if not record.active:
                return
            # Of another process' job nobody tells.
            seconds = KEEP_ALIVE_SECONDS if job else EVERY_SECONDS
            with anyio.move_on_after(seconds) as waited:
                await changed.wait()
            quiet += seconds if waited.cancelled_caught else 0.0
            if quiet >= KEEP_ALIVE_SECONDS:
                quiet = 0.0
                yield None

    async def preview(self, job_id: str) -> LimeExplanation | None:
        """What the samples so far say; of a job that is over, where the disk has it."""
        job = self._jobs.get(job_id)
        if job is not None and job.preview is not None:
            return job.preview
        return await self._records.preview(job_id) if self._records else None

    def picture(self, job_id: str) -> bytes | None:
        """The job's picture, where nothing else keeps it."""
        job = self._jobs.get(job_id)
        return job.picture if job else None

    async def sweep(self) -> None:
        """Forget what was over long enough ago."""
        self._forget_old()
        if self._records is not None:
            await self._records.sweep()

    async def close(self, seconds: float) -> None:
        """Write down how each job ended, for so long; all they wait for has ended."""
        followers = [job.follower for job in self._jobs.values() if job.follower is not None]
        if followers:
            _, late = await asyncio.wait(followers, timeout=seconds)
            for follower in late:
                follower.cancel()
        if self._records is not None:
            await self._records.close()

    async def _follow(self, job: _Job, flight: Flight[Explanation]) -> None:
        told, shown = 0.0, None
        cancelled = asyncio.create_task(job.cancelled.wait())
        try:
            while not flight.task.done() and not job.cancelled.is_set():
                await asyncio.wait({flight.task, cancelled}, timeout=EVERY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if flight.task.done() or job.cancelled.is_set():
                    break
                if self._look(job, flight):
                    now = asyncio.get_running_loop().time()
                    fresh = job.preview is not shown and now - told >= PREVIEW_SECONDS
                    told, shown = (now, job.preview) if fresh else (told, shown)
                    await self._write(job.record, job.preview if fresh else None)
                if self._records is not None and await self._records.is_cancelled(job.record.id):
                    job.cancelled.set()
            ending = await _ending(flight)
        except Exception:
            log.exception("bug")
            ending = {"state": "failed", "failure": _failure(ExplanationFailed("the explanation failed"))}
        finally:
            cancelled.cancel()
            self._explanations.leave(flight)
        self._look(job, flight)
        kept = self._records is not None and job.preview is not None
        ended = job.changed_by(**ending, ahead=None, preview=kept, finished=datetime.now(timezone.utc))
        # Whoever is told of it may ask another process next, and has perhaps been told by another process.
        job.ending = True
        await self._write(ended, job.preview)
        job.update(ended)
        job.follower = None
        # Of a thousand jobs they would fill the memory.
        job.preview = None

    def _look(self, job: _Job, flight: Flight[Explanation]) -> bool:
        """Bring a job's record up to date; whether that changed it."""
        seen: dict[str, object] = {"ahead": self._explanations.ahead(flight)}
        if flight.started is not None:
            seen = {"ahead": None, "state": "running", "started": max(flight.started, job.record.created)}
        if flight.progress is not None:
            done, total, r2, preview = flight.progress
            job.preview = preview or job.preview
            seen |= {"progress": Counted(done=done, total=total, r2=r2), "preview": job.preview is not None}
        if all(getattr(job.record, name) == value for name, value in seen.items()):
            return False
        job.update(job.changed_by(**seen))
        return True

    async def _write(self, record: Record, preview: LimeExplanation | None = None) -> None:
        if self._records is not None:
            await self._records.write(record, preview)

    def _has_expired(self, record: Record) -> bool:
        oldest = datetime.now(timezone.utc) - timedelta(seconds=self._max_seconds)
        return record.finished is not None and record.finished < oldest

    def _forget_old(self) -> None:
        over = [job for job in self._jobs.values() if job.record.finished is not None and job.follower is None]
        over.sort(key=lambda job: job.record.finished or job.record.created, reverse=True)
        held = 0
        for place, job in enumerate(over):
            if place >= MAX_RECORDS or self._has_expired(job.record):
                del self._jobs[job.record.id]
            held += len(job.picture or b"")
            if held > HELD_BYTES:
                job.picture = None


async def _ending(flight: Flight[Explanation]) -> dict[str, object]:
    if not flight.task.done():
        return {"state": "cancelled"}
    try:
        await landed(flight)
    except Draining:
        return {"state": "failed", "failure": _failure(Interrupted("it was not done in time; ask for it again"))}
    except ServiceError as error:
        return {"state": "failed", "failure": _failure(error)}
    return {"state": "done"}


def _failure(error: ServiceError) -> Failure:
    return Failure(code=error.code, detail=str(error))
