from __future__ import annotations

import asyncio
import threading

import pytest

from service.errors import Overloaded
from service.pool import BoundedPool

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
    with pytest.raises(Overloaded, match="2 pictures"):
        await pool.run(gate.wait)
    gate.set()
    await asyncio.gather(*tasks)
    assert await pool.run(lambda: "room") == "room"
    pool.close()
