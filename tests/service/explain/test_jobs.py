from __future__ import annotations

import asyncio
from typing import Any, cast

import anyio
import pytest

from service.explain import jobs as module
from service.explain.jobs import Jobs, _Job
from tests.service.explain.test_records import record

pytestmark = pytest.mark.anyio


async def test_closing_waits_no_longer_than_it_may() -> None:
    jobs = Jobs(cast(Any, None), None, limit=1, max_seconds=60)
    job = jobs._jobs["0" * 32] = _Job(record(""), None)
    job.follower = asyncio.create_task(anyio.sleep_forever())
    with anyio.fail_after(5):
        await jobs.close(0.05)
        await asyncio.wait({job.follower})
    assert job.follower.cancelled()


async def test_pictures_that_nothing_else_keeps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 15)
    jobs = Jobs(cast(Any, None), None, limit=1, max_seconds=60)
    for place in range(3):
        name = str(place) * 32
        jobs._jobs[name] = _Job(record("", "done", name), bytes(10))
    await jobs.sweep()
    assert [len(job.picture or b"") for job in jobs._jobs.values()] == [0, 0, 10]
