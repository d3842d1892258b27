"""What a model would answer to masks that it was not asked about: a Gaussian process over masks.

The score of each class is taken for a constant, plus what each superpixel adds, plus what several of them add
together: those that matter alone are the likelier to matter together. That is the product kernel of analysis of
variance (Durrande et al., "ANOVA kernels and RKHS of zero mean functions for model-based sensitivity analysis", 2013).
How much so is what makes the answers most likely. A class's probability is the softmax of all scores: each of them is
smoother than the probability's own log odds, which bend wherever the strongest rival changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.special import softmax

Floats = NDArray[np.float64]

# Probabilities below this are rounding.
SMALLEST = 1e-6
# So many classes have a score of their own, the others one together.
MOST_CLASSES = 16
# How much superpixels do together, and how much of an answer is noise: the likeliest of these.
INTERACTIONS = (0.3, 1.0, 3.0)
NOISES = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
SEARCHED = 128
# A superpixel that seems to matter nothing may matter a twentieth of the mean.
LEAST_SHARE = 0.05
MOST_OF_ONE = 0.9


@dataclass(frozen=True)
class Surrogate:
    """A process that knows the answers to some masks."""

    signs: Floats
    """[N, superpixels]: +1 where a mask keeps a superpixel, else -1."""
    slopes: Floats
    """[superpixels]: how much likeness of two answers' scores goes when two masks differ there; see `_kernel`."""
    coefficients: Floats
    """[N, scores]: how much each answer, weighted by its mask's likeness, moves scores from their mean."""
    means: Floats
    """[scores]: of the answers; the class that is explained comes first."""
    errors: Floats
    """[superpixels]: the standard error of what each adds to the probability, for what the answers leave open."""

    def probabilities(self, signs: Floats) -> Floats:
        """What it expects the model to answer: [M, superpixels] to [M]."""
        scores = self.means + _kernel(signs, self.signs, self.slopes) @ self.coefficients
        return np.asarray(softmax(scores, axis=1)[:, 0])


def fit(signs: Floats, probabilities: NDArray[np.floating], index: int) -> Surrogate:
    """Learn the answers to masks.

    `signs`: [N, superpixels], see `Surrogate`; `probabilities`: [N, classes], what the model answered; `index`: of the
    class that is explained.
    """
    told = np.clip(_gathered(probabilities, index), SMALLEST, 1 - SMALLEST)
    scores = np.log(told)
    scores -= scores.mean(axis=1, keepdims=True)
    means, scales = scores.mean(axis=0), np.maximum(scores.std(axis=0), 1e-9)
    targets = (scores - means) / scales
    steepness = (told * (1 - told)).mean(axis=0)
    # Scores that hardly move a probability need not be foretold as well.
    heeded = steepness / steepness.sum()
    effects = np.linalg.solve(signs.T @ signs + np.eye(signs.shape[1]), signs.T @ targets) * scales
    importance = np.sqrt(effects**2 @ heeded)
    share = importance / max(float(importance.sum()), 1e-12) + LEAST_SHARE / len(importance)
    share /= share.sum()
    # How they do together is plain from the first masks.
    shares, noise = max(
        ((np.minimum(strength * share, MOST_OF_ONE), noise) for strength in INTERACTIONS for noise in NOISES),
        key=lambda tried: _covariance(signs[:SEARCHED], targets[:SEARCHED], heeded, *tried).likelihood,
    )
    best = _covariance(signs, targets, heeded, shares, noise)
    inverse = cho_solve((best.lower, True), np.eye(len(signs)))
    odds = np.log(told[:, 0] / (1 - told[:, 0]))
    odds -= odds.mean()
    # Of the mean over all masks of a superpixel's sign times the process, its variance given the answers: the prior's,
    # less what the answers tell.
    prior = shares / np.prod(1 + shares)
    known = prior**2 * np.einsum("ij,ik,kj->j", signs, inverse, signs, optimize=True)
    left = np.sqrt(np.maximum(prior - known, 0) * float(odds @ inverse @ odds) / len(odds))
    return Surrogate(
        signs=signs,
        slopes=best.slopes,
        coefficients=inverse @ targets * scales,
        means=means,
        errors=2 * float(steepness[0]) * left,
    )


def _gathered(probabilities: NDArray[np.floating], index: int) -> Floats:
    """The class that is explained, its strongest rivals, and the others' sum, where there are others."""
    rivals = np.argsort(-probabilities.mean(axis=0), kind="stable")
    rivals = rivals[rivals != index]
    own, others = rivals[: MOST_CLASSES - 1], rivals[MOST_CLASSES - 1 :]
    columns = [probabilities[:, [index, *own]]]
    if len(others):
        columns.append(probabilities[:, others].sum(axis=1, keepdims=True))
    return np.concatenate(columns, axis=1, dtype=np.float64)


class _Covariance(NamedTuple):
    likelihood: float
    lower: Floats
    """Cholesky factor of the answers' covariance, [N, N]."""
    slopes: Floats


def _covariance(signs: Floats, targets: Floats, heeded: Floats, shares: Floats, noise: float) -> _Covariance:
    """Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, chapters 2 and 5; any overall scale.

    `targets`: [N, scores], of which the likelihood counts each as much as it is `heeded`.
    """
    # The product over superpixels of 1 + share where two masks agree, of 1 - share where not, as one exponential.
    slopes = (np.log1p(shares) - np.log1p(-shares)) / 2
    lower = np.asarray(np.linalg.cholesky(_kernel(signs, signs, slopes) + noise * np.eye(len(signs))), np.float64)
    whitened = solve_triangular(lower, targets, lower=True, check_finite=False)
    variances = np.maximum((whitened**2).mean(axis=0), 1e-12)
    likelihood = -len(targets) / 2 * float(np.log(variances) @ heeded) - float(np.log(np.diag(lower)).sum())
    return _Covariance(likelihood, lower, slopes)


def _kernel(left: Floats, right: Floats, slopes: Floats) -> Floats:
    """[N, superpixels] and [M, superpixels] to [N, M]; 1 for a mask and itself."""
    return np.asarray(np.exp((left * slopes) @ right.T - slopes.sum()))
