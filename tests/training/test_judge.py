"""Temperature, threshold and figures of held-out pictures, against those worked by hand."""

from __future__ import annotations

from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data import DataSet, Picture, Split
from training.evaluate import Answers
from training.judge import Judgement, fit_threshold
from training.recipe import read_recipe
from training.report import Report
from training.train import NONE_OF_THE_CLASSES, Examples


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_without_strangers_one_in_a_hundred_lies_below_the_threshold():
    known = np.arange(101, dtype=np.float32)
    assert fit_threshold(np.random.default_rng(1).permutation(known), floats()) == 1


@pytest.mark.parametrize(
    ("known", "strangers", "expected"),
    [
        pytest.param(floats(5, 6, 7), floats(1, 2), 5, id="apart"),
        # From 4 on: all known and one of three strangers wrong. From 6 on: half the known, no stranger.
        pytest.param(floats(4, 5, 6, 7), floats(1, 2, 5), 4, id="overlapping"),
        pytest.param(floats(1, 8, 9), floats(0, 2, 3, 4), 8, id="one-known-given-up"),
        pytest.param(floats(2), floats(1), 2, id="one-of-each"),
    ],
)
def test_with_strangers_the_threshold_tells_most_of_both_right(
    known: np.ndarray, strangers: np.ndarray, expected: float
):
    assert fit_threshold(known, strangers) == expected


# Two test pictures, one composite of class 0, one of class 1, and two strangers.
LOGITS = np.array([[3, 0], [0, 1], [2, 0], [1, 0], [0.5, 0.4], [9, 0]], np.float32)
CLASSES = np.array([0, 1, 0, 1, NONE_OF_THE_CLASSES, NONE_OF_THE_CLASSES], np.int32)
RECOGNITION = floats(6, 5, 4, 3, 3.5, 1)


@pytest.fixture(scope="module")
def data() -> DataSet:
    def split(count: int) -> Split:
        pictures = [Picture(Path(f"{number}.png"), "ab"[number % 2], str(number), 0) for number in range(count)]
        return Split(np.zeros((count, 4, 4, 3), np.uint8), np.arange(count, dtype=np.int32) % 2, pictures)

    return DataSet(["a", "b"], split(4), split(2), {}, "sha256:0", "by hand")


def judged(data: DataSet, count: int) -> Judgement:
    """Of the first so many held-out pictures."""
    held_out = Examples.all_of(np.zeros((count, 4, 4, 3), np.uint8), CLASSES[:count])
    said = Answers(np.full((count, 2), 0.5, np.float32), LOGITS[:count], RECOGNITION[:count])
    return Judgement.of(data, held_out, said)


def reported(judgement: Judgement, folder: Path) -> Report:
    def gradcam(images: NDArray[np.uint8], class_index: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.ones((len(images), 2, 2), np.float32)

    return judgement.report(folder, "ab/1", read_recipe("fruit_cnn"), gradcam, [], {}, with_pictures=False)


def test_the_temperature_is_that_of_the_pictures_with_a_class(data: DataSet):
    found = judged(data, 6).temperature

    def slope(temperature: float) -> float:
        """Of the likelihood of the four margins, by hand: three right by 3, 1 and 2, one wrong by 1."""
        return sum(margin / (1 + exp(margin / temperature)) for margin in (3, 1, 2, -1))

    assert slope(found) == pytest.approx(0, abs=1e-6)
    # The strangers, one of them very sure, change nothing.
    assert found == judged(data, 4).temperature


def test_the_figures_are_of_the_test_pictures_alone(data: DataSet, tmp_path: Path):
    judgement = judged(data, 6)
    metrics = reported(judgement, tmp_path).metrics
    assert (metrics.images, metrics.accuracy, [figures.support for figures in metrics.classes]) == (2, 1, [1, 1])
    expected = sum(log(1 + exp(-margin / judgement.temperature)) for margin in (3, 1)) / 2
    assert metrics.loss == pytest.approx(expected, rel=1e-5)


def test_recognition_is_measured_against_the_strangers(data: DataSet, tmp_path: Path):
    judgement = judged(data, 6)
    report = reported(judgement, tmp_path)
    # Of eight pairs of a known and a stranger, one is the wrong way round.
    assert report.metrics.recognition_auroc == report.recognition.auroc == 7 / 8
    # From 4 on three of four known count, and no stranger.
    assert judgement.threshold == 4


def test_a_report_without_pictures_has_no_names_of_files_either(data: DataSet, tmp_path: Path):
    report = reported(judged(data, 6), tmp_path)
    assert [loss.name for loss in report.losses] == ["b 2", "a 1"]
    assert [(loss.picture, loss.overlay) for loss in report.losses] == [(None, None)] * 2
    assert not list(tmp_path.glob("loss-*"))
    assert "loss-" not in (tmp_path / "index.html").read_text()


def test_without_strangers_recognition_has_no_figure(data: DataSet, tmp_path: Path):
    judgement = judged(data, 4)
    assert reported(judgement, tmp_path).metrics.recognition_auroc is None
    assert judgement.threshold == pytest.approx(3.03)
