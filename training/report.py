"""What was found on held-out pictures in, a folder with one page, its pictures and all of it as JSON out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from service.manifest import Metrics
from training import figures
from training.calibration import (
    Bin,
    cross_fitted_error,
    expected_calibration_error,
    reliability,
    second_half,
    softmax,
)
from training.evaluate import losses, measure, measure_recognition
from training.history import Epoch
from training.maximise import Maximised
from training.pages import make_folder, write_figure, write_page
from training.sheets import Sheet, write_sheets
from training.thumbnails import write_overlay, write_thumbnail
from training.versions import Gradcam

DOCUMENT, PAGE, CONFUSION = "report.json", "index.html", "confusion.png"
SHOWN_LOSSES = SHOWN_PAIRS = 12
# Of more classes than the first only the most confused are drawn, as many as the second.
WHOLE_MATRIX, PART_OF_MATRIX = 60, 40


@dataclass(frozen=True)
class Composed:
    """What a model said of K composites, each made of one of the held-out pictures, in their order."""

    classes: NDArray[np.int32]
    """[K]"""
    logits: NDArray[np.float32]
    """[K, C], before any temperature."""
    recognition: NDArray[np.float32]
    """[K]"""


@dataclass(frozen=True)
class Findings:
    """What a model said of N held-out pictures of C classes, and what is known of how it came to be."""

    title: str
    """Such as `fruit_cnn/1`."""
    labels: list[str]
    """[C]"""
    classes: NDArray[np.int32]
    """[N], the right ones."""
    logits: NDArray[np.float32]
    """[N, C], before any temperature."""
    probabilities: NDArray[np.float32]
    """[N, C], as the model gives them: of the logits divided by `temperature`."""
    recognition: NDArray[np.float32]
    """[N]"""
    images: NDArray[np.uint8]
    """[N, H, W, 3], the model's input."""
    names: Sequence[str]
    """[N], where the pictures lie, relative to their folder."""
    gradcam: Gradcam
    composed: Composed | None = None
    """Calibration and recognition are measured on these too, where there are any."""
    strangers: NDArray[np.float32] | None = None
    """[M], `recognition` of pictures of no class; None where none were shown."""
    threshold: float | None = None
    """Of recognition."""
    temperature: float = 1.0
    temperature_fitted_here: bool = False
    """Whether on these very pictures."""
    history: Sequence[Epoch] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    data: Mapping[str, str | int] = field(default_factory=dict)
    """What is known of the pictures, by name: counts, digest, split."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    limitations: str = ""
    filters: Sequence[Maximised] = ()
    """What channels look for."""
    with_pictures: bool = True
    """Whether the report may hold pictures of the data set, which pass on with it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Confusion(_Part):
    """Pictures by true class (rows) and predicted class (columns)."""

    labels: list[str] = Field(description="Of all classes, or of the most confused where there are too many.")
    counts: list[list[int]]
    pictures: list[int] = Field(description="Of each true class, also those taken for a class that is not shown.")


class Pair(_Part):
    """One class taken for another."""

    true: str
    predicted: str
    count: int = Field(ge=1)
    share: float = Field(gt=0, le=1, description="Of the true class's pictures.")


class Loss(_Part):
    """A held-out picture and what the model made of it."""

    name: str
    true: str
    predicted: str
    probability: float = Field(description="Of the predicted class.")
    true_probability: float
    loss: float = Field(ge=0, description="In nats.")
    picture: str | None = Field(description="PNG of the model's input, beside the page; null for a report without.")
    overlay: str | None = Field(description="PNG of the same with the Grad-CAM of the predicted class.")


class Calibration(_Part):
    """How far probabilities can be believed: expected calibration errors of 15 bins (Guo et al., 2017)."""

    temperature: float = Field(gt=0)
    error_before: float = Field(description="At temperature 1.")
    error: float = Field(description="Of the probabilities as published.")
    error_cross_fitted: float | None = Field(
        description="Of a temperature fitted on one half and measured on the other, both ways; null for one picture."
    )
    fitted_here: bool = Field(
        description="Whether the temperature was fitted on these pictures: `error` flatters then."
    )
    bins_before: list[Bin]
    bins: list[Bin]


