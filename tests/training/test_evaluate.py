"""Figures against those worked by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluate import BATCH_SIZE, answer, measure, measure_recognition


def test_four_classes_have_the_figures_worked_by_hand():
    probabilities = np.array(
        [
            # a, taken for a
            [0.5, 0.2, 0.2, 0.1],
            # a, taken for b
            [0.3, 0.4, 0.2, 0.1],
            # b, taken for b
            [0.1, 0.8, 0.05, 0.05],
            # c, taken for b; c is the third
            [0.25, 0.4, 0.2, 0.15],
            # c, taken for a; c is the fourth
            [0.7, 0.1, 0.05, 0.15],
            # d, taken for d
            [0.05, 0.05, 0.1, 0.8],
            # d, taken for d
            [0.2, 0.1, 0.1, 0.6],
            # d, taken for a; d is the second
            [0.5, 0.1, 0.1, 0.3],
        ],
        np.float32,
    )
    found = measure(probabilities, np.array([0, 0, 1, 2, 2, 3, 3, 3], np.int32), ["a", "b", "c", "d"])
    assert found.images == 8
    assert found.accuracy == 4 / 8
    assert found.top3_accuracy == 7 / 8
    right = (0.5, 0.3, 0.8, 0.2, 0.05, 0.8, 0.6, 0.3)
    assert found.loss == pytest.approx(-sum(log(share) for share in right) / 8, rel=1e-6)
    figures = [(f.label, f.precision, f.recall, f.f1, f.support) for f in found.classes]
    assert figures == [
        ("a", pytest.approx(1 / 3), pytest.approx(1 / 2), pytest.approx(2 / 5), 2),
        ("b", pytest.approx(1 / 3), 1, pytest.approx(1 / 2), 1),
        # Never said: its precision is 0, not undefined.
        ("c", 0, 0, 0, 2),
        ("d", 1, pytest.approx(2 / 3), pytest.approx(4 / 5), 3),
    ]


def test_two_classes_have_the_figures_worked_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], np.float32)
    found = measure(probabilities, np.array([0, 0, 1], np.int32), ["no", "yes"])
    assert found.images == 3
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.top3_accuracy == 1
    assert found.loss == pytest.approx(-(log(0.9) + log(0.2) + log(0.6)) / 3, rel=1e-6)
    assert [(f.label, f.precision, f.recall, f.support) for f in found.classes] == [
        ("no", 1, 0.5, 2),
        ("yes", 0.5, 1, 1),
    ]


def test_three_classes_are_always_among_three():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], np.float32)
    assert measure(probabilities, np.array([0, 1, 2], np.int32), ["a", "b", "c"]).top3_accuracy == 1


def test_a_right_class_of_no_probability_costs_much_and_not_infinity():
    probabilities = np.array([[1, 0], [0, 1]], np.float32)
    found = measure(probabilities, np.array([1, 0], np.int32), ["a", "b"])
    assert found.accuracy == 0
    assert found.loss == pytest.approx(-log(np.finfo(np.float32).tiny))


def test_a_class_without_pictures_has_no_figures_and_may_still_be_said():
    probabilities = np.array([[0.9, 0.1, 0], [0.2, 0.1, 0.7], [0.3, 0.7, 0]], np.float32)
    found = measure(probabilities, np.array([0, 0, 1], np.int32), ["a", "b", "c"])
    assert [(f.label, f.precision, f.recall, f.support) for f in found.classes] == [("a", 1, 0.5, 2), ("b", 1, 1, 1)]


def test_one_picture_of_many_classes_can_be_measured():
    found = measure(np.array([[0.1, 0.2, 0.3, 0.4]], np.float32), np.array([0], np.int32), list("abcd"))
    assert (found.images, found.accuracy, found.top3_accuracy) == (1, 0, 0)


def test_a_certain_and_right_answer_costs_nothing():
    assert measure(np.eye(2, dtype=np.float32), np.array([0, 1], np.int32), ["a", "b"]).loss == 0


def test_the_calibration_error_is_the_probabilities_own_unless_another_is_given():
    probabilities, classes = np.array([[0.9, 0.1], [0.1, 0.9]], np.float32), np.array([0, 0], np.int32)
    assert measure(probabilities, classes, ["a", "b"]).calibration_error == pytest.approx(0.4)
    assert measure(probabilities, classes, ["a", "b"], calibration_error=0.0).calibration_error == 0
    assert measure(probabilities, classes, ["a", "b"]).recognition_auroc is None
    assert measure(probabilities, classes, ["a", "b"], recognition_auroc=0.75).recognition_auroc == 0.75


def test_recognition_is_the_share_of_pairs_in_the_right_order():
    # 3 > 1, 3 > 2, 2 > 1, and 2 = 2 counts half.
    known, strangers = np.array([3, 2], np.float32), np.array([1, 2], np.float32)
    assert measure_recognition(known, strangers) == pytest.approx(3.5 / 4)


def test_answers_of_all_batches_stand_in_the_pictures_order():
    def serve(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        sums = images.sum(axis=(1, 2, 3), dtype=np.float32)
        return {"probabilities": sums[:, None] / 9, "logits": sums[:, None], "recognition": sums}

    images = np.random.default_rng(1).integers(0, 256, (2 * BATCH_SIZE + 3, 2, 2, 3)).astype(np.uint8)
    asked: list[int] = []
    found = answer(serve, images, asked.append)
    np.testing.assert_array_equal(found.recognition, images.sum(axis=(1, 2, 3)))
    assert found.probabilities.shape == found.logits.shape == (2 * BATCH_SIZE + 3, 1)
    assert asked == [BATCH_SIZE, BATCH_SIZE, 3]
