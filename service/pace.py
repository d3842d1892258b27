"""How long things took of late, and so how long more of them will take: for `Retry-After`, and for who may wait."""

from __future__ import annotations

# Weight of the last; about the last ten count.
LATEST = 0.1
# What took longer than so many times the mean waited for something else, such as a paused process, and counts as that.
SURPRISE = 10.0


class Pace:
    """A mean over time that forgets."""

    def __init__(self) -> None:
        self._seconds: float | None = None

    @property
    def seconds(self) -> float:
        """What one took of late; 0 before the first."""
        return self._seconds or 0.0

    def took(self, seconds: float) -> None:
        """One more was done, in so many seconds."""
        if not self._seconds:
            self._seconds = seconds
        else:
            self._seconds = (1 - LATEST) * self._seconds + LATEST * min(seconds, SURPRISE * self._seconds)

    def of(self, number: int) -> float:
        """Seconds that so many, one after the other, will take: at least 1, where nothing shorter can be said."""
        return max(1.0, number * self.seconds)
