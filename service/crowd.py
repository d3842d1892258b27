"""Who may still wait: many for a while, few once they were too many, so that they need not wait long."""

from __future__ import annotations

import math
from time import monotonic

from service.pace import Pace

# Without a refusal for so long, there is no crowd any more.
CALM_SECONDS = 0.2


class Crowd:
    """Decides who is taken into one queue.

    A burst may wait: as many as `most`, and no longer than `patience`, in seconds. Where more come, it is no burst but
    more than can be done, and whoever were taken would wait as long as the queue is: then it takes `few` for a while.
    """

    def __init__(self, most: int, few: int, patience: float, longest: float = math.inf) -> None:
        """After `longest`, in seconds, it takes many again, and sees: a few clients that come again at once are refused
        as often as a crowd, and might all wait.
        """
        self.pace = Pace()
        self._most = most
        self._few = min(few, most)
        self._patience = patience
        self._longest = longest
        self._since = self._until = float("-inf")

    def takes(self, waiting: int) -> bool:
        """Whether one more is taken, where so many wait already."""
        now = monotonic()
        if now < self._until:
            taken = waiting < self._few
        else:
            taken = waiting < self._most and self.pace.seconds * waiting <= self._patience
        if not taken:
            if now >= self._until:
                self._since = now
            self._until = min(now + CALM_SECONDS, self._since + self._longest)
        return taken

    def over(self) -> None:
        """Nothing waits, and nothing is being done."""
        self._until = float("-inf")

    def surplus(self, waiting: int) -> int:
        """How many of those that wait are more than it takes now."""
        return max(0, waiting - self._few) if monotonic() < self._until else 0