class Recognition(_Part):
    """How well the classes are told from other pictures."""

    threshold: float | None
    recognised: float | None = Field(description="Share of the held-out pictures at or above the threshold.")
    strangers: int = Field(description="Pictures of no class.")
    strangers_recognised: float | None = Field(
        description="Share of them at or above the threshold: the fewer, the better."
    )
    auroc: float | None


class Report(_Part):
    """All that the page shows."""

    title: str
    metrics: Metrics
    confusion: Confusion
    confused_pairs: list[Pair]
    losses: list[Loss]
    calibration: Calibration
    recognition: Recognition
    history: list[Epoch]
    timings: dict[str, float] = Field(description="Seconds by stage.")
    data: dict[str, str | int]
    recipe: dict[str, Any]
    limitations: str
    filters: list[Sheet] = Field(default=[], description="What its filters look for, by layer.")


def write_report(folder: Path, findings: Findings) -> Report:
    """Write `report.json`, `index.html` and its PNGs into `folder`, which is made where there is none.

    The page refers to its pictures by name alone, holds no script and asks no other host for anything.

    Raises:
        TrainingError: the folder cannot be written.
    """
    make_folder(folder)
    report = _summarise(findings).model_copy(update={"filters": write_sheets(folder, findings.filters)})
    for name, figure in _figures(findings, report):
        write_figure(folder / name, figure)
    _write_losses(folder, findings, report.losses)
    write_document(folder, report, small=is_small(*findings.images.shape[1:3]))
    return report


def write_document(folder: Path, report: Report, *, small: bool) -> None:
    """Write `report.json` and `index.html`, whose pictures lie beside them; `small` pictures show their pixels."""
    (folder / DOCUMENT).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    write_page(folder / PAGE, "report.html", report=report, recipe=list(_flat(report.recipe)), small=small)


def is_small(height: int, width: int) -> bool:
    """Whether an input is so small that a page shows its pixels better than a blur."""
    return max(height, width) <= 64


def _summarise(findings: Findings) -> Report:
    counts = _count(findings)
    calibration = _calibration(findings)
    recognition = _recognition(findings)
    auroc = None if findings.strangers is None else measure_recognition(recognition, findings.strangers)
    return Report(
        title=findings.title,
        metrics=measure(
            findings.probabilities,
            findings.classes,
            findings.labels,
            calibration_error=calibration.error_cross_fitted if findings.temperature_fitted_here else calibration.error,
            recognition_auroc=auroc,
        ),
        confusion=_confusion(counts, findings.labels),
        confused_pairs=_confused_pairs(counts, findings.labels),
        losses=_losses(findings),
        calibration=calibration,
        recognition=Recognition(
            threshold=findings.threshold,
            recognised=_share_recognised(recognition, findings.threshold),
            strangers=0 if findings.strangers is None else len(findings.strangers),
            strangers_recognised=_share_recognised(findings.strangers, findings.threshold),
            auroc=auroc,
        ),
        history=list(findings.history),
        timings=dict(findings.timings),
        data=dict(findings.data),
        recipe=dict(findings.recipe),
        limitations=findings.limitations,
    )


def _count(findings: Findings) -> NDArray[np.int64]:
    counts = np.zeros((len(findings.labels), len(findings.labels)), np.int64)
    np.add.at(counts, (findings.classes, findings.probabilities.argmax(axis=1)), 1)
    return counts


def _confusion(counts: NDArray[np.int64], labels: Sequence[str]) -> Confusion:
    shown = list(range(len(labels)))
    if len(labels) > WHOLE_MATRIX:
        most = dict.fromkeys(number for pair in _most_confused(counts).tolist() for number in pair)
        shown = sorted(list(most)[:PART_OF_MATRIX])
    return Confusion(
        labels=[labels[i] for i in shown],
        counts=counts[np.ix_(shown, shown)].tolist(),
        pictures=counts[shown].sum(axis=1).tolist(),
    )


