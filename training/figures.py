"""Arrays of figures in, Matplotlib figures out; never through pyplot, which keeps every figure that it makes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from training.calibration import Bin, Floats, Integers
from training.history import Epoch

GREEN, GREY, RED, BLUE = "#2f7d4f", "#8a8f98", "#c0392b", "#2b6cb0"
# In inches.
SHEET_COLUMNS, SHEET_WIDTH = 8, 10.0


def learning_curves(history: Sequence[Epoch]) -> Figure:
    """Loss and accuracy by epoch, in training and on held-out pictures; a line where a new stage begins."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [epoch.epoch for epoch in history]
    for axes, name, training, held_out in (
        (left, "loss", [e.loss for e in history], [e.val_loss for e in history]),
        (right, "accuracy", [e.accuracy for e in history], [e.val_accuracy for e in history]),
    ):
        _plain(axes, "epoch", name)
        axes.plot(epochs, training, color=GREY, marker="o", markersize=3, label="training")
        axes.plot(epochs, held_out, color=GREEN, marker="o", markersize=3, label="held out")
        for before, after in itertools.pairwise(history):
            if before.stage != after.stage:
                axes.axvline(after.epoch - 0.5, color=BLUE, linewidth=1, linestyle=":")
                axes.annotate(
                    f" stage {after.stage}",
                    (after.epoch - 0.5, 1),
                    xycoords=("data", "axes fraction"),
                    va="top",
                    fontsize=8,
                    color=BLUE,
                )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend(frameon=False)
    right.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def confusion_matrix(counts: Integers, pictures: Integers, labels: Sequence[str]) -> Figure:
    """Pictures by true class (rows) and predicted class (columns), [C, C]; colour is the share of the class's [C]."""
    size = len(labels)
    side = min(3.2 + 0.42 * size, 14)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(pictures[:, None], 1)
    image = axes.imshow(shares, cmap="Greens", vmin=0, vmax=1)
    font = 9 if size <= 30 else 7
    # A label may hold dollar signs, which are no mathematics.
    axes.set_xticks(range(size), labels, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(range(size), labels, fontsize=font, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e4e6ea", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.4 else "black" if row == column else RED
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=font)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, format=PercentFormatter(1))
    bar.set_label("share of the true class")
    # Matplotlib's stubs for Python 3.10 take it for a collection.
    cast(Artist, bar.outline).set_visible(False)
    return figure


def reliability_diagram(before: Sequence[Bin], after: Sequence[Bin]) -> Figure:
    """Accuracy by confidence, without and with the temperature; below, how many pictures stand behind each bar."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
    for column, (title, bins) in enumerate((("temperature 1", before), ("as published", after))):
        upper, lower = panels[0][column], panels[1][column]
        _plain(upper, "", "accuracy")
        _plain(lower, "confidence", "pictures")
        filled = [part for part in bins if part.pictures]
        centres = [(part.lower + part.upper) / 2 for part in filled]
        width = 0.9 / len(bins)
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfect")
        upper.bar(centres, [part.accuracy for part in filled], width, color=GREEN, alpha=0.75, label="accuracy")
        gaps = [part.confidence - part.accuracy for part in filled]
        upper.bar(
            centres,
            gaps,
            width,
            [part.accuracy for part in filled],
            color=RED,
            alpha=0.25,
            label="to the mean confidence",
        )
        upper.set_title(title, fontsize=10)
        upper.set_xlim(0, 1)
        upper.set_ylim(0, 1.03)
        upper.legend(frameon=False, fontsize=8, loc="upper left")
        lower.bar(centres, [part.pictures for part in filled], width, color=GREY)
        lower.set_yscale("symlog", linthresh=1)
        lower.set_ylim(0, None)
    return figure


def recognition_histogram(known: Floats, strangers: Floats | None, threshold: float | None) -> Figure:
    """How `recognition` spreads over pictures of the classes [N] and, where there are, of none [M]."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axes = figure.subplots()
    _plain(axes, "recognition", "share of pictures")
    groups = [("of a class", known, GREEN)]
    if strangers is not None:
        groups.append(("of none", strangers, RED))
    edges = np.histogram_bin_edges(np.concatenate([scores for _, scores, _ in groups]), bins=40).tolist()
    for label, scores, colour in groups:
        axes.hist(scores, edges, weights=np.full(len(scores), 1 / len(scores)), color=colour, alpha=0.6, label=label)
    if threshold is not None:
        axes.axvline(threshold, color="black", linewidth=1, linestyle="--", label=f"threshold {threshold:.3g}")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False)
    return figure


def fold_accuracies(grouped: Sequence[float], naive: Sequence[float]) -> Figure:
    """Accuracy by fold, and the mean of each way to split as a line."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    numbers = np.arange(1, len(grouped) + 1)
    for offset, name, accuracies, colour in (
        (-0.2, "films kept together", grouped, GREEN),
        (0.2, "pictures at random (naive)", naive, GREY),
    ):
        axes.bar(numbers + offset, accuracies, 0.38, color=colour, label=name)
        axes.axhline(float(np.mean(accuracies)), color=colour, linewidth=1, linestyle="--")
    axes.set_xticks(numbers)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _plain(axes, "fold", "accuracy")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def class_changes(
    labels: Sequence[str], before: Sequence[float], after: Sequence[float], names: Sequence[str]
) -> Figure:
    """Recall by class of two versions, [C] each; a line joins the two, green where the second is better."""
    figure = Figure(figsize=(10, 1.2 + 0.28 * len(labels)), layout="constrained")
    axes = figure.subplots()
    _plain(axes, "recall", "")
    rows = np.arange(len(labels))
    for row, first, second in zip(rows, before, after, strict=True):
        axes.plot([first, second], [row, row], color=GREEN if second >= first else RED, linewidth=2, zorder=1)
    axes.scatter(before, rows, color=GREY, s=42, label=names[0], zorder=2)
    axes.scatter(after, rows, color=BLUE, s=18, label=names[1], zorder=3)
    axes.set_yticks(rows, labels, fontsize=9, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(min(0.9, *before, *after) - 0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="x", color="#e4e6ea", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def sheet(pictures: NDArray[np.uint8], titles: Sequence[str]) -> Figure:
    """Pictures [C, H, W, 3] in rows of `SHEET_COLUMNS`, a title above each; their pixels stay squares."""
    rows = -(-len(pictures) // SHEET_COLUMNS)
    height, width = pictures.shape[1:3]
    cell = SHEET_WIDTH / SHEET_COLUMNS
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(SHEET_WIDTH, rows * (cell * height / width + 0.25)), layout=tight)
    panels = figure.subplots(rows, SHEET_COLUMNS, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, picture, title in zip(panels.flat, pictures, titles, strict=False):
        axes.imshow(picture, interpolation="nearest" if max(height, width) <= 64 else "antialiased")
        axes.set_title(title if len(title) <= 18 else title[:17] + "…", fontsize=8, pad=2, parse_math=False)
    return figure


def _plain(axes: Axes, x: str, y: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
