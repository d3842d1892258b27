"""Who may still wait: many for a while, few once they were too many, so that they need not wait long."""

from __future__ import annotations

from time import monotonic

from service.pace import Pace

# Without a refusal for so long, there is no crowd any more.
CALM_SECONDS = 0.2
# Seconds until it tries to take more nevertheless, and how many times longer after each try that failed.
FIRST_TRY, TRIES_APART, LAST_TRY = 1.0, 4, 16.0
# How many times as many wait then.
TRIED = 4
# What is done together should not take longer.
TOGETHER_SECONDS = 0.25


class Tries:
    """When it is tried to take more, although some had to be refused: soon at first, later after each that failed."""

    def __init__(self) -> None:
        self._at = float("-inf")
        self._pause = FIRST_TRY

    def begin(self, now: float) -> None:
        """A crowd has come."""
        self._pause = FIRST_TRY
        self._at = now + self._pause

    def fail(self, now: float) -> None:
        """The crowd is still there."""
        self._pause = min(LAST_TRY, TRIES_APART * self._pause)
        self._at = now + self._pause

    def due(self, now: float) -> bool:
        """Whether it may be tried."""
        return now >= self._at

    def recent(self, now: float) -> bool:
        """Whether a crowd that has come now is the one for which it was tried."""
        return now < self._at + self._pause


class Crowd:
    """Decides who is taken into one queue.

    A burst may wait: as many as `most`, and no longer than `patience`, in seconds. Where more come, it is no burst but
    more than can be done, and whoever were taken would wait as long as the queue is: from then on it takes `few`, until
    none had to be refused for a while. A few clients that come again at once are refused as often as a crowd, and would
    be for ever: so it tries, ever more rarely, whether no more than some come.
    """

    def __init__(self, most: int, few: int, patience: float) -> None:
        self.pace = Pace()
        self._most = most
        self._few = min(few, most)
        self._patience = patience
        self._until = float("-inf")
        self._tries = Tries()

    def takes(self, waiting: int) -> bool:
        """Whether one more is taken, where so many wait already."""
        now = monotonic()
        if now >= self._until:
            taken = waiting < self._most and self.pace.seconds * waiting <= self._patience
            if not taken:
                self._tries.begin(now)
        elif self._tries.due(now):
            taken = waiting < min(TRIED * self._few, self._most)
            if not taken:
                self._tries.fail(now)
        else:
            taken = waiting < self._few
        if not taken:
            self._until = now + CALM_SECONDS
        return taken

    def over(self) -> None:
        """Nothing waits, and nothing is being done."""
        self._until = float("-inf")

    def at_once(self, most: int) -> int:
        """How many of those that wait are done together, of at most so many: the next ones wait for all of them."""
        if monotonic() < self._until:
            return min(most, self._few)
        # Where one takes long, many together take hardly less each.
        soon = TOGETHER_SECONDS / self.pace.seconds if self.pace.seconds else most
        return min(most, max(self._few, int(soon)))

    def surplus(self, waiting: int) -> int:
        """How many of those that wait are more than it takes now."""
        return max(0, waiting - self._few) if monotonic() < self._until else 0
