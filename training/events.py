"""What a run tells while it goes on; `training.progress` shows it to a person."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from training.data import DataSet


class Progress:
    """Hears of everything and keeps quiet."""

    def reading(self, pictures: int) -> None:
        """That many pictures are about to be decoded."""

    def read_one(self) -> None:
        """One more was."""

    def loaded(self, data: DataSet) -> None:
        """All were."""

    def callbacks(self, epochs: int, steps: int) -> Sequence[keras.callbacks.Callback]:
        """Whom Keras shall tell of epochs and steps."""
        return ()

    def stage(self, what: str, total: int | None = None) -> None:
        """The run goes on to something that takes seconds: `total` pictures of work, where that is known."""

    def advance(self, by: int) -> None:
        """So many more pictures of that work are done."""

    def note(self, text: str) -> None:
        """Something that a person should know."""
