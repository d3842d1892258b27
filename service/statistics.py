"""What a version has done since it was loaded: requests, pictures, and where their time went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, time


@dataclass
class Duration:
    """How often something was done, and how long it took altogether."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.count += 1
        self.seconds += seconds


@dataclass
class Statistics:
    """Of one version's requests, by whatever protocol they came."""

    last: float | None = None
    """When the last came, in seconds since 1970."""
    pictures: int = 0
    """Those of requests that succeeded."""
    succeeded: Duration = field(default_factory=Duration)
    failed: Duration = field(default_factory=Duration)
    stages: defaultdict[str, Duration] = field(default_factory=lambda: defaultdict(Duration))
    """Of requests that succeeded; each counts once, with the times of the picture that took longest."""

    @contextmanager
    def request(self) -> Iterator[list[dict[str, float]]]:
        """Count a request. The list that it is given takes the seconds by stage of each of its pictures."""
        started = perf_counter()
        self.last = time()
        pictures: list[dict[str, float]] = []
        try:
            yield pictures
        except Exception:
            self.failed.add(perf_counter() - started)
            raise
        self.succeeded.add(perf_counter() - started)
        self.pictures += len(pictures)
        slowest = max(pictures, key=lambda stages: sum(stages.values()), default={})
        for stage, seconds in slowest.items():
            self.stages[stage].add(seconds)
