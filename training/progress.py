"""A training run's progress on a terminal: bars where there is one, a line an epoch where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import keras
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.table import Table

from training.data import DataSet, count_by_label
from training.fit import Progress as Silent
from training.fit import Published
from training.recipe import Recipe

SHOWN_UNREADABLE = 10


class ConsoleProgress(Silent):
    """Tells a person what goes on, how well, and how long it will take."""

    def __init__(self, console: Console, recipe: Recipe) -> None:
        self._console = console
        self._recipe = recipe
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeLeftColumn(),
            console=console,
        )
        self._current: TaskID | None = None

    def __enter__(self) -> ConsoleProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def reading(self, pictures: int) -> None:
        """See `Silent`."""
        self.begin("reading pictures", pictures)

    def read_one(self) -> None:
        """See `Silent`."""
        self.advance()

    def loaded(self, data: DataSet) -> None:
        """See `Silent`."""
        for name, problem in list(data.unreadable.items())[:SHOWN_UNREADABLE]:
            line = f"[yellow]skipped[/] {escape(name)}: {escape(problem)}"
            self._console.print(line, highlight=False, soft_wrap=True)
        if data.unreadable:
            self._console.print(f"[yellow]{len(data.unreadable)} unreadable pictures were skipped[/]")
        table = Table("class", "training", "test", title=f"{self._recipe.name}: {data.split}")
        training = count_by_label(data.training.classes, data.labels)
        test = count_by_label(data.test.classes, data.labels)
        for label in data.labels:
            table.add_row(escape(label), str(training[label]), str(test[label]))
        table.add_row("[bold]all", str(sum(training.values())), str(sum(test.values())))
        self._console.print(table)

    def callbacks(self, epochs: int, steps: int) -> Sequence[keras.callbacks.Callback]:
        """See `Silent`."""
        return [_EpochBars(self, self._console, epochs, steps)]

    def stage(self, what: str) -> None:
        """See `Silent`."""
        self.begin(what, None)

    def begin(self, what: str, total: int | None) -> None:
        """Finish the bar that runs and start the next; no `total` is known for some."""
        self.finish()
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

    def published(self, result: Published) -> None:
        """The run's end: what was published, and how good it is."""
        metrics = result.manifest.metrics
        table = Table("class", "precision", "recall", "F1", "pictures", title="on held-out pictures")
        for figures in metrics.classes:
            table.add_row(
                escape(figures.label),
                *(f"{value:.4f}" for value in (figures.precision, figures.recall, figures.f1)),
                str(figures.support),
            )
        self._console.print(table)
        self._console.print(
            f"accuracy {metrics.accuracy:.2%}, top 3 {metrics.top3_accuracy:.2%}, loss {metrics.loss:.4f}; "
            f"fitted in {result.fit_seconds:.1f} s",
            soft_wrap=True,
        )
        self._console.print(f"published [bold]{escape(str(result.folder))}[/]", highlight=False, soft_wrap=True)


class _EpochBars(keras.callbacks.Callback):
    def __init__(self, progress: ConsoleProgress, console: Console, epochs: int, steps: int) -> None:
        super().__init__()
        self._progress = progress
        self._console = console
        self._epochs = epochs
        self._steps = steps

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.begin(f"epoch {epoch + 1} of {self._epochs}", self._steps)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.advance(figures=_figures(logs or {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.advance(0, figures=_figures(logs or {}))
        if not self._console.is_terminal:
            self._console.print(f"epoch {epoch + 1} of {self._epochs}: {_figures(logs or {})}", soft_wrap=True)


def _figures(logs: dict[str, Any]) -> str:
    names = {"loss": "loss", "accuracy": "accuracy", "val_loss": "test loss", "val_accuracy": "test accuracy"}
    return "  ".join(f"{names[key]} {logs[key]:.4f}" for key in names if key in logs)
