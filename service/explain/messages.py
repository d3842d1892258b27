"""What the service and the process that explains say to each other, pickled, over a pipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from service.errors import ServiceError
from service.explain.question import Progress

Lane = Literal["quick", "long"]
LANES: tuple[Lane, ...] = ("quick", "long")


class Task(NamedTuple):
    """A function of a model and a reporter, and its other arguments."""

    number: int
    lane: Lane
    function: Callable[..., Any]
    folder: Path
    arguments: tuple[Any, ...]
    digest: str | None = None


class Forget(NamedTuple):
    """Nobody asks about the version any more."""

    folder: Path
    digest: str


class Here(NamedTuple):
    """Who answers the bell, and whether for the first time, in the place of a process that died."""

    pid: int
    again: bool


class Cancel(NamedTuple):
    """Nobody waits for the task any more."""

    number: int


class Done(NamedTuple):
    """What the function gave."""

    number: int
    value: Any


class Failed(NamedTuple):
    """What it raised; the traceback of what nobody expected."""

    number: int
    error: ServiceError
    traceback: str | None


class Ended(NamedTuple):
    """It was cancelled."""

    number: int


class Reported(NamedTuple):
    """How far it is."""

    number: int
    progress: Progress
