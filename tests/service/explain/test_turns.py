"""Turns and places that two workers take, here two objects on the same folder."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from service.errors import ExplanationFailed
from service.explain.turns import Places, Turn

pytestmark = pytest.mark.anyio


async def test_one_at_a_time_has_the_turn_whichever_worker_asks(tmp_path: Path) -> None:
    turns, having, most = [Turn(tmp_path / "turn") for _ in range(2)], 0, 0

    async def take(turn: Turn) -> None:
        nonlocal having, most
        for _ in range(20):
            async with turn:
                having += 1
                most = max(most, having)
                await asyncio.sleep(0)
                having -= 1

    with anyio.fail_after(20):
        await asyncio.gather(*(take(turn) for turn in turns * 2))
    assert most == 1


async def test_who_gives_up_waiting_leaves_the_turn_to_others(tmp_path: Path) -> None:
    first, second = (Turn(tmp_path / "turn") for _ in range(2))
    async with first:
        with anyio.move_on_after(0.1) as waited:
            async with second:
                pass
        assert waited.cancelled_caught
    with anyio.fail_after(20):
        for turn in (second, first, second):
            async with turn:
                pass


async def test_however_many_give_up_one_thread_waits_and_whoever_comes_next_has_its_lock(tmp_path: Path) -> None:
    first, second = (Turn(tmp_path / "0") for _ in range(2))
    other = Places(tmp_path, 1).take()
    assert other is not None

    async def take() -> None:
        async with first:
            pass

    before = set(threading.enumerate())
    for _ in range(5):
        with anyio.move_on_after(0.01) as waited:
            await take()
        assert waited.cancelled_caught
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["turn"]
    last = asyncio.create_task(take())
    await asyncio.sleep(0)
    os.close(other)
    with anyio.fail_after(20):
        await last
        # Nobody has kept it.
        async with second:
            pass


async def test_who_cannot_lock_the_file_is_told_and_others_may_try_again(tmp_path: Path) -> None:
    folder = tmp_path / "turns"
    turn = Turn(folder / "turn")
    with capture_logs() as logs, anyio.fail_after(20):
        for _ in range(2):
            with pytest.raises(ExplanationFailed):
                async with turn:
                    pass
    assert [line["event"] for line in logs] == ["explanation_failed"] * 2
    folder.mkdir()
    with anyio.fail_after(20):
        async with turn:
            pass


async def test_no_more_places_are_taken_than_there_are_and_each_may_be_given_back(tmp_path: Path) -> None:
    first, second = (Places(tmp_path, 3) for _ in range(2))
    taken = [places.take() for places in (first, second, first)]
    assert None not in taken
    assert (first.take(), second.take()) == (None, None)
    assert taken[1] is not None
    os.close(taken[1])
    taken[1] = first.take()
    assert taken[1] is not None
    assert second.take() is None
    for place in taken:
        assert place is not None
        os.close(place)
