"""Logits and right classes in, how far probabilities can be believed out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

SHARPEST, FLATTEST = 0.25, 10.0
BINS = 15

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


@dataclass(frozen=True)
class Bin:
    """Pictures whose highest probability lies in one interval."""

    lower: float
    """The interval is open here, so 0 belongs to none."""
    upper: float
    """And closed here."""
    pictures: int
    confidence: float
    """Their mean highest probability, 0..1; 0 where there is no picture."""
    accuracy: float
    """Share whose most probable class is right; 0 where there is no picture."""


def softmax(logits: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities [N, C] of logits [N, C] divided by a temperature > 0."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(logits: Floats, classes: Integers) -> float:
    """The temperature, 0.25 to 10, that gives these pictures the least negative log likelihood.

    Guo et al., "On Calibration of Modern Neural Networks", 2017. `logits`: [N, C] before any scaling; `classes`: [N].
    In 1 / T the likelihood's logarithm is concave, so its slope has one root at most; log T is searched for it.
    Where every picture is right there is none: sharper is always likelier, the data say nothing of how sure to be, and
    the answer is 1, which leaves the probabilities as they were.
    """

    def slope(log_temperature: float) -> float:
        """Of the negative log likelihood in 1 / T, in units of logits."""
        probabilities = softmax(logits, np.exp(log_temperature))
        return float(((probabilities * logits).sum(axis=1) - logits[np.arange(len(classes)), classes]).mean())

    if (logits.argmax(axis=1) == classes).all():
        return 1.0
    if slope(np.log(SHARPEST)) <= 0:
        return SHARPEST
    if slope(np.log(FLATTEST)) >= 0:
        return FLATTEST
    return float(np.exp(brentq(slope, np.log(SHARPEST), np.log(FLATTEST))))


def reliability(probabilities: Floats, classes: Integers, bins: int = BINS) -> list[Bin]:
    """Confidence beside accuracy in `bins` equal intervals of the highest probability [N, C]; `classes`: [N]."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == classes
    edges = np.linspace(0, 1, bins + 1)
    # A softmax in float32 may exceed 1 by rounding.
    place = np.clip(np.digitize(confidence, edges, right=True), 1, bins) - 1
    return [
        Bin(
            lower=float(edges[number]),
            upper=float(edges[number + 1]),
            pictures=int(inside.sum()),
            confidence=float(min(confidence[inside].mean(), 1)) if inside.any() else 0.0,
            accuracy=float(right[inside].mean()) if inside.any() else 0.0,
        )
        for number in range(bins)
        for inside in [place == number]
    ]


def expected_calibration_error(probabilities: Floats, classes: Integers, bins: int = BINS) -> float:
    """Mean distance of confidence from accuracy, 0..1, weighed by each bin's pictures (Guo et al., 2017)."""
    return sum(
        part.pictures / len(classes) * abs(part.accuracy - part.confidence)
        for part in reliability(probabilities, classes, bins)
    )


def cross_fitted_error(
    logits: Floats, classes: Integers, second: NDArray[np.bool_] | None = None, bins: int = BINS
) -> float | None:
    """The calibration error that scaling leaves on pictures that its temperature has not seen.

    A temperature fitted and measured on the same pictures flatters itself. So it is fitted on one half and measured on
    the other, both ways, and the error is that of both together. `second` [N] tells which pictures make the second
    half; unset, `second_half` does. None where a half has no picture.
    """
    second = second_half(classes) if second is None else second
    if second.all() or not second.any():
        return None
    scaled = np.empty(logits.shape)
    for fitted, measured in ((second, ~second), (~second, second)):
        scaled[measured] = softmax(logits[measured], fit_temperature(logits[fitted], classes[fitted]))
    return expected_calibration_error(scaled, classes, bins)


def second_half(classes: Integers) -> NDArray[np.bool_]:
    """[N], the second part of every class in the order given: neighbouring frames of a film mostly stay together."""
    second = np.zeros(len(classes), bool)
    for number in np.unique(classes):
        members = np.flatnonzero(classes == number)
        second[members[(len(members) + 1) // 2 :]] = True
    return second
