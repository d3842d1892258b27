from __future__ import annotations

import asyncio
import threading

import pytest

from service.errors import Overloaded
from service.pool import BoundedPool
from tests.conftest import until

pytestmark = pytest.mark.anyio


async def test_results_and_exceptions_come_back() -> None:
    pool = BoundedPool(2, max_queue=0, name="test")
    assert await pool.run(lambda: 3) == 3
    with pytest.raises(KeyError):
        await pool.run(lambda: {}["missing"])
    pool.close()


async def test_one_call_too_many_is_refused_and_room_is_made_again() -> None:
    gate = threading.Event()
    pool = BoundedPool(1, max_queue=1, name="test")
    tasks = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="1 pictures wait"):
        await pool.run(gate.wait)
    gate.set()
    await asyncio.gather(*tasks)
    assert await pool.run(lambda: "room") == "room"
    pool.close()


async def test_a_caller_that_gives_up_frees_its_place_only_when_the_thread_is_done() -> None:
    gate = threading.Event()
    pool = BoundedPool(1, max_queue=1, name="test")
    started: list[int] = []
    running = asyncio.create_task(pool.run(lambda: (started.append(1), gate.wait(10))))
    await until(lambda: started)
    running.cancel()
    await asyncio.wait([running])
    waiting = asyncio.create_task(pool.run(lambda: "next"))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await pool.run(lambda: "one too many")
    gate.set()
    assert await waiting == "next"
    pool.close()


async def test_once_too_many_wait_a_request_is_refused_before_it_is_begun() -> None:
    gate = threading.Event()
    pool = BoundedPool(1, max_queue=6, name="test")
    pool.admit()
    tasks = [asyncio.create_task(pool.run(gate.wait)) for _ in range(7)]
    await asyncio.sleep(0)
    for _ in range(2):
        with pytest.raises(Overloaded, match="6 pictures wait"):
            pool.admit()
    gate.set()
    await asyncio.gather(*tasks)
    pool.admit()
    pool.close()
