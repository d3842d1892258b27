"""One computation for all who ask the same: it ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from datetime import datetime, timezone
from itertools import takewhile
from typing import Any, Generic, TypeVar

import anyio

from service.errors import Draining, Overloaded, ServiceError
from service.explain.messages import Lane
from service.explain.question import Progress
from service.explain.turns import Places
from service.pace import Pace

T = TypeVar("T")


class Flight(Generic[T]):
    """A computation under way, and how far it is."""

    task: asyncio.Task[T]

    def __init__(self, key: str, lane: Lane) -> None:
        self.key = key
        self.lane = lane
        self.waiters = 0
        self.place: int | None = None
        self.started: datetime | None = None
        self.progress: Progress | None = None

    def start(self) -> None:
        """Its turn has come."""
        self.started = datetime.now(timezone.utc)

    def report(self, progress: Progress) -> None:
        """It came so far."""
        self.progress = progress


class Flights(Generic[T]):
    """All computations under way, at most `limit`; `what` they compute is said where there are as many.

    With `places`, those of other workers count as well.
    """

    def __init__(self, limit: int, what: str, places: Places | None = None) -> None:
        self._places = places
        self._limit = limit
        self._what = what
        self._flights: dict[str, Flight[T]] = {}
        self._closed = False
        self._pace = Pace()

    def __contains__(self, key: str) -> bool:
        return key in self._flights

    def join(self, key: str, work: Callable[[Flight[T]], Coroutine[Any, Any, T]], lane: Lane = "quick") -> Flight[T]:
        """Wait for what `work` computes, or for who computes it already. Whoever joined must `leave`.

        Raises:
            Overloaded: it would be one computation too many.
            Draining: they are closed.
        """
        if self._closed:
            raise Draining("the service is shutting down")
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= self._limit:
                raise self.full()
            flight = Flight(key, lane)
            if self._places is not None:
                flight.place = self._places.take()
                if flight.place is None:
                    raise self.full()
            flight.task = asyncio.create_task(work(flight), name=key)
            flight.task.add_done_callback(lambda task: self._landed(flight, task))
            self._flights[key] = flight
        flight.waiters += 1
        return flight

    def full(self) -> Overloaded:
        """The answer to one too many: to come back when one will have landed."""
        return Overloaded(f"{self._limit} {self._what} are queued or running already", retry_after=self._pace.of(1))

    def leave(self, flight: Flight[T]) -> None:
        """Wait no longer; the last one who leaves cancels what is not done."""
        flight.waiters -= 1
        if flight.waiters == 0 and not flight.task.done():
            flight.task.cancel()
            # Whoever asks from now on starts anew.
            self._forget(flight)

    def count(self, *, running: bool) -> int:
        """How many run, or wait for their turn."""
        return sum((flight.started is not None) is running for flight in self._flights.values())

    def ahead(self, flight: Flight[T]) -> int:
        """How many wait or run before it in its lane, where it waits for its turn."""
        before = takewhile(lambda other: other is not flight, self._flights.values())
        return sum(other.lane == flight.lane for other in before)

    async def close(self, seconds: float) -> None:
        """Let all finish for so long, then cancel the rest."""
        with anyio.move_on_after(seconds):
            # More may come meanwhile.
            while self._flights:
                await asyncio.wait([flight.task for flight in self._flights.values()])
        self._closed = True
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, flight: Flight[T], task: asyncio.Task[T]) -> None:
        self._forget(flight)
        if flight.started and not task.cancelled():
            self._pace.took((datetime.now(timezone.utc) - flight.started).total_seconds())
        # Retrieved here, it is no error that nobody saw, even if all have left.
        if not task.cancelled():
            task.exception()

    def _forget(self, flight: Flight[T]) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
            if flight.place is not None:
                os.close(flight.place)


async def landed(flight: Flight[T]) -> T:
    """What the computation gave; cancelling who waits leaves it alone.

    Raises:
        ServiceError: as it did.
        Draining: the service ended it.
    """
    await asyncio.wait({flight.task})
    if flight.task.cancelled():
        raise Draining("the service stopped before it had an answer")
    error = flight.task.exception()
    if isinstance(error, ServiceError):
        # One exception object per client: a shared one would gather every client's traceback.
        raise type(error)(str(error)) from None
    return flight.task.result()
