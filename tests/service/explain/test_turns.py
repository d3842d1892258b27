"""Turns and places that two workers take, here two objects on the same folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import anyio
import pytest

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
