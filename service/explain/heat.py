"""A heat map over a model's input in, an explanation out: scaled, rounded, and placed on the picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.choices import HeatMethod
from service.decode import placement
from service.explain.question import Box, HeatExplanation
from service.manifest import Input

HEAT_DECIMALS, PROBABILITY_DECIMALS = 4, 6


def explanation(
    method: HeatMethod,
    heat: NDArray[np.floating],
    size: tuple[int, int],
    target: Input,
    *,
    layer: str,
    class_index: int,
    probability: float,
) -> HeatExplanation:
    """Of `heat` >= 0, [rows, columns] over the whole input, where a picture of so many columns and rows was explained.

    `probability`: of the class, for the whole picture.
    """
    scaled = heat / max(float(heat.max()), float(np.finfo(np.float32).tiny))
    return HeatExplanation(
        method=method,
        class_index=class_index,
        probability=round(probability, PROBABILITY_DECIMALS),
        box=_input_box(size, target),
        layer=layer,
        heatmap=np.round(scaled.astype(np.float64), HEAT_DECIMALS).tolist(),
    )


def _input_box(size: tuple[int, int], target: Input) -> Box:
    """What a model's whole input shows of a picture of so many columns and rows."""
    place = placement(size, target)
    left, top, right, bottom = place.seen
    across, down = (right - left) / place.inner[0], (bottom - top) / place.inner[1]
    left, top = left - place.corner[0] * across, top - place.corner[1] * down
    return Box(
        left=left / size[0],
        top=top / size[1],
        right=(left + target.width * across) / size[0],
        bottom=(top + target.height * down) / size[1],
    )
