"""What the service asks of the process that explains, by name: what is heavy is imported there alone."""

from __future__ import annotations

import numpy as np

from service.explain.model import Model
from service.explain.question import Explanation, Question, Report
from service.explain.style import Style


def explain(model: Model, report: Report, data: bytes, question: Question, max_pixels: int) -> Explanation:
    """See `service.explain.methods`."""
    from service.explain import methods

    return methods.explain(model, report, data, question, max_pixels)


def draw(model: Model, report: Report, data: bytes, explanation: Explanation, style: Style, max_pixels: int) -> bytes:
    """See `service.explain.overlay`."""
    from service.explain import overlay

    return overlay.draw(model, report, data, explanation, style, max_pixels)


def load_engine(model: Model, report: Report) -> None:
    """Load all that LIME needs."""
    from service.explain import methods, overlay  # noqa: F401

    model.predict(_blank(model))
    model.predict_quickly(_blank(model))


def load_tensorflow(model: Model, report: Report) -> None:
    """Load all that Grad-CAM needs."""
    model.gradcam(_blank(model), np.zeros(1, np.int32))


def _blank(model: Model) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    target = model.manifest.input
    return np.zeros((1, target.height, target.width, 3), np.uint8)
