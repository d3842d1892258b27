from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from lime.lime_image import LimeImageExplainer
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit, softmax

from service.engines.base import Outputs
from service.explain import lime, surrogate
from service.explain.model import Model
from service.explain.question import Cancelled, LimeExplanation, Progress, Question
from service.manifest import Input

# Eight by eight fields of random colours: superpixels of a known place.
SIDE, FIELDS = 32, 8
GOAL = Input(height=SIDE, width=SIDE, resize="squash")


class Known:
    """A model of two classes that answers by a function of the picture; the rest is as in `Model`."""

    def __init__(self, probability: object) -> None:
        self._probability = probability
        self.manifest = SimpleNamespace(input=GOAL)
        self.asked = 0

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        self.asked += len(images)
        first = np.array([self._probability(image.astype(float)) for image in images], np.float32)  # type: ignore[operator]
        return Outputs(np.stack([first, 1 - first], axis=1), np.zeros((len(images), 2), np.float32), first)

    predict_quickly = predict


def fields() -> Image.Image:
    colours = np.random.default_rng(0).integers(30, 226, (FIELDS, FIELDS, 3), dtype=np.uint8)
    return Image.fromarray(colours.repeat(16, axis=0).repeat(16, axis=1))


def linear(image: NDArray[np.float64]) -> float:
    """How red the left upper quarter is."""
    return float(np.clip(image[:16, :16, 0].mean() / 255, 0, 1))


def corner_and(image: NDArray[np.float64]) -> float:
    """High only where the left upper corner differs from white and so does the right lower one."""
    one, other = (255 - image[:8, :8]).mean() / 255, (255 - image[-8:, -8:]).mean() / 255
    return float(1 / (1 + np.exp(-(12 * one * other * 4 - 3))))


def erratic(image: NDArray[np.float64]) -> float:
    """Chance, but for the same picture the same."""
    return float((np.sin(image.sum()) + 1) / 2)


def ask(model: Known, question: Question, seed: int = 1) -> LimeExplanation:
    return lime.explain(cast(Model, model), lambda progress: None, fields(), question, seed)


