from __future__ import annotations

import asyncio

import pytest

from service.deadline import Deadline
from service.errors import DeadlineExceeded

pytestmark = pytest.mark.anyio


def late() -> DeadlineExceeded:
    return DeadlineExceeded("no answer within 0 s")


async def test_what_takes_too_long_is_cancelled_and_said_to_be_late() -> None:
    async def wait(cancelled: asyncio.Event) -> None:
        async with Deadline(0.0, late):
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    cancelled = asyncio.Event()
    with pytest.raises(DeadlineExceeded, match="no answer within 0 s"):
        await wait(cancelled)
    assert cancelled.is_set()


async def test_what_is_done_in_time_is_left_alone() -> None:
    async with Deadline(60.0, late):
        await asyncio.sleep(0)


async def test_another_timeout_inside_is_no_lateness() -> None:
    with pytest.raises(TimeoutError, match="a socket's"):
        async with Deadline(60.0, late):
            raise TimeoutError("a socket's")


async def test_who_is_cancelled_from_outside_is_not_late() -> None:
    async def wait() -> None:
        async with Deadline(60.0, late):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
