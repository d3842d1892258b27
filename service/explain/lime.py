"""LIME: a local linear model of a class over superpixels (Ribeiro et al., "Why Should I Trust You?", 2016).

Masks are not drawn one by one: they come in blocks of an orthogonal design and its complement, in which no superpixel
is mistaken for another, nor for two together. From the answers of all classes to a few hundred of them those to
thousands more are predicted. The weighted ridge fit is `lime`'s own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from lime.lime_base import LimeBase
from numpy.typing import NDArray
from PIL import Image
from scipy.linalg import hadamard

from service.explain import surrogate
from service.explain.model import Model
from service.explain.question import Deletion, LimeExplanation, Progress, Question, Report, Superpixel, runs
from service.explain.superpixels import superpixels

Masks = NDArray[np.bool_]
Floats = NDArray[np.float64]

# As in `lime`: masks near the whole picture count for more.
KERNEL_WIDTH = 0.25
# All masks of so few superpixels are fewer than samples, and more than a line needs.
MOST_ENUMERATED = 7
# Each is told so often: with a few rows the ridge penalty of 1 would swallow the weights.
LEAST_ROWS = 200_000
CHUNK, BETWEEN_FITS, MOST_SAMPLES = 32, 64, 1024
# Weights from another draw would correlate as much with these, as with `lime` of 1,000 samples (measured with VGG16);
# or no weight is off by more than this probability.
STABLE, NEGLIGIBLE = 0.96, 1e-3
LEAST_SAMPLES = 256
# Of a model as simple as that, half as many say which superpixels matter most.
SURE, FIRST_SAMPLES = 0.985, 128
PREDICTED = 4096
DELETION_STEPS = 10
ROUNDING = 1e-6
DECIMALS = 5


class _Line(NamedTuple):
    """A local linear model, and how far it is to be trusted."""

    weights: Floats
    intercept: float
    r2: float
    error: float
    stability: float

    @property
    def settled(self) -> bool:
        return self.stability >= STABLE or self.error <= NEGLIGIBLE


def explain(model: Model, report: Report, image: Image.Image, question: Question, seed: int) -> LimeExplanation:
    """Explain `question.class_index`, or the predicted class.

    Without `question.samples` it asks, from `LEAST_SAMPLES` masks on, until another draw of as many would give the same
    weights but for a correlation of `STABLE`, or no weight is off by more than `NEGLIGIBLE`; at most `MOST_SAMPLES`.
    `FIRST_SAMPLES` do where it would be one of `SURE`.
    """
    parts = superpixels(image, model.manifest.input, count=question.superpixels, fill=question.fill)
    whole = model.predict(parts.perturbed(np.ones((1, parts.count), bool))).probabilities[0]
    index = int(whole.argmax()) if question.class_index is None else question.class_index
    outlines = [(int(inside.sum()), runs(inside)) for inside in (parts.segments == s for s in range(parts.count))]

    def ask(masks: Masks) -> NDArray[np.float32]:
        return np.array(model.predict_quickly(parts.perturbed(masks)).probabilities)

    def explanation(line: _Line, asked: int, deletion: Deletion | None) -> LimeExplanation:
        # No negative zero.
        weights = line.weights.round(DECIMALS) + 0.0
        return LimeExplanation(
            class_index=index,
            probability=round(float(whole[index]), DECIMALS),
            box=parts.box,
            width=parts.segments.shape[1],
            height=parts.segments.shape[0],
            superpixels=[
                Superpixel(weight=weight, pixels=pixels, runs=lengths)
                for weight, (pixels, lengths) in zip(weights.tolist(), outlines, strict=True)
            ],
            intercept=round(line.intercept, DECIMALS),
            r2=round(line.r2, DECIMALS),
            samples=asked,
            settled=line.settled,
            stability=round(line.stability, DECIMALS) if weights.any() else None,
            error=round(line.error, DECIMALS),
            seed=seed,
            fill=question.fill,
            deletion=deletion,
        )

    every = parts.count <= MOST_ENUMERATED and 2**parts.count <= (question.samples or MOST_SAMPLES)
    total = 2**parts.count if every else question.samples or MOST_SAMPLES
    chance = np.random.Generator(np.random.PCG64(seed))
    masks, answers = np.empty((total, parts.count), bool), np.empty((total, len(whole)), np.float32)
    done = 0
    line: _Line | None = None
    preview: LimeExplanation | None = None
    rows = iter(_every_mask(parts.count)) if every else itertools.chain.from_iterable(_blocks(parts.count, chance))
    for chunk in _chunks(itertools.islice(rows, total)):
        report(Progress(done, total, line.r2 if line else None, preview))
        new = slice(done, done + len(chunk))
        masks[new], answers[new], done = chunk, ask(chunk), new.stop
        if FIRST_SAMPLES <= done < total and done % BETWEEN_FITS == 0:
            line = _line(masks[:done], answers[:done], index, float(whole[index]), every=every)
            enough = line.settled if done >= LEAST_SAMPLES else line.stability >= SURE
            if enough and question.samples is None:
                break
            preview = explanation(line, done, None)
    else:
        line = _line(masks, answers, index, float(whole[index]), every=every)
    assert line is not None
    report(Progress(done, done, line.r2, preview))
    deletion = _deletion(line.weights, float(whole[index]), lambda masks: ask(masks)[:, index].astype(np.float64))
    return explanation(line, done, deletion)


def _chunks(rows: Iterator[NDArray[np.bool_]]) -> Iterator[Masks]:
    while chunk := list(itertools.islice(rows, CHUNK)):
        yield np.array(chunk)


def _every_mask(count: int) -> Masks:
    return np.array(list(itertools.product([True, False], repeat=count)))


def _blocks(count: int, chance: np.random.Generator) -> Iterator[Masks]:
    """Endless blocks of masks, each followed by its complement.

    A block is a Hadamard matrix with its columns drawn, turned and its rows shuffled by chance (Plackett and Burman,
    "The design of optimum multifactorial experiments", 1946), folded over (Box and Wilson, 1951).
    """
    order = 1 << count.bit_length()
    matrix = hadamard(order)
    while True:
        columns = 1 + chance.permutation(order - 1)[:count]
        half = matrix[np.ix_(chance.permutation(order), columns)] * chance.choice([-1, 1], count) > 0
        yield np.stack([half, ~half], axis=1).reshape(-1, count)


def _line(masks: Masks, probabilities: NDArray[np.float32], index: int, whole: float, *, every: bool) -> _Line:
    """Of class `index` among [N, classes]. `every`: the masks are all that there are: nothing is left to chance."""
    count, error = masks.shape[1], 0.0
    answers = probabilities[:, index].astype(np.float64)
    if every:
        rows = -(-LEAST_ROWS // len(masks))
        weights, intercept = _ridge(np.tile(masks, (rows, 1)), np.tile(answers, rows), whole)
        return _Line(weights, intercept, _r2(masks, answers, weights, intercept), error, 1.0)
    if len(masks) <= MOST_SAMPLES:
        process = surrogate.fit(_signs(masks), probabilities, index)
        # Always the same: it is no sample of the model's answers.
        blocks = _blocks(count, np.random.Generator(np.random.PCG64(0)))
        predicted = np.concatenate([next(blocks) for _ in range(PREDICTED // (2 << count.bit_length()))])
        foretold = process.probabilities(_signs(predicted))
        weights, intercept = _ridge(np.concatenate([masks, predicted]), np.concatenate([answers, foretold]), whole)
        error = float(np.sqrt((process.errors**2).mean()))
    else:
        # So many answers say it themselves, and the process' cost grows with their cube.
        weights, intercept = _ridge(masks, answers, whole)
        error = _error(answers - masks @ weights - intercept)
    signal = float(weights.var())
    stability = max(0.0, 1 - error**2 / signal) if signal > 0 else 0.0
    return _Line(weights, intercept, _r2(masks, answers, weights, intercept), error, stability)


def _error(unforeseen: Floats) -> float:
    """The standard error of a weight, from what of each answer the line does not foretell.

    What is the same for a mask and its complement moves no weight.
    """
    pairs = unforeseen[: len(unforeseen) // 2 * 2].reshape(-1, 2)
    halves = (pairs[:, 0] - pairs[:, 1]) / 2
    return float(2 * np.sqrt((halves**2).mean() / max(len(halves), 1)))


def _ridge(masks: Masks, answers: Floats, whole: float) -> tuple[Floats, float]:
    """Weights and intercept of `lime`'s fit; the whole picture comes first, as there."""
    data = np.concatenate([np.ones((1, masks.shape[1])), masks])
    targets = np.concatenate([[whole], answers])[:, None]
    intercept, pairs, _, _ = LimeBase(_nearness).explain_instance_with_data(
        data, targets, _distances(data), 0, masks.shape[1], feature_selection="none"
    )
    weights = np.empty(masks.shape[1])
    for superpixel, weight in pairs:
        weights[superpixel] = weight
    return weights, float(intercept)


