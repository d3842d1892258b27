"""Pictures that come faster than they can be looked at are turned away unread, at a small part of an answer's cost.

All that comes to one process waits for one thread. If each request were read before it is refused, refusing would keep
that thread from answering.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from math import inf
from time import monotonic
from typing import NamedTuple

import structlog

from service.crowd import CALM_SECONDS, Tries
from service.errors import Overloaded
from service.http.errors import failure, speaks_protocol
from service.http.limits import SAFE
from service.metrics import Metrics

# Requests that are begun in one turn of the event loop; and in the next, where more came.
MOST, CROWDED = 256, 3
# How many times as many may come in a turn while it tries.
MORE = 1.5
TELL_SECONDS = 1.0
# Which it was is not looked at.
ROUTE = "turned away"

log = structlog.get_logger()


class Refusal(NamedTuple):
    """An answer, ready to be sent."""

    status: int
    head: bytes
    """Without its last, empty line."""
    body: bytes


class Door:
    """Counts the requests that come in one turn of the event loop, and refuses those that are too many.

    The fewer a turn begins, the sooner the next one reads, and the fewer have come by then. So after one too many it
    takes few, until none had to be refused for a while. A few clients that come again at once are refused as often as a
    crowd, and would be for ever: so it also tries to take twice as many in each turn. Of a crowd more come the longer
    turns last, and the try has failed; the next is made later.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._errors = metrics.errors.labels(Overloaded.code)
        self._counts = {
            refusal.status: metrics.requests.labels("POST", ROUTE, str(refusal.status))
            for refusal in (NATIVE, OF_PROTOCOLS)
        }
        self._may_begin = MOST
        self._may_come: float = MOST
        self._calm_at = -inf
        self._tries = Tries()
        self._came = self._taken = 0
        self._refused = 0

    def takes(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the request that has come may come in."""
        if not self._came:
            # What is read in one turn is read before anything that it scheduled.
            loop.call_soon(self._turn)
            if monotonic() >= self._calm_at:
                self._may_begin = self._may_come = MOST
        self._came += 1
        taken = self._taken < self._may_begin
        self._taken += taken
        return taken

    def refuse(self, loop: asyncio.AbstractEventLoop, path: str) -> Refusal:
        """What one that may not come in is answered."""
        refusal = OF_PROTOCOLS if speaks_protocol({"path": path}) else NATIVE
        self._errors.inc()
        self._counts[refusal.status].inc()
        if not self._refused:
            # A line for each would cost more than to refuse it.
            loop.call_later(TELL_SECONDS, self._tell)
        self._refused += 1
        return refusal

    def _turn(self) -> None:
        now = monotonic()
        if self._came > self._may_begin:
            self._calm_at = now + CALM_SECONDS
        if self._may_begin > CROWDED and self._came > self._may_come:
            self._may_begin = CROWDED
            if self._tries.recent(now):
                self._tries.fail(now)
            else:
                self._tries.begin(now)
        elif self._may_begin < MOST and self._tries.due(now):
            if self._may_begin == CROWDED:
                self._may_come = min(MOST, MORE * self._came + CROWDED)
            if self._came <= self._may_come:
                self._may_begin = min(MOST, 2 * self._may_begin)
        self._came = self._taken = 0

    def _tell(self) -> None:
        log.warning("turned_away", requests=self._refused, seconds=TELL_SECONDS)
        self._refused = 0


def _refusal(path: str) -> Refusal:
    answer = failure({"path": path}, Overloaded("more requests come than can be begun"))
    headers = [*answer.headers.items(), *SAFE.items()]
    lines = [f"HTTP/1.1 {answer.status_code} {HTTPStatus(answer.status_code).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return Refusal(answer.status_code, "".join(f"{line}\r\n" for line in lines).encode("latin-1"), bytes(answer.body))


NATIVE, OF_PROTOCOLS = _refusal("/predict"), _refusal("/v2")
