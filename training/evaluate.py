"""A graph's answers to pictures and their right classes in, figures out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score, top_k_accuracy_score

from service.manifest import ClassFigures, Metrics
from training.calibration import Floats, Integers, expected_calibration_error

BATCH_SIZE = 128

Serve = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]
"""Pictures uint8 [N, H, W, 3] to the outputs of `serving_default`, by name."""


@dataclass(frozen=True)
class Answers:
    """What a graph said of N pictures."""

    probabilities: NDArray[np.float32]
    """[N, C]"""
    logits: NDArray[np.float32]
    """[N, C], before any temperature."""
    recognition: NDArray[np.float32]
    """[N]; the higher, the surer that it is one of the classes."""


def answer(serve: Serve, images: NDArray[np.uint8], on_images: Callable[[int], None] = lambda _: None) -> Answers:
    """Ask for pictures uint8 [N, H, W, 3], N >= 1, in batches; `on_images` is called with each batch's length."""
    batches = []
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE]
        batches.append(serve(batch))
        on_images(len(batch))
    return Answers(
        **{name: np.concatenate([batch[name] for batch in batches]) for name in Answers.__dataclass_fields__}
    )


def measure(
    probabilities: Floats,
    classes: Integers,
    labels: Sequence[str],
    *,
    calibration_error: float | None = None,
    recognition_auroc: float | None = None,
) -> Metrics:
    """Figures of held-out pictures: `probabilities` [N, C], `classes` [N]. A class without pictures has none.

    Give `calibration_error` where the probabilities' temperature was fitted on these very pictures: measured on the
    probabilities, as it is otherwise, it would flatter.
    """
    numbers = np.arange(len(labels))
    right = probabilities[np.arange(len(classes)), classes].astype(np.float64)
    precision, recall, f1, support = precision_recall_fscore_support(
        classes, probabilities.argmax(axis=1), labels=numbers, zero_division=0.0
    )
    return Metrics(
        images=len(classes),
        accuracy=float((probabilities.argmax(axis=1) == classes).mean()),
        top3_accuracy=_top3(probabilities, classes, numbers),
        loss=float(losses(right).mean()),
        classes=[
            ClassFigures(
                label=label,
                precision=float(precision[i]),
                recall=float(recall[i]),
                f1=float(f1[i]),
                support=int(support[i]),
            )
            for i, label in enumerate(labels)
            if support[i]
        ],
        calibration_error=(
            expected_calibration_error(probabilities, classes) if calibration_error is None else calibration_error
        ),
        recognition_auroc=recognition_auroc,
    )


def losses(right: Floats) -> Floats:
    """Cross-entropy in nats of the right class's probabilities [N]; of none at all, a large one, not infinity."""
    return np.asarray(np.abs(np.log(np.clip(right, np.finfo(np.float32).tiny, 1.0))))


def measure_recognition(known: Floats, strangers: Floats) -> float:
    """Chance that a picture of a class scores higher than one of none, 0..1 (area under the ROC curve); 0.5 = no use.

    `known` [N] and `strangers` [M]: the graph's `recognition` of pictures of the classes, and of none of them.
    """
    of_a_class = np.repeat([1, 0], [len(known), len(strangers)])
    return float(roc_auc_score(of_a_class, np.concatenate([known, strangers])))


def _top3(probabilities: Floats, classes: Integers, numbers: NDArray[np.int64]) -> float:
    if len(numbers) <= 3:
        return 1.0
    return float(top_k_accuracy_score(classes, probabilities, k=3, labels=numbers))
