"""Calibration against figures worked by hand."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
from numpy.typing import NDArray

from training.calibration import cross_fitted_error, expected_calibration_error, fit_temperature, reliability, softmax


def alike(right: int, wrong: int, margin: float) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Logits that always say class 0, by the same margin, and true classes of which that many are 0 and 1."""
    logits = np.tile(np.array([margin, 0], np.float32), (right + wrong, 1))
    return logits, np.repeat(np.array([0, 1], np.int32), [right, wrong])


def test_softmax_divides_by_the_temperature_and_bears_large_logits():
    np.testing.assert_allclose(softmax(np.array([[log(3), 0.0]])), [[0.75, 0.25]])
    np.testing.assert_allclose(softmax(np.array([[2 * log(3), 0.0]]), 2.0), [[0.75, 0.25]])
    np.testing.assert_allclose(softmax(np.array([[5000.0, 0.0]])), [[1, 0]])


@pytest.mark.parametrize(
    ("right", "wrong", "margin", "expected"),
    [
        # The likeliest confidence is the accuracy: sigmoid(4 / T) = 4 / 5.
        pytest.param(4, 1, 4.0, 4 / log(4), id="too-sure"),
        pytest.param(4, 1, 1.0, 1 / log(4), id="not-sure-enough"),
        pytest.param(1, 1, 4.0, 10.0, id="no-better-than-chance-wants-infinity"),
        pytest.param(4, 1, 0.1, 0.25, id="would-be-sharper-still"),
        pytest.param(5, 0, 4.0, 1.0, id="every-picture-right-has-no-minimum"),
    ],
)
def test_the_temperature_is_the_one_worked_by_hand(right: int, wrong: int, margin: float, expected: float):
    assert fit_temperature(*alike(right, wrong, margin)) == pytest.approx(expected, rel=1e-6)


def test_no_temperature_near_by_is_likelier():
    chance = np.random.default_rng(1)
    classes = chance.integers(0, 5, 400).astype(np.int32)
    logits = chance.normal(0, 3, (400, 5)).astype(np.float32)
    logits[np.arange(400), classes] += 2
    found = fit_temperature(logits, classes)

    def loss(temperature: float) -> float:
        return float(-np.log(softmax(logits, temperature)[np.arange(400), classes]).mean())

    assert 1 < found < 10
    assert loss(found) < min(loss(found * 1.01), loss(found / 1.01), loss(1))


def test_the_calibration_error_is_the_one_worked_by_hand():
    confidence = np.array([0.95, 0.85, 0.85, 0.65])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    # 0.05 from right in a quarter, 0.35 in the half of which one is right, 0.35 in a quarter.
    error = expected_calibration_error(probabilities, np.array([0, 0, 1, 0]), bins=10)
    assert error == pytest.approx(0.05 / 4 + 0.35 / 2 + 0.35 / 4)


def test_bins_count_every_picture_once_and_close_above():
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [0.76, 0.24], [1.0, 0.0], [1.0000001, 0.0]])
    bins = reliability(probabilities, np.array([0, 0, 0, 0, 1]), bins=4)
    assert [(part.lower, part.upper, part.pictures) for part in bins] == [
        (0, 0.25, 0),
        (0.25, 0.5, 1),
        (0.5, 0.75, 1),
        (0.75, 1, 3),
    ]
    assert bins[0].confidence == bins[0].accuracy == 0
    assert bins[3].confidence == pytest.approx(2.76 / 3)
    assert bins[3].accuracy == pytest.approx(2 / 3)


def test_a_sure_and_right_model_has_no_calibration_error():
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0


def test_the_cross_fitted_error_is_the_one_worked_by_hand():
    # Halves of either class: 3 of 5 right, then 2 of 3. Each is measured at the confidence that the other has earned.
    logits, classes = alike(5, 3, 4.0)
    confidence = (5 * 2 / 3 + 3 * 3 / 5) / 8
    assert cross_fitted_error(logits, classes, bins=4) == pytest.approx(confidence - 5 / 8)
    # Nothing is left where a temperature is measured on what it was fitted on.
    fitted = softmax(logits, fit_temperature(logits, classes))
    assert expected_calibration_error(fitted, classes, bins=4) == pytest.approx(0, abs=1e-9)
    assert fitted.max() < 1 / (1 + exp(-4))


def test_one_picture_has_no_other_half():
    assert cross_fitted_error(*alike(1, 0, 4.0)) is None
