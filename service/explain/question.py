"""What can be asked of a model about a picture, and what it answers: numbers, not yet pictures."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from service.choices import HeatMethod, Method
from service.errors import UnknownLabel
from service.manifest import Manifest

Fill = Literal["mean", "grey", "white"]

MIN_SAMPLES, MAX_SAMPLES = 16, 10_000
MIN_SUPERPIXELS, MAX_SUPERPIXELS = 2, 200
NEAR_LABELS = 5


class Question(NamedTuple):
    """Everything that decides an explanation, but for the picture and the model."""

    method: Method = "lime"
    class_index: int | None = None
    """None: the class that the model predicts."""
    samples: int | None = None
    """Of LIME: perturbed pictures; None: as many as its ranking needs to settle."""
    seed: int | None = None
    """Of LIME: None: from the picture."""
    superpixels: int | None = None
    """Of LIME: about how many; None: by the picture."""
    fill: Fill = "mean"
    """Of LIME: what stands where a superpixel is taken away."""


class Frozen(BaseModel):
    """Plain data."""

    model_config = ConfigDict(frozen=True)


class Box(Frozen):
    """A part of the picture, in shares of its width and height; beyond 0 and 1 where white was set around it."""

    left: float
    top: float
    right: float
    bottom: float


class Superpixel(Frozen):
    """A part of the picture, and what it adds to the class's probability."""

    weight: float = Field(description="What its presence adds to the probability, by the local linear model.")
    pixels: int = Field(ge=1, description="How many of the grid's.")
    runs: list[int] = Field(
        description="Its outline as run lengths over the grid, row by row: outside, inside, outside, ..."
    )


class Deletion(Frozen):
    """How fast the probability falls when superpixels go, the most important first: the measure of trust.

    Samek et al., "Evaluating the visualization of what a deep neural network has learned", 2017.
    """

    removed: list[int] = Field(description="How many superpixels are gone, by step.")
    most_first: list[float] = Field(description="The probability then, the greatest weights gone first.")
    least_first: list[float] = Field(description="The same, the least weights gone first.")
    score: float | None = Field(
        description="The mean gap between the two, both ends left out, as a share of the highest probability among "
        "them: 1 = the first superpixels are all that matters, 0 = their order says nothing, below 0 = it is wrong. "
        "Null where there is but one superpixel, or the probability never changes."
    )


class LimeExplanation(Frozen):
    """A local linear model over superpixels (Ribeiro et al., "Why Should I Trust You?", 2016)."""

    method: Literal["lime"] = "lime"
    class_index: int = Field(ge=0)
    probability: float = Field(ge=0, le=1, description="Of the class, for the whole picture.")
    box: Box
    width: int = Field(ge=1, description="Columns of the grid over `box` that superpixels are drawn on.")
    height: int = Field(ge=1, description="Its rows.")
    superpixels: list[Superpixel]
    intercept: float = Field(description="What the local linear model says of a picture without any superpixel.")
    r2: float = Field(
        ge=0,
        le=1,
        description="How much of the answers' ups and downs the local linear model accounts for: 1 = all, 0 = none, or "
        "they hardly vary.",
    )
    samples: int = Field(ge=1, description="Perturbed pictures that the model was asked about.")
    settled: bool = Field(description="Whether the ranking had settled, or samples were at an end.")
    stability: float | None = Field(
        ge=0,
        le=1,
        description="How alike the weights from another draw of as many samples would be: their correlation; null "
        "where no superpixel adds anything.",
    )
    error: float = Field(ge=0, description="The standard error of a weight.")
    seed: int = Field(ge=0)
    fill: Fill
    deletion: Deletion | None = Field(description="Null in a preview.")

    def segments(self) -> NDArray[np.int32]:
        """The superpixel of each pixel of the grid, int32 [height, width]."""
        flat = np.zeros(self.width * self.height, np.int32)
        for index, superpixel in enumerate(self.superpixels):
            ends = np.cumsum(superpixel.runs)
            for start, end in zip(ends[0::2], ends[1::2], strict=False):
                flat[start:end] = index
        return flat.reshape(self.height, self.width)

    def weights(self) -> NDArray[np.float64]:
        """float64 [superpixels]."""
        return np.array([superpixel.weight for superpixel in self.superpixels])


class HeatExplanation(Frozen):
    """Where a layer speaks for the class: by Grad-CAM, its feature maps (Selvaraju et al., 2017)."""

    method: HeatMethod = "gradcam"
    class_index: int = Field(ge=0)
    probability: float = Field(ge=0, le=1, description="Of the class, for the whole picture.")
    box: Box
    layer: str = Field(description="The layer that is looked at: by Grad-CAM, that whose feature maps are weighed.")
    heatmap: list[list[float]] = Field(description="[rows][columns] over `box`, 0 to 1; all 0 where nothing speaks.")


Explanation = Annotated[LimeExplanation | HeatExplanation, Field(discriminator="method")]


class Progress(NamedTuple):
    """How far an explanation is."""

    done: int
    """Perturbed pictures that were asked about."""
    total: int
    """As many as it may take."""
    r2: float | None
    """How well the local linear model fits so far; None: it was not fitted yet."""
    preview: LimeExplanation | None
    """What the samples so far say."""


Report = Callable[[Progress], None]
"""Called now and then by whoever explains. It raises `Cancelled` when nobody wants the answer any more."""


class Cancelled(Exception):
    """Nobody wants the answer any more."""


def runs(mask: NDArray[np.bool_]) -> list[int]:
    """Run lengths of a mask, row by row: outside, inside, outside, ...; the first may be 0."""
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    lengths = np.diff(bounds).tolist()
    return [0, *lengths] if flat[0] else lengths


def find_label(manifest: Manifest, label: str) -> int:
    """The class of a label, whatever the case of its letters where that is enough.

    Raises:
        UnknownLabel: there is none, and it names some that are near.
    """
    labels = manifest.labels
    if label in labels:
        return labels.index(label)
    folded = [each.casefold() for each in labels]
    if folded.count(label.casefold()) == 1:
        return folded.index(label.casefold())
    near = get_close_matches(label.casefold(), folded, NEAR_LABELS, cutoff=0.5)
    few = [labels[folded.index(each)] for each in near] or labels[:NEAR_LABELS]
    more = f" or another of {len(labels)}" if len(labels) > len(few) else ""
    raise UnknownLabel(
        f"expected a class of {manifest.name}/{manifest.version}, such as {', '.join(few)}{more}; got {label!r}"
    )
