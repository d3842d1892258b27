"""Probabilities and right classes in, figures out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support, top_k_accuracy_score

from service.manifest import ClassFigures, Metrics


def measure(probabilities: NDArray[np.float32], classes: NDArray[np.int32], labels: Sequence[str]) -> Metrics:
    """Figures of held-out pictures: `probabilities` [N, C], `classes` [N]."""
    numbers = np.arange(len(labels))
    right = probabilities[np.arange(len(classes)), classes].astype(np.float64)
    precision, recall, f1, support = precision_recall_fscore_support(
        classes, probabilities.argmax(axis=1), labels=numbers, zero_division=0.0
    )
    return Metrics(
        images=len(classes),
        accuracy=float((probabilities.argmax(axis=1) == classes).mean()),
        top3_accuracy=_top3(probabilities, classes, numbers),
        loss=float(-np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean()),
        classes=[
            ClassFigures(
                label=label,
                precision=float(precision[i]),
                recall=float(recall[i]),
                f1=float(f1[i]),
                support=int(support[i]),
            )
            for i, label in enumerate(labels)
        ],
    )


def _top3(probabilities: NDArray[np.float32], classes: NDArray[np.int32], numbers: NDArray[np.int64]) -> float:
    if len(numbers) <= 3:
        return 1.0
    return float(top_k_accuracy_score(classes, probabilities, k=3, labels=numbers))