def _confused_pairs(counts: NDArray[np.int64], labels: Sequence[str]) -> list[Pair]:
    return [
        Pair(true=labels[t], predicted=labels[p], count=int(counts[t, p]), share=float(counts[t, p] / counts[t].sum()))
        for t, p in _most_confused(counts)[:SHOWN_PAIRS].tolist()
    ]


def _most_confused(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of true and predicted class that differ, [M, 2], those of the most pictures first."""
    wrong = counts - np.diag(np.diag(counts))
    pairs = np.argwhere(wrong)
    return pairs[np.argsort(-wrong[tuple(pairs.T)], kind="stable")]


def _losses(findings: Findings) -> list[Loss]:
    right = findings.probabilities[np.arange(len(findings.classes)), findings.classes]
    loss = losses(right)
    predicted = findings.probabilities.argmax(axis=1)
    return [
        Loss(
            name=findings.names[int(i)],
            true=findings.labels[int(findings.classes[i])],
            predicted=findings.labels[int(predicted[i])],
            probability=float(findings.probabilities[i, predicted[i]]),
            true_probability=float(right[i]),
            loss=float(loss[i]),
            picture=f"loss-{place:02}.png" if findings.with_pictures else None,
            overlay=f"loss-{place:02}-gradcam.png" if findings.with_pictures else None,
        )
        for place, i in enumerate(_by_loss(findings), start=1)
    ]


def _by_loss(findings: Findings) -> NDArray[np.int64]:
    right = findings.probabilities[np.arange(len(findings.classes)), findings.classes]
    return np.argsort(right, kind="stable")[:SHOWN_LOSSES]


def _write_losses(folder: Path, findings: Findings, shown: Sequence[Loss]) -> None:
    worst = _by_loss(findings)
    images = findings.images[worst]
    heatmaps = findings.gradcam(images, findings.probabilities[worst].argmax(axis=1).astype(np.int32))
    for image, heatmap, loss in zip(images, heatmaps, shown, strict=True):
        if loss.picture and loss.overlay:
            write_thumbnail(folder / loss.picture, image)
            write_overlay(folder / loss.overlay, image, heatmap)


def _recognition(findings: Findings) -> NDArray[np.float32]:
    composed = findings.composed
    return findings.recognition if composed is None else np.concatenate([findings.recognition, composed.recognition])


def _calibration(findings: Findings) -> Calibration:
    logits, classes, second = findings.logits, findings.classes, second_half(findings.classes)
    if findings.composed is not None:
        # A picture and its composites are in the same half.
        logits = np.concatenate([logits, findings.composed.logits])
        classes = np.concatenate([classes, findings.composed.classes])
        second = np.concatenate([second, second_half(findings.composed.classes)])
    before, after = softmax(logits), softmax(logits, findings.temperature)
    return Calibration(
        temperature=findings.temperature,
        error_before=expected_calibration_error(before, classes),
        error=expected_calibration_error(after, classes),
        error_cross_fitted=cross_fitted_error(logits, classes, second),
        fitted_here=findings.temperature_fitted_here,
        bins_before=reliability(before, classes),
        bins=reliability(after, classes),
    )


def _share_recognised(recognition: NDArray[np.float32] | None, threshold: float | None) -> float | None:
    return None if recognition is None or threshold is None else float((recognition >= threshold).mean())


def _figures(findings: Findings, report: Report) -> Iterator[tuple[str, Figure]]:
    if report.history:
        yield "learning-curves.png", figures.learning_curves(report.history)
    if report.confusion.labels:
        yield (
            CONFUSION,
            figures.confusion_matrix(
                np.array(report.confusion.counts), np.array(report.confusion.pictures), report.confusion.labels
            ),
        )
    yield "reliability.png", figures.reliability_diagram(report.calibration.bins_before, report.calibration.bins)
    yield (
        "recognition.png",
        figures.recognition_histogram(findings.recognition, findings.strangers, findings.threshold),
    )


def _flat(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Leaves of nested tables and lists, each by its dotted key."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value, 1) if isinstance(value, list) else None
    if items is None:
        yield key, value
    else:
        for name, item in items:
            yield from _flat(item, f"{key}.{name}" if key else str(name))
