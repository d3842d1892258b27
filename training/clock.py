"""Stages of a run in, the seconds that each took out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what runs inside; nothing is noted of what raises."""
        started = perf_counter()
        yield
        self.seconds[stage] = perf_counter() - started
