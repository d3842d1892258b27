"""A training run's progress on a terminal: bars where there is one, a line an epoch where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.bars import Bars
from training.data import DataSet, count_by_label
from training.events import Progress as Silent
from training.fit import Published
from training.recipe import Recipe


class ConsoleProgress(Bars, Silent):
    """Tells a person what goes on, how well, and how long it will take."""

    def __init__(self, console: Console, recipe: Recipe) -> None:
        super().__init__(console)
        self._recipe = recipe

    def reading(self, pictures: int) -> None:
        """See `Silent`."""
        self.begin("reading pictures", pictures)

    def read_one(self) -> None:
        """See `Silent`."""
        self.advance()

    def loaded(self, data: DataSet) -> None:
        """See `Silent`."""
        self.tell_skipped(data.unreadable)
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

    def stage(self, what: str, total: int | None = None) -> None:
        """See `Silent`."""
        self.begin(what, total)

    def note(self, text: str) -> None:
        """See `Silent`."""
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def published(self, result: Published) -> None:
        """The run's end: what was published, and how good it is."""
        metrics = result.metrics
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
            f"fitted in {result.seconds['fitting']:.1f} s",
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
        self._progress.begin(f"epoch {epoch + 1} of {self._epochs}", self._steps, as_line=False)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.advance(figures=_figures(logs or {}))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._progress.advance(0, figures=_figures(logs or {}))
        if not self._console.is_terminal:
            self._console.print(f"epoch {epoch + 1} of {self._epochs}: {_figures(logs or {})}", soft_wrap=True)


def _figures(logs: dict[str, Any]) -> str:
    names = {"loss": "loss", "accuracy": "accuracy", "val_loss": "test loss", "val_accuracy": "test accuracy"}
    return "  ".join(f"{names[key]} {logs[key]:.4f}" for key in names if key in logs)
