from __future__ import annotations

import asyncio

import pytest

from service.errors import Draining, ExplainerDied, Overloaded
from service.explain.flights import Flight, Flights, landed
from service.explain.messages import Lane

pytestmark = pytest.mark.anyio


class Work:
    """Ends when its gate opens; counts its runs and its ends."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = self.cancelled = 0

    async def __call__(self, flight: Flight[int]) -> int:
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return 42


async def ended(flight: Flight[int]) -> None:
    await asyncio.wait({flight.task})


async def test_all_who_ask_the_same_get_the_answer_of_one_computation() -> None:
    flights, work = Flights[int](1, "drawings"), Work()
    joined = [flights.join("key", work) for _ in range(3)]
    work.gate.set()
    assert [await landed(flight) for flight in joined] == [42] * 3
    assert work.begun == 1
    assert "key" not in flights


async def test_it_ends_when_the_last_one_leaves_and_not_before() -> None:
    flights, work = Flights[int](1, "drawings"), Work()
    flight = flights.join("key", work)
    flights.join("key", work)
    await asyncio.sleep(0)
    flights.leave(flight)
    await asyncio.sleep(0)
    assert work.cancelled == 0
    flights.leave(flight)
    assert "key" not in flights
    await ended(flight)
    assert work.cancelled == 1


async def test_who_asks_after_all_have_left_starts_anew() -> None:
    flights, work = Flights[int](1, "drawings"), Work()
    first = flights.join("key", work)
    await asyncio.sleep(0)
    flights.leave(first)
    second = flights.join("key", work)
    await ended(first)
    assert "key" in flights
    work.gate.set()
    assert await landed(second) == 42


async def test_one_too_many_is_refused_but_joining_is_not() -> None:
    flights, work = Flights[int](1, "drawings"), Work()
    flight = flights.join("key", work)
    with pytest.raises(Overloaded, match="1 drawings are queued"):
        flights.join("other", work)
    assert flights.join("key", work) is flight
    work.gate.set()
    await landed(flight)
    flights.join("other", work)
    await flights.close(1)


async def test_those_before_it_in_its_own_lane_are_counted() -> None:
    flights, work = Flights[int](4, "drawings"), Work()
    lanes: tuple[Lane, ...] = ("long", "quick", "long", "long")
    joined = [flights.join(str(place), work, lane) for place, lane in enumerate(lanes)]
    assert [flights.ahead(flight) for flight in joined] == [0, 0, 1, 2]
    flights.leave(joined[0])
    assert [flights.ahead(flight) for flight in joined[1:]] == [0, 0, 1]
    await flights.close(0)


async def test_each_who_waits_gets_an_error_of_its_own() -> None:
    async def fail(flight: Flight[int]) -> int:
        raise ExplainerDied("gone")

    flights = Flights[int](1, "drawings")
    flight = flights.join("key", fail)
    raised = []
    for _ in range(2):
        with pytest.raises(ExplainerDied, match="gone") as error:
            await landed(flight)
        raised.append(error.value)
    assert raised[0] is not raised[1]


async def test_a_waiter_that_is_cancelled_leaves_the_computation_alone() -> None:
    flights, work = Flights[int](1, "drawings"), Work()
    flight = flights.join("key", work)
    waiter = asyncio.create_task(landed(flight))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait({waiter})
    work.gate.set()
    assert await landed(flight) == 42


@pytest.mark.parametrize("finishes", [True, False])
async def test_closing_lets_work_finish_until_its_time_is_up(finishes: bool) -> None:
    flights, work = Flights[int](1, "drawings"), Work()
    flight = flights.join("key", work)
    if finishes:
        asyncio.get_running_loop().call_soon(work.gate.set)
    await flights.close(10 if finishes else 0)
    if finishes:
        assert await landed(flight) == 42
    else:
        with pytest.raises(Draining):
            await landed(flight)
