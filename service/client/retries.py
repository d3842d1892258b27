"""What went wrong in, how long to wait before it is tried again out; or it is raised, where that would be no use."""

from __future__ import annotations

import random
from dataclasses import dataclass
from time import monotonic

from service.client.errors import ConnectionLost, SichtbarError, TimedOut, TryLater, Unreachable
from service.client.exchange import Answer, Request, seconds_until

AGAIN = (429, 503)
# Of those, what the request itself may have done: sent again, it would do so again.
DEADLY = "explainer_died"
# Where nobody says when to come again: seconds, doubled each time.
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
# Of the wait, at random, so that those who were refused together do not come back together.
SPREAD = 0.1


@dataclass(frozen=True)
class Retries:
    """How often and for how long a request is sent again.

    It is where the service says so (429, 503, but for `explainer_died`), after what it says in `Retry-After`; where no
    connection comes about; and where one breaks, if the request changes nothing. An answer that takes too long is not
    asked for again.
    """

    times: int = 3
    """After the first; 0: never."""
    longest: float = 30.0
    """Seconds: whoever shall wait longer is told so at once, by the refusal and its `retry_after`."""
    deadline: float | None = None
    """Seconds that a call may take with everything that it sends and waits for; None: as many as it needs."""


RETRIES = Retries()


class Patience:
    """One call's: how long it may still take, and how often its present request may still be sent."""

    def __init__(self, retries: Retries, timeout: float) -> None:
        self._retries = retries
        self._timeout = timeout
        self._until = None if retries.deadline is None else monotonic() + retries.deadline
        self._tried = 0

    def begin(self) -> None:
        """The next request: it may be sent as often as any."""
        self._tried = 0

    def seconds(self) -> float:
        """How long an answer may take.

        Raises:
            TimedOut: no time is left.
        """
        if self._until is None:
            return self._timeout
        left = self._until - monotonic()
        if left <= 0:
            raise TimedOut(f"not done within {self._retries.deadline:g} s")
        return min(self._timeout, left)

    def after_refusal(self, request: Request, answer: Answer) -> float | None:
        """Seconds until the request is sent again; None: it is not, and this is its answer."""
        if answer.status not in AGAIN or answer.code == DEADLY or request.once:
            return None
        return self._wait(seconds_until(answer.headers.get("retry-after")))

    def after_failure(self, request: Request, failure: SichtbarError) -> float:
        """Seconds until the request is sent again.

        Raises:
            SichtbarError: it is not.
        """
        again = isinstance(failure, Unreachable) or (isinstance(failure, ConnectionLost) and request.safe)
        wait = self._wait(None) if again and not request.once else None
        if wait is None:
            raise failure
        return wait

    def after_break(self, failure: SichtbarError) -> float:
        """Seconds until a stream of events is asked to go on.

        Raises:
            SichtbarError: it is not.
        """
        wait = self._wait(failure.retry_after if isinstance(failure, TryLater) else None)
        if wait is None:
            raise failure
        return wait

    def _wait(self, told: float | None) -> float | None:
        if self._tried >= self._retries.times:
            return None
        wait = min(FIRST_WAIT * 2**self._tried, LONGEST_WAIT) if told is None else told
        if wait > self._retries.longest:
            return None
        wait *= 1 + SPREAD * random.random()
        if self._until is not None and monotonic() + wait > self._until:
            return None
        self._tried += 1
        return wait
