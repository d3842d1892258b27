"""A picture file, a model and a question in, an explanation out: the table of methods."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import import_module
from typing import get_args

from PIL import Image

from service.choices import Method
from service.decode import decode
from service.explain.model import Model
from service.explain.question import Explanation, Question, Report

METHODS: dict[Method, Callable[[Model, Report, Image.Image, Question, int], Explanation]] = {
    name: import_module(f"{__package__}.{name}").explain for name in get_args(Method)
}


def explain(model: Model, report: Report, data: bytes, question: Question, max_pixels: int) -> Explanation:
    """Explain what the model says of a picture file. The same file, model and question give the same explanation.

    Raises:
        ImageError: the picture cannot be decoded.
        Cancelled: by `report`.
    """
    seed = question.seed if question.seed is not None else seed_of(data)
    image = decode(data, max_pixels=max_pixels, target=model.manifest.input)
    return METHODS[question.method](model, report, image, question, seed)


def seed_of(data: bytes) -> int:
    """A picture file's own seed, 32 bits: chance, but the same on every machine and day."""
    return int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
