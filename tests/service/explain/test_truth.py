"""Fruits cut out of their studio and set before photographs: explanations must lie on the fruit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from service.engines import choose_engine
from service.explain.methods import explain
from service.explain.model import Model
from service.explain.question import HeatExplanation, LimeExplanation, Question
from tests.conftest import ROOT, encode
from training.augment import cut_out

SIDE = 256
MAX_PIXELS = SIDE**2
BACKGROUNDS = ("coffee", "astronaut", "rocket", "chelsea", "grass", "gravel", "brick", "immunohistochemistry")
HIT = 0.8
PICTURES = 8
TOP = 3


class Composite(NamedTuple):
    """A fruit before a photograph, and where it is."""

    label: str
    data: bytes
    fruit: NDArray[np.bool_]


def composite(label: str, studio: Path, background: str, seed: int) -> Composite:
    chance = np.random.default_rng(seed)
    photograph = Image.fromarray(getattr(skimage.data, background)()).convert("RGB")
    side = min(photograph.size)
    left, top = (int(chance.integers(0, length - side + 1)) for length in photograph.size)
    canvas = photograph.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    with Image.open(studio) as image:
        cut = Image.fromarray(cut_out(np.asarray(image.convert("RGB"))))
    scale = chance.uniform(0.4, 0.6) * SIDE / max(cut.size)
    cut = cut.resize((round(cut.width * scale), round(cut.height * scale)), Image.Resampling.BICUBIC)
    x, y = (int(chance.integers(0, SIDE - length + 1)) for length in cut.size)
    canvas.paste(cut, (x, y), cut)
    fruit = np.zeros((SIDE, SIDE), bool)
    fruit[y : y + cut.height, x : x + cut.width] = np.asarray(cut.getchannel("A")) > 127
    return Composite(label, encode(canvas), fruit)


def composites(data: Path, count: int) -> Iterator[Composite]:
    """`count` pictures, the classes in turn."""
    classes = sorted(folder for folder in (data / "fruits-360" / "Test").iterdir() if folder.is_dir())
    for number in range(count):
        folder = classes[number % len(classes)]
        pictures = sorted(folder.iterdir())
        yield composite(
            folder.name,
            pictures[(number * 37) % len(pictures)],
            BACKGROUNDS[(number + number // len(BACKGROUNDS)) % len(BACKGROUNDS)],
            number,
        )


def lime_on_fruit(explained: LimeExplanation, fruit: NDArray[np.bool_]) -> list[bool]:
    """Of each of the top superpixels that speak for the class: whether more than half of it is fruit."""
    segments, weights = explained.segments(), explained.weights()
    small = np.asarray(Image.fromarray(fruit).resize(segments.shape[::-1], Image.Resampling.NEAREST))
    best = [s for s in np.argsort(-weights)[:TOP] if weights[s] > 0]
    return [bool(small[segments == s].mean() > 0.5) for s in best]


def gradcam_on_fruit(explained: HeatExplanation, fruit: NDArray[np.bool_]) -> bool:
    """Whether the map's greatest value is on the fruit, at the centre of its cell."""
    heat = np.array(explained.heatmap)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    y, x = (int((place + 0.5) * SIDE / cells) for place, cells in zip((row, column), heat.shape, strict=True))
    return bool(fruit[y, x])


def pointing_game(model: Model, pictures: Iterator[Composite], samples: int | None) -> tuple[float, float, float]:
    """Shares that lie on the fruit: LIME's first superpixel, its first three, and Grad-CAM's greatest value.

    Zhang et al., "Top-down neural attention by excitation backprop", 2016.
    """
    first, top, heat = [], [], []
    for label, data, fruit in pictures:
        index = model.manifest.labels.index(label)
        lime = explain(model, lambda progress: None, data, Question("lime", index, samples), MAX_PIXELS)
        gradcam = explain(model, lambda progress: None, data, Question("gradcam", index), MAX_PIXELS)
        assert isinstance(lime, LimeExplanation)
        assert isinstance(gradcam, HeatExplanation)
        hits = lime_on_fruit(lime, fruit)
        first += hits[:1]
        top += hits
        heat.append(gradcam_on_fruit(gradcam, fruit))
    return float(np.mean(first)), float(np.mean(top)), float(np.mean(heat))


@pytest.mark.realdata
def test_explanations_of_fruit_vgg16_lie_on_the_fruit(data_folder: Path, times: int) -> None:
    model = Model(ROOT / "models" / "fruit_vgg16" / "1", choose_engine("auto"), threads=0)
    first, top, heat = pointing_game(model, composites(data_folder, PICTURES * times), samples=128)
    assert first >= HIT
    assert top >= HIT
    assert heat >= HIT
