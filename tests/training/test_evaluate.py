"""Figures against those worked by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from training.evaluate import measure


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
