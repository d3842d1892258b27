"""A model's input and a heat map in, small PNGs for a page out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib import colormaps
from matplotlib.image import imsave
from numpy.typing import NDArray

# Two dozen of them stay far below what a page may weigh.
LONGEST_SIDE = 128
HEAT_SHARE = 0.55


def write_thumbnail(path: Path, image: NDArray[np.uint8]) -> None:
    """Save a picture uint8 [H, W, 3] as PNG, not larger than a page shows it."""
    _save(path, _fit(image))


def write_overlay(path: Path, image: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> None:
    """Save a picture uint8 [H, W, 3] with a heat map [h, w], >= 0, over it: the hotter, the more of the colour.

    The map is scaled to its own greatest value; one that is 0 everywhere leaves the picture as it is.
    """
    small = _fit(image).astype(np.float32)
    heat = _resized(heatmap[..., None], (small.shape[0], small.shape[1]), "bilinear")[..., 0]
    heat = heat / max(float(heat.max()), float(np.finfo(np.float32).tiny))
    colours = colormaps["inferno"](heat)[..., :3] * 255
    share = HEAT_SHARE * heat[..., None]
    _save(path, (small * (1 - share) + colours * share).astype(np.uint8))


def _fit(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = LONGEST_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
    return _resized(image, size, "area").astype(np.uint8)


def _resized(array: NDArray[np.generic], size: tuple[int, int], method: str) -> NDArray[np.float32]:
    return np.asarray(tf.image.resize(array, size, method=method))


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    imsave(path, pixels, format="png")
