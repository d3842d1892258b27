"""Steps of a long run in, bars on a terminal out."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn

SHOWN_SKIPPED = 10

Self = TypeVar("Self", bound="Bars")


class Bars:
    """One bar a step, the latest running; shown while the context lasts."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeLeftColumn(),
            console=console,
            # Into a file, each bar would be written out at the end.
            disable=not console.is_terminal,
        )
        self._current: TaskID | None = None

    def __enter__(self: Self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        self._bars.stop()

    def begin(self, what: str, total: int | None, *, of: str = "pictures", as_line: bool = True) -> None:
        """Finish the bar that runs and start the next; no `total` of pictures, or of what it is, is known for some.

        Without a terminal it is a line, unless `as_line` is false.
        """
        self.finish()
        if as_line and not self._console.is_terminal:
            line = what if total is None else f"{what}: {total:,} {of}"
            self._console.print(escape(line), highlight=False, soft_wrap=True)
        self._current = self._bars.add_task(what, total=total, figures="")

    def advance(self, by: int = 1, figures: str = "") -> None:
        """Move the bar that runs."""
        if self._current is not None:
            self._bars.update(self._current, advance=by, figures=figures)

    def finish(self) -> None:
        """Stop the bar that runs."""
        if self._current is not None:
            done = self._bars.tasks[self._current].completed or 1
            self._bars.update(self._current, total=done, completed=done)

    def tell_skipped(self, unreadable: Mapping[str, str]) -> None:
        """Name the first pictures that could not be read, reason by path, and count them all."""
        for name, problem in list(unreadable.items())[:SHOWN_SKIPPED]:
            line = f"[yellow]skipped[/] {escape(name)}: {escape(problem)}"
            self._console.print(line, highlight=False, soft_wrap=True)
        if unreadable:
            self._console.print(f"[yellow]{len(unreadable)} unreadable pictures were skipped[/]")
