"""A picture file, a model and a question in, an explanation out: the table of methods."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from PIL import Image

from service.decode import decode
from service.explain import gradcam, lime
from service.explain.model import Model
from service.explain.question import Explanation, Method, Question, Report

METHODS: dict[Method, Callable[[Model, Report, Image.Image, Question, int], Any]] = {
    "lime": lime.explain,
    "gradcam": gradcam.explain,
}


def explain(model: Model, report: Report, data: bytes, question: Question, max_pixels: int) -> Explanation:
    """Explain what the model says of a picture file. The same file, model and question give the same explanation.

    Raises:
        ImageError: the picture cannot be decoded.
        Cancelled: by `report`.
    """
    seed = question.seed if question.seed is not None else seed_of(data)
    image = decode(data, max_pixels=max_pixels, target=model.manifest.input)
    explanation: Explanation = METHODS[question.method](model, report, image, question, seed)
    return explanation


def seed_of(data: bytes) -> int:
    """A picture file's own seed, 32 bits: chance, but the same on every machine and day."""
    return int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
