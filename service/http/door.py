"""Pictures that come faster than they can be looked at are turned away unread, at a small part of an answer's cost.

All that comes to one process waits for one thread. If each request were read before it is refused, refusing would keep
that thread from answering.
"""

from __future__ import annotations

import asyncio
import math
from http import HTTPStatus
from typing import NamedTuple

import structlog

from service.crowd import Crowd
from service.errors import Overloaded
from service.http.errors import failure, speaks_protocol
from service.http.limits import SAFE
from service.metrics import Metrics

# Requests that are begun in one turn of the event loop; and in each, where more come than it can begin.
MOST, CROWDED = 256, 6
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
    """Counts the requests that one event loop has taken and not begun, and refuses those that are too many."""

    def __init__(self, metrics: Metrics) -> None:
        self._crowd = Crowd(MOST, CROWDED, math.inf)
        self._errors = metrics.errors.labels(Overloaded.code)
        self._counts = {
            refusal.status: metrics.requests.labels("POST", ROUTE, str(refusal.status))
            for refusal in (NATIVE, OF_PROTOCOLS)
        }
        self._unbegun = 0
        self._refused = 0

    def takes_one(self) -> bool:
        """Whether one more may come in."""
        return self._crowd.takes(self._unbegun)

    def begins(self, loop: asyncio.AbstractEventLoop) -> None:
        """One has come in; its task is the last that was scheduled."""
        self._unbegun += 1
        loop.call_soon(self._has_begun)

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

    def _has_begun(self) -> None:
        self._unbegun -= 1

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
