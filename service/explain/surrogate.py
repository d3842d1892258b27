"""What a model would answer to masks that it was not asked about: a Gaussian process over masks.

The log odds of a class are taken for a constant, plus what each superpixel adds, plus what several of them add
together: those that matter alone are the likelier to matter together. That is the product kernel of analysis of
variance (Durrande et al., "ANOVA kernels and RKHS of zero mean functions for model-based sensitivity analysis", 2013).
How much so is what makes the answers most likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular

Floats = NDArray[np.float64]

# Log odds beyond this are rounding.
SMALLEST = 1e-6
# How much superpixels do together, and how much of an answer is noise: the likeliest of these.
INTERACTIONS = (0.3, 1.0, 3.0)
NOISES = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
SEARCHED = 128
# A superpixel that seems to matter nothing may matter a twentieth of the mean.
LEAST_SHARE = 0.05
MOST_OF_ONE = 0.9


def log_odds(probabilities: Floats) -> Floats:
    """Of probabilities, at most about 14 either way."""
    clipped = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(clipped / (1 - clipped)))


def probability(odds: Floats) -> Floats:
    """The inverse of `log_odds`."""
    return np.asarray(1 / (1 + np.exp(-odds)))


@dataclass(frozen=True)
class Surrogate:
    """A process that knows the answers to some masks."""

    signs: Floats
    """[N, superpixels]: +1 where a mask keeps a superpixel, else -1."""
    slopes: Floats
    """[superpixels]: how much likeness of two answers' log odds goes when two masks differ there; see `_kernel`."""
    coefficients: Floats
    """[N]: how much each answer, weighted by its mask's likeness, moves log odds from their mean."""
    mean: float
    """Of the answers' log odds."""
    errors: Floats
    """[superpixels]: the standard error of what each adds to the probability, for what the answers leave open."""

    def probabilities(self, signs: Floats) -> Floats:
        """What it expects the model to answer: [M, superpixels] to [M]."""
        return probability(self.mean + _kernel(signs, self.signs, self.slopes) @ self.coefficients)


def fit(signs: Floats, probabilities: Floats, importance: Floats) -> Surrogate:
    """Learn the answers to masks.

    `signs`: [N, superpixels], see `Surrogate`; `probabilities`: [N], what the model answered; `importance`:
    [superpixels], >= 0, a first guess of how much each matters.
    """
    odds = log_odds(probabilities)
    mean, scale = float(odds.mean()), max(float(odds.std()), 1e-9)
    targets = (odds - mean) / scale
    share = importance / max(float(importance.sum()), 1e-12) + LEAST_SHARE / len(importance)
    share /= share.sum()
    # How they do together is plain from the first masks.
    shares, noise = max(
        ((np.minimum(strength * share, MOST_OF_ONE), noise) for strength in INTERACTIONS for noise in NOISES),
        key=lambda tried: _covariance(signs[:SEARCHED], targets[:SEARCHED], *tried).likelihood,
    )
    best = _covariance(signs, targets, shares, noise)
    inverse = cho_solve((best.lower, True), np.eye(len(signs)))
    weights = inverse @ targets
    # Of the mean over all masks of a superpixel's sign times the process, its variance given the answers: the prior's,
    # less what the answers tell.
    prior = shares / np.prod(1 + shares)
    told = prior**2 * np.einsum("ij,ik,kj->j", signs, inverse, signs, optimize=True)
    left = np.sqrt(np.maximum(prior - told, 0) * float(targets @ weights) / len(targets))
    steepness = float((probabilities * (1 - probabilities)).mean())
    return Surrogate(
        signs=signs,
        slopes=best.slopes,
        coefficients=weights * scale,
        mean=mean,
        errors=2 * steepness * scale * left,
    )


class _Covariance(NamedTuple):
    likelihood: float
    lower: Floats
    """Cholesky factor of the answers' covariance, [N, N]."""
    slopes: Floats


def _covariance(signs: Floats, targets: Floats, shares: Floats, noise: float) -> _Covariance:
    """Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, chapters 2 and 5; any overall scale."""
    # The product over superpixels of 1 + share where two masks agree, of 1 - share where not, as one exponential.
    slopes = (np.log1p(shares) - np.log1p(-shares)) / 2
    lower = np.asarray(np.linalg.cholesky(_kernel(signs, signs, slopes) + noise * np.eye(len(signs))), np.float64)
    whitened = solve_triangular(lower, targets, lower=True, check_finite=False)
    variance = max(float(whitened @ whitened) / len(targets), 1e-12)
    likelihood = -len(targets) / 2 * np.log(variance) - float(np.log(np.diag(lower)).sum())
    return _Covariance(likelihood, lower, slopes)


def _kernel(left: Floats, right: Floats, slopes: Floats) -> Floats:
    """[N, superpixels] and [M, superpixels] to [N, M]; 1 for a mask and itself."""
    return np.asarray(np.exp((left * slopes) @ right.T - slopes.sum()))
