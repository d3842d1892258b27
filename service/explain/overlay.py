"""An explanation and its picture in, a PNG out: what speaks for the class stays in colour, the rest turns grey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.ndimage import maximum_filter1d

from service import render
from service.decode import decode
from service.explain.model import Model
from service.explain.question import Box, Explanation, HeatExplanation, LimeExplanation, Report
from service.explain.style import Style

# A thumbnail is enlarged until its superpixels can be seen.
SMALLEST_SIDE = 384
# For and against, told apart by people who are blind to some colours (Okabe and Ito, "Color Universal Design", 2008).
FOR, AGAINST, NEUTRAL = (0, 90, 200), (230, 97, 1), (245, 245, 245)
PAPER = (255, 255, 255)
# How much an area's colour is laid over it, at opacity 1.
TINT = 0.1
# Of outlines, in pixels of a canvas of 1024.
SMOOTHING = 6.0
# Of a Grad-CAM's greatest value.
OUTLINED_HEAT = 0.5

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


class _Shown(NamedTuple):
    """Over the whole canvas."""

    strength: Floats
    """0 to 1: how much of the picture's own colours stays."""
    positive: Mask
    negative: Mask
    colours: Pixels
    """The heat map."""
    seen: Mask


def draw(model: Model, report: Report, data: bytes, explanation: Explanation, style: Style, max_pixels: int) -> bytes:
    """A PNG of the picture's own aspect. Only `data`, `explanation` and `style` decide its bytes.

    Raises:
        ImageError: the picture cannot be decoded.
    """
    canvas = _canvas(decode(data, max_pixels=max_pixels), style.size)
    place = _Place(canvas.size, explanation.box)
    shown = _lime(place, explanation, style) if isinstance(explanation, LimeExplanation) else _heat(place, explanation)
    picture = np.asarray(canvas, np.float32)
    if style.style == "heatmap":
        grey = render.grey(picture)
        pixels = grey + (shown.colours - grey) * style.opacity
    elif style.style == "overlay":
        pixels = render.spotlight(picture, shown.strength, style.opacity)
        for mask, colour in ((shown.positive, FOR), (shown.negative, AGAINST)):
            pixels[mask] += (np.array(colour, np.float32) - pixels[mask]) * TINT * style.opacity
    else:
        pixels = picture.copy()
    pixels[~shown.seen] = render.unseen(picture[~shown.seen])
    drawn = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if style.style != "heatmap":
        _outline(drawn, [(shown.negative, AGAINST), (shown.positive, FOR)])
    return render.png(drawn)


class _Place:
    """Where on the canvas an explanation lies."""

    def __init__(self, size: tuple[int, int], box: Box) -> None:
        self.width, self.height = size
        self.box = (box.left * size[0], box.top * size[1], box.right * size[0], box.bottom * size[1])

    def spread(self, values: NDArray[np.generic], resample: Image.Resampling) -> Floats:
        """A map over the box, [rows, columns], over the whole canvas; 0 beside the box."""
        left, top, right, bottom = self.box
        x0, y0 = max(0, round(left)), max(0, round(top))
        x1, y1 = min(self.width, max(x0 + 1, round(right))), min(self.height, max(y0 + 1, round(bottom)))
        rows, columns = values.shape
        across, down = columns / (right - left), rows / (bottom - top)
        part = (
            max(0.0, (x0 - left) * across),
            max(0.0, (y0 - top) * down),
            min(float(columns), (x1 - left) * across),
            min(float(rows), (y1 - top) * down),
        )
        canvas = np.zeros((self.height, self.width), np.float32)
        small = Image.fromarray(np.ascontiguousarray(values, np.float32))
        canvas[y0:y1, x0:x1] = np.asarray(small.resize((x1 - x0, y1 - y0), resample, box=part))
        return canvas

    def area(self, mask: Mask) -> Mask:
        """A part of the box, [rows, columns], over the whole canvas, its steps smoothed away."""
        spread = self.spread(mask, Image.Resampling.BILINEAR)
        radius = SMOOTHING * max(self.width, self.height) / 1024
        soft = Image.fromarray(np.rint(spread * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
        return np.asarray(soft) > 127


def _canvas(image: Image.Image, size: int) -> Image.Image:
    target = render.canvas_size(image.size, SMALLEST_SIDE, size)
    return image if target == image.size else image.resize(target, Image.Resampling.BICUBIC)


def _lime(place: _Place, explanation: LimeExplanation, style: Style) -> _Shown:
    weights, segments = explanation.weights(), explanation.segments()
    chosen = _chosen(weights, style)
    nearest = Image.Resampling.NEAREST
    positive = place.area(np.isin(segments, chosen[weights[chosen] > 0]))
    negative = place.area(np.isin(segments, chosen[weights[chosen] < 0]))
    shares = np.where(np.isin(np.arange(len(weights)), chosen), weights, 0) / max(float(np.abs(weights).max()), 1e-12)
    return _Shown(
        strength=(positive | negative).astype(np.float32),
        positive=positive,
        negative=negative,
        colours=_diverging(place.spread(shares[segments], nearest)),
        seen=place.spread(np.ones(segments.shape), nearest) > 0,
    )


def _chosen(weights: NDArray[np.float64], style: Style) -> NDArray[np.intp]:
    """Superpixels of the polarity, the weightiest first."""
    signs = {"positive": weights > 0, "negative": weights < 0, "both": weights != 0}
    order = np.argsort(-np.abs(weights), kind="stable")
    chosen: NDArray[np.intp] = order[signs[style.polarity][order]][: style.top_superpixels]
    return chosen


def _heat(place: _Place, explanation: HeatExplanation) -> _Shown:
    heat = np.clip(place.spread(np.array(explanation.heatmap), Image.Resampling.BICUBIC), 0, 1)
    seen = place.spread(np.ones((1, 1)), Image.Resampling.NEAREST) > 0
    return _Shown(
        strength=heat,
        positive=heat > OUTLINED_HEAT,
        negative=np.zeros(heat.shape, bool),
        colours=render.sequential(heat, 0, 1),
        seen=seen,
    )


def _diverging(shares: Floats) -> Pixels:
    """Colours of -1, against, over 0 to 1, for."""
    ends = np.where((shares > 0)[..., None], np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    middle = np.array(NEUTRAL, np.float32)
    colours: Pixels = np.rint(middle + (ends - middle) * np.abs(shares)[..., None]).astype(np.uint8)
    return colours


def _outline(pixels: Pixels, areas: Sequence[tuple[Mask, tuple[int, int, int]]]) -> None:
    """A line along the inside of each area, and a white one along its outside so that it can be seen on any picture."""
    width = max(1, max(pixels.shape) // 300)
    drawn = [(mask, colour) for mask, colour in areas if mask.any()]
    for mask, _ in drawn:
        pixels[_grown(mask, width) & ~mask] = PAPER
    for mask, colour in drawn:
        pixels[mask & _grown(~mask, 2 * width)] = colour


def _grown(mask: Mask, radius: int) -> Mask:
    """By a square, one axis after the other: the time does not grow with the radius."""
    for axis in (0, 1):
        mask = maximum_filter1d(mask, 2 * radius + 1, axis=axis)
    return mask