def test_weights_of_a_linear_model_are_its_own() -> None:
    explained = ask(Known(linear), Question(class_index=0, superpixels=FIELDS**2, fill="white", samples=256))
    segments, weights = explained.segments(), explained.weights()
    red = np.asarray(fields())[..., 0].astype(float)
    quarter = np.zeros(segments.shape, bool)
    quarter[: segments.shape[0] // 2, : segments.shape[1] // 2] = True
    # White is redder than any field: what a superpixel adds is what it takes from the red of white.
    expected = np.array(
        [((red - 255) * quarter)[segments == s].sum() / quarter.sum() / 255 for s in range(len(weights))]
    )
    assert np.corrcoef(weights, expected)[0, 1] > 0.99
    assert explained.r2 > 0.97


def test_an_interaction_puts_its_weight_on_both_corners() -> None:
    explained = ask(Known(corner_and), Question(class_index=0, superpixels=40, fill="white"))
    segments = explained.segments()
    top = set(np.argsort(-explained.weights())[:2].tolist())
    assert top == {int(segments[4, 4]), int(segments[-5, -5])}
    assert explained.settled


def test_it_agrees_with_lime_itself_of_far_more_samples() -> None:
    model = Known(corner_and)
    ours = ask(model, Question(class_index=0, superpixels=30, samples=256))
    segments = ours.segments()
    grid = np.asarray(fields().resize(segments.shape[::-1], Image.Resampling.BILINEAR))

    def classify(images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        small = [np.asarray(Image.fromarray(i).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for i in images]
        return model.predict(np.stack(small)).probabilities

    stock = LimeImageExplainer(random_state=3).explain_instance(
        grid, classify, labels=(0,), top_labels=None, num_samples=3000, segmentation_fn=lambda image: segments
    )
    weights = np.zeros(len(ours.superpixels))
    for superpixel, weight in stock.local_exp[0]:
        weights[superpixel] = weight
    assert np.corrcoef(ours.weights(), weights)[0, 1] > 0.98
    assert np.polyfit(weights, ours.weights(), 1)[0] == pytest.approx(1, abs=0.1)


def test_the_same_question_has_the_same_answer_and_another_seed_nearly() -> None:
    one, same, other = (ask(Known(corner_and), Question(class_index=0), seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert np.corrcoef(one.weights(), other.weights())[0, 1] > 0.95


def test_samples_are_as_many_as_forced() -> None:
    for samples in (16, 50, 300):
        model = Known(corner_and)
        assert ask(model, Question(class_index=0, samples=samples)).samples == samples


def test_thousands_of_samples_agree_with_hundreds() -> None:
    many = ask(Known(corner_and), Question(class_index=0, samples=4000, superpixels=20, fill="white"))
    few = ask(Known(corner_and), Question(class_index=0, samples=256, superpixels=20, fill="white"))
    assert many.samples == 4000
    assert np.corrcoef(many.weights(), few.weights())[0, 1] > 0.99
    assert many.stability > 0.99


def test_it_stops_sooner_where_the_model_is_simple() -> None:
    simple = ask(Known(linear), Question(class_index=0, fill="white"))
    noisy = ask(Known(erratic), Question(class_index=0, fill="white"))
    assert simple.settled
    assert simple.samples == lime.FIRST_SAMPLES
    assert not noisy.settled
    assert noisy.samples == lime.MOST_SAMPLES
    assert noisy.r2 < 0.2


def test_stability_tells_how_another_draw_correlates() -> None:
    draws = [ask(Known(corner_and), Question(class_index=0, samples=128), seed) for seed in range(6)]
    found = np.corrcoef([draw.weights() for draw in draws])[np.triu_indices(6, 1)].mean()
    said = np.mean([draw.stability for draw in draws])
    assert said <= found + 0.02


def test_deletion_falls_first_where_the_explanation_is_right() -> None:
    deletion = ask(Known(corner_and), Question(class_index=0, fill="white", superpixels=30)).deletion
    assert deletion is not None
    assert deletion.removed[0] == 0
    assert deletion.most_first[0] == deletion.least_first[0]
    assert deletion.most_first[-1] == deletion.least_first[-1]
    assert deletion.most_first[1] < deletion.least_first[1]
    assert deletion.score > 0.5


def flag() -> Image.Image:
    """Three plain parts."""
    image = Image.new("RGB", (90, 60), "red")
    image.paste("blue", (0, 0, 30, 60))
    image.paste("green", (30, 0, 60, 60))
    return image


def explain(image: Image.Image, probability: object, **question: object) -> LimeExplanation:
    asked = Question(class_index=0, fill="white", **question)  # type: ignore[arg-type]
    return lime.explain(cast(Model, Known(probability)), lambda progress: None, image, asked, 1)


def blue(image: NDArray[np.float64]) -> float:
    """How much of the left third is blue, and nothing else."""
    left = image[:, : SIDE // 3]
    return float(((left[..., 2] - left[..., 0]) / 255).mean() * 0.9)


def test_few_superpixels_are_tried_in_every_combination() -> None:
    explained = explain(flag(), blue)
    assert len(explained.superpixels) == 3
    assert explained.samples == 8
    assert (explained.stability, explained.error, explained.settled) == (1, 0, True)
    left = int(explained.segments()[30, 10])
    expected = [0.9 * (index == left) for index in range(3)]
    assert explained.weights() == pytest.approx(expected, abs=0.03)
    assert explained.r2 > 0.99
    assert explained.deletion is not None
    assert explained.deletion.score == pytest.approx(1, abs=0.05)


def test_fewer_samples_than_combinations_are_drawn_by_chance() -> None:
    few = explain(flag(), blue, samples=6)
    assert few.samples == 6
    assert few.stability < 1
    assert int(few.weights().argmax()) == int(few.segments()[30, 10])


@pytest.mark.parametrize("superpixels", [9, 12])
def test_as_many_samples_as_combinations_settle_nothing_by_themselves(superpixels: int) -> None:
    explained = explain(fields(), erratic, superpixels=superpixels)
    if len(explained.superpixels) > lime.MOST_ENUMERATED:
        assert not explained.settled or explained.error <= lime.NEGLIGIBLE
        assert explained.error > 0


def test_one_superpixel_has_the_whole_weight() -> None:
    explained = explain(Image.new("RGB", (1, 1), "black"), lambda image: float((255 - image).mean() / 255) * 0.9)
    assert len(explained.superpixels) == 1
    assert explained.weights() == pytest.approx([0.9], abs=0.05)
    assert explained.deletion is not None
    assert explained.deletion.score is None


def test_a_model_that_never_changes_its_mind_has_weights_of_nothing() -> None:
    explained = ask(Known(lambda image: 0.25), Question(class_index=0))
    assert not explained.weights().any()
    assert explained.intercept == pytest.approx(0.25, abs=1e-3)
    assert explained.deletion is not None
    assert explained.deletion.score is None
    assert explained.r2 == 0


def test_of_a_model_that_is_sure_whatever_it_sees_nothing_is_explained() -> None:
    explained = ask(Known(lambda image: 1 - 1e-4 * erratic(image)), Question(class_index=0))  # type: ignore[arg-type]
    assert explained.r2 == 0
    assert explained.stability is None
    assert explained.deletion is not None
    assert explained.deletion.score is None
    assert explained.deletion.most_first == pytest.approx([1] * len(explained.deletion.removed), abs=1e-3)


def test_progress_has_previews_and_may_end_it() -> None:
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if progress.done >= lime.FIRST_SAMPLES:
            raise Cancelled

    model = Known(erratic)
    with pytest.raises(Cancelled):
        lime.explain(cast(Model, model), report, fields(), Question(class_index=0, fill="white"), 1)
    assert seen[0].preview is None
    assert seen[-1].preview is not None
    assert seen[-1].preview.samples == seen[-1].done == lime.FIRST_SAMPLES
    assert model.asked <= lime.FIRST_SAMPLES + 1


@pytest.mark.parametrize("count", [8, 50, 63, 64, 130])
def test_a_block_of_masks_is_balanced_and_orthogonal(count: int) -> None:
    block = next(iter(lime._blocks(count, np.random.default_rng(1))))
    signs = np.where(block, 1, -1)
    assert (signs[0::2] == -signs[1::2]).all()
    assert not signs.sum(axis=0).any()
    assert (signs.T @ signs == len(block) * np.eye(count)).all()


def of_two(first: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([first, 1 - first], axis=1)


def test_the_process_foretells_what_it_was_not_told() -> None:
    chance = np.random.default_rng(1)
    truth = np.concatenate([[1.0, 0.9, -0.8, 0.7], chance.normal(size=26) / 20])

    def answers(signs: NDArray[np.float64]) -> NDArray[np.float64]:
        return expit(signs @ truth + signs[:, 0] * signs[:, 1] - signs[:, 1] * signs[:, 2])

    masks = np.concatenate(list(itertools.islice(lime._blocks(30, chance), 4)))
    known, unknown = np.where(masks, 1.0, -1.0), chance.choice([-1.0, 1.0], (500, 30))
    process = surrogate.fit(known, of_two(answers(known)), 0)
    line = np.linalg.lstsq(np.c_[known, np.ones(len(known))], answers(known), rcond=None)[0]
    foretold = ((process.probabilities(unknown) - answers(unknown)) ** 2).mean()
    by_line = ((np.c_[unknown, np.ones(500)] @ line - answers(unknown)) ** 2).mean()
    assert foretold < by_line / 2


def test_the_process_learns_from_what_rivals_say() -> None:
    chance = np.random.default_rng(1)
    scores = chance.normal(size=(20, 5)) / 2

    def answers(signs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(softmax(2 * signs @ scores, axis=1))

    masks = np.concatenate(list(itertools.islice(lime._blocks(20, chance), 2)))
    known, unknown = np.where(masks, 1.0, -1.0), chance.choice([-1.0, 1.0], (500, 20))
    told, truth = answers(known), answers(unknown)[:, 3]
    by_all, by_one = surrogate.fit(known, told, 3), surrogate.fit(known, of_two(told[:, 3]), 0)
    off_all, off_one = (((process.probabilities(unknown) - truth) ** 2).mean() for process in (by_all, by_one))
    assert off_all < off_one / 2


def test_of_a_thousand_classes_those_that_hardly_matter_are_one() -> None:
    chance = np.random.default_rng(1)
    scores = chance.normal(size=(20, 1000)) * np.where(np.arange(1000) < 5, 0.5, 0.1)

    def answers(signs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(softmax(signs @ scores + np.where(np.arange(1000) < 5, 5.0, 0.0), axis=1))

    masks = np.concatenate(list(itertools.islice(lime._blocks(20, chance), 4)))
    known, unknown = np.where(masks, 1.0, -1.0), chance.choice([-1.0, 1.0], (500, 20))
    for index in (2, 700):
        process = surrogate.fit(known, answers(known), index)
        truth = answers(unknown)[:, index]
        assert process.coefficients.shape == (len(known), surrogate.MOST_CLASSES + 1)
        assert np.corrcoef(process.probabilities(unknown), truth)[0, 1] > 0.95


def test_the_process_knows_how_far_it_is_off() -> None:
    truth = np.random.default_rng(1).normal(size=30) / 5

    def answers(signs: NDArray[np.float64]) -> NDArray[np.float64]:
        return expit(signs @ truth + signs[:, 0] * signs[:, 1] * signs[:, 2])

    def effects(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        chance = np.random.default_rng(seed)
        known = np.where(np.concatenate(list(itertools.islice(lime._blocks(30, chance), 3))), 1.0, -1.0)
        process = surrogate.fit(known, of_two(answers(known)), 0)
        every = chance.choice([-1.0, 1.0], (4000, 30))
        return 2 * (every * process.probabilities(every)[:, None]).mean(axis=0), process.errors

    many = np.random.default_rng(9).choice([-1.0, 1.0], (100_000, 30))
    expected = 2 * (many * answers(many)[:, None]).mean(axis=0)
    drawn = [effects(seed) for seed in range(8)]
    found = np.sqrt(np.mean([(effect - expected) ** 2 for effect, _ in drawn]))
    said = np.sqrt(np.mean([errors**2 for _, errors in drawn]))
    assert said == pytest.approx(found, rel=0.6)


def test_how_well_it_fits_is_unknown_until_it_is_fitted() -> None:
    told: list[Progress] = []
    question = Question(class_index=0, superpixels=30, samples=256)
    lime.explain(cast(Model, Known(corner_and)), told.append, fields(), question, 1)
    assert [progress.r2 is None for progress in told] == [progress.preview is None for progress in told]
    assert told[0].r2 is None
    assert told[-1].r2 is not None
