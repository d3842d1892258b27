"""An exported graph's answers to held-out pictures in; temperature, threshold and the report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from training.calibration import fit_temperature, softmax
from training.data import DataSet
from training.evaluate import Answers
from training.history import Epoch
from training.maximise import Maximised
from training.recipe import Recipe
from training.report import Composed, Findings, Report, write_report
from training.train import NONE_OF_THE_CLASSES, Examples
from training.versions import Gradcam

# Where no picture of anything else was shown: one that scores lower than all but this share of the held-out ones.
UNRECOGNISED_SHARE = 0.01


@dataclass(frozen=True)
class Judgement:
    """What the held-out pictures say of a trained network.

    The data set's test pictures come first among them; composites and pictures of no class may follow.
    """

    data: DataSet
    held_out: Examples
    said: Answers
    """Of the export whose temperature is 1."""
    temperature: float
    threshold: float

    @classmethod
    def of(cls, data: DataSet, held_out: Examples, said: Answers) -> Judgement:
        """Fit temperature and threshold."""
        known = held_out.classes != NONE_OF_THE_CLASSES
        temperature = fit_temperature(said.logits[known], held_out.classes[known])
        return cls(data, held_out, said, temperature, fit_threshold(said.recognition[known], said.recognition[~known]))

    @property
    def _known(self) -> NDArray[np.bool_]:
        return np.asarray(self.held_out.classes != NONE_OF_THE_CLASSES)

    @property
    def _tests(self) -> slice:
        return slice(len(self.data.test.classes))

    @property
    def _strangers(self) -> NDArray[np.float32] | None:
        return None if self._known.all() else self.said.recognition[~self._known]

    def _composed(self) -> Composed | None:
        rows = self._known.copy()
        rows[self._tests] = False
        if not rows.any():
            return None
        return Composed(self.held_out.classes[rows], self.said.logits[rows], self.said.recognition[rows])

    def report(
        self,
        folder: Path,
        title: str,
        recipe: Recipe,
        gradcam: Gradcam,
        history: Sequence[Epoch],
        seconds: Mapping[str, float],
        *,
        filters: Sequence[Maximised] = (),
        with_pictures: bool,
    ) -> Report:
        """Write the report of the test pictures; without pictures it holds no names of files either."""
        tests, split = self._tests, self.data.test
        facts: dict[str, str | int] = {
            "training pictures": len(self.data.training.classes),
            "test pictures": len(split.classes),
            "skipped, unreadable": len(self.data.unreadable),
            "split": self.data.split,
            "digest": self.data.digest,
        }
        composed = self._composed()
        if composed is not None:
            right = composed.logits.argmax(axis=1) == composed.classes
            facts["accuracy on test pictures before other backgrounds"] = f"{right.mean():.2%}"
        if self._strangers is not None:
            facts["pictures of no class"] = f"{len(self._strangers):,} backgrounds without an object of the classes"
        return write_report(
            folder,
            Findings(
                title=title,
                labels=self.data.labels,
                classes=split.classes,
                logits=self.said.logits[tests],
                probabilities=softmax(self.said.logits[tests], self.temperature).astype(np.float32),
                recognition=self.said.recognition[tests],
                images=split.images,
                names=[
                    f"{picture.label}/{picture.path.name}" if with_pictures else f"{picture.label} {number}"
                    for number, picture in enumerate(split.pictures, start=1)
                ],
                gradcam=gradcam,
                composed=composed,
                strangers=self._strangers,
                threshold=self.threshold,
                temperature=self.temperature,
                temperature_fitted_here=True,
                history=history,
                timings=seconds,
                data=facts,
                recipe=recipe.model_dump(mode="json", exclude={"card"}),
                limitations=recipe.card.limitations,
                filters=filters,
                with_pictures=with_pictures,
            ),
        )


def fit_threshold(known: NDArray[np.float32], strangers: NDArray[np.float32]) -> float:
    """The recognition from which on a picture counts as one of the classes.

    With pictures of something else it is where most of both are told right (Youden, "Index for rating diagnostic
    tests", 1950); without any, only one in a hundred of the held-out pictures lies below it.
    """
    if not len(strangers):
        return float(np.quantile(known, UNRECOGNISED_SHARE))
    of_a_class = np.repeat([1, 0], [len(known), len(strangers)])
    wrong, right, thresholds = roc_curve(of_a_class, np.concatenate([known, strangers]))
    return float(thresholds[1:][np.argmax((right - wrong)[1:])])
