"""Grad-CAM: where a layer's feature maps speak for a class (Selvaraju et al., 2017), by the `gradcam` signature."""

from __future__ import annotations

import numpy as np
from PIL import Image

from service.decode import fit
from service.explain import heat
from service.explain.model import Model
from service.explain.question import HeatExplanation, Question, Report


def explain(model: Model, report: Report, image: Image.Image, question: Question, seed: int) -> HeatExplanation:
    """The heat map of `question.class_index`, or of the predicted class. Nothing here is drawn by chance."""
    target = model.manifest.input
    batch = fit(image, target)[None]
    index = question.class_index
    if index is None:
        index = int(model.predict(batch).probabilities[0].argmax())
    heatmaps, probabilities = model.gradcam(batch, np.array([index], np.int32))
    return heat.explanation(
        "gradcam",
        heatmaps[0],
        image.size,
        target,
        layer=model.manifest.gradcam_layer,
        class_index=index,
        probability=float(probabilities[0, index]),
    )
