"""Grad-CAM: where a layer's feature maps speak for a class (Selvaraju et al., 2017), by the `gradcam` signature."""

from __future__ import annotations

import numpy as np
from PIL import Image

from service.decode import fit, placement
from service.explain.model import Model
from service.explain.question import Box, GradcamExplanation, Question, Report
from service.manifest import Input

HEAT_DECIMALS, PROBABILITY_DECIMALS = 4, 6


def explain(model: Model, report: Report, image: Image.Image, question: Question, seed: int) -> GradcamExplanation:
    """The heat map of `question.class_index`, or of the predicted class. Nothing here is drawn by chance."""
    target = model.manifest.input
    batch = fit(image, target)[None]
    index = question.class_index
    if index is None:
        index = int(model.predict(batch).probabilities[0].argmax())
    heatmaps, probabilities = model.gradcam(batch, np.array([index], np.int32))
    heat = heatmaps[0] / max(float(heatmaps[0].max()), np.finfo(np.float32).tiny)
    return GradcamExplanation(
        class_index=index,
        probability=round(float(probabilities[0, index]), PROBABILITY_DECIMALS),
        box=_input_box(image.size, target),
        layer=model.manifest.gradcam_layer,
        heatmap=np.round(heat.astype(np.float64), HEAT_DECIMALS).tolist(),
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