def _distances(data: Floats | Masks) -> Floats:
    """The cosine distance of each mask to the whole picture."""
    return np.asarray(1 - np.sqrt(data.mean(axis=1, dtype=np.float64)))


def _nearness(distances: Floats) -> Floats:
    return np.asarray(np.sqrt(np.exp(-(distances**2) / KERNEL_WIDTH**2)))


def _r2(masks: Masks, answers: Floats, weights: Floats, intercept: float) -> float:
    """Over what the model itself answered; 0 too where its mean would say it better.

    The line is also that of answers that were foretold. Where a network is so sure that none of its own moves by more
    than foretelling can tell, they lie beside these by many times what these vary.
    """
    near = _nearness(_distances(masks))
    spread = float((near * (answers - np.average(answers, weights=near)) ** 2).sum())
    missed = float((near * (answers - masks @ weights - intercept) ** 2).sum())
    # Where answers differ by rounding alone there is nothing to fit.
    return max(0.0, 1 - missed / spread) if spread > ROUNDING**2 * len(masks) else 0.0


def _deletion(weights: Floats, whole: float, ask: Callable[[Masks], Floats]) -> Deletion:
    """Take superpixels away step by step, the most important first, and the other way round."""
    order = np.argsort(-weights, kind="stable")
    steps = np.unique(np.linspace(0, len(order), min(DELETION_STEPS, len(order)) + 1).round().astype(int))
    masks = np.ones((2, len(steps) - 1, len(order)), bool)
    for row, gone in enumerate(steps[1:]):
        masks[0, row, order[:gone]] = False
        masks[1, row, order[len(order) - gone :]] = False
    falls = np.column_stack([[whole, whole], ask(masks.reshape(-1, len(order))).reshape(2, -1)])
    # At both ends nothing, or everything, is gone either way.
    gaps = (falls[1] - falls[0])[1:-1]
    score = round(float(gaps.mean() / falls.max()), DECIMALS) if gaps.size and np.ptp(falls) > NEGLIGIBLE else None
    rounded = falls.round(DECIMALS).tolist()
    return Deletion(removed=steps.tolist(), most_first=rounded[0], least_first=rounded[1], score=score)


def _signs(masks: Masks) -> Floats:
    return np.where(masks, 1.0, -1.0)
