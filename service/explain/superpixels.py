"""A picture in, its superpixels out, and the picture at a model's size as the sum of what each of them adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.segmentation import slic

from service.decode import Placement, fit, placement
from service.explain.question import Box, Fill
from service.manifest import Input

Floats = NDArray[np.float64]

# Segmenting at a model's own 20 x 20 or 75 x 75 finds one or two superpixels; more than this costs time and adds none.
GRID_SIDE = 256
COMPACTNESS, SMOOTHING, ITERATIONS = 20.0, 1.5, 5
# As many of even size are asked for, fewer where a picture has hardly any pixels.
USUAL_COUNT, LEAST_PIXELS = 50, 16
# Neighbours that are plain and alike, such as a studio's white, are one; in levels of 255.
PLAIN_SPREAD, ALIKE = 3.0, 3.0
# Contributions are multiples of this: any sum of them is exact in float32, so its order and threads do not matter.
QUANTUM = 1 / 128
# Pixels that are worked on at once.
MOST_AT_ONCE = 2**20
FILLS = {"grey": 127.0, "white": 255.0}


@dataclass(frozen=True)
class Superpixels:
    """What the model sees of a picture, in parts."""

    box: Box
    segments: NDArray[np.int32]
    """int32 [rows, columns] over `box`: the superpixel of each pixel."""
    contributions: NDArray[np.float32]
    """float32 [superpixels, height x width x 3]: what each adds to the filled picture at the model's size."""
    filled: NDArray[np.float32]
    """float32 [height x width x 3]: the picture at the model's size with every superpixel taken away."""
    shape: tuple[int, int, int]
    """The model's: height, width, 3."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.contributions)

    def perturbed(self, masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """The picture at the model's size with some superpixels only: bool [N, count] to uint8 [N, height, width, 3].

        Resizing is linear in the pixels, so this is the full picture, masked and resized, within rounding.
        """
        pixels = masks.astype(np.float32) @ self.contributions + self.filled
        whole: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return whole.reshape(-1, *self.shape)


def superpixels(image: Image.Image, target: Input, *, count: int | None, fill: Fill) -> Superpixels:
    """Segment what the model sees of an RGB picture, and bring each part to the model's size.

    `count`: about how many; None: as many as the picture has detail for.
    SLIC: Achanta et al., "SLIC Superpixels Compared to State-of-the-art Superpixel Methods", 2012.
    """
    place = placement(image.size, target)
    segments = segment(_grid(image, place), count)
    contributions, filled = _split(np.asarray(image), segments, fit(image, target), place, target, fill)
    return Superpixels(seen_box(image.size, place), segments, contributions, filled, (target.height, target.width, 3))


def segment(grid: NDArray[np.uint8], count: int | None) -> NDArray[np.int32]:
    """The superpixel of each pixel of uint8 [rows, columns, 3]: int32 [rows, columns], from 0 without gaps."""
    pixels = grid.shape[0] * grid.shape[1]
    wanted = min(count, pixels) if count is not None else min(USUAL_COUNT, max(1, pixels // LEAST_PIXELS))
    if wanted == 1:
        return np.zeros(grid.shape[:2], np.int32)
    found = slic(
        grid,
        n_segments=wanted,
        compactness=COMPACTNESS,
        sigma=SMOOTHING,
        max_num_iter=ITERATIONS,
        start_label=0,
        enforce_connectivity=True,
        channel_axis=-1,
    )
    segments = _numbered(found)
    return segments if count is not None else _plain_joined(grid, segments)


def _plain_joined(grid: NDArray[np.uint8], segments: NDArray[np.int32]) -> NDArray[np.int32]:
    flat = segments.ravel()
    sizes = np.bincount(flat).astype(float)
    channels = [grid[..., channel].ravel().astype(float) for channel in range(3)]
    means = np.stack([np.bincount(flat, channel) / sizes for channel in channels], axis=1)
    squares = np.stack([np.bincount(flat, channel**2) / sizes for channel in channels], axis=1)
    plain = np.sqrt(np.maximum(squares - means**2, 0)).max(axis=1) <= PLAIN_SPREAD
    across = np.stack([segments[:, :-1].ravel(), segments[:, 1:].ravel()])
    down = np.stack([segments[:-1].ravel(), segments[1:].ravel()])
    one, other = np.concatenate([across, down], axis=1)
    joined = plain[one] & plain[other] & (np.abs(means[one] - means[other]).max(axis=1) <= ALIKE)
    graph = coo_array((np.ones(int(joined.sum())), (one[joined], other[joined])), shape=(len(sizes), len(sizes)))
    return _numbered(connected_components(graph, directed=False)[1][segments])


def _numbered(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    numbers = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    return np.asarray(numbers, np.int32)


def seen_box(size: tuple[int, int], place: Placement) -> Box:
    """What a model sees of a picture of so many columns and rows."""
    left, top, right, bottom = place.seen
    return Box(left=left / size[0], top=top / size[1], right=right / size[0], bottom=bottom / size[1])


def _grid(image: Image.Image, place: Placement) -> NDArray[np.uint8]:
    left, top, right, bottom = place.seen
    scale = min(1.0, GRID_SIDE / max(right - left, bottom - top))
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=place.seen))


def _split(
    pixels: NDArray[np.uint8],
    segments: NDArray[np.int32],
    whole: NDArray[np.uint8],
    place: Placement,
    target: Input,
    fill: Fill,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What each superpixel of a picture [H, W, 3] adds at the model's size, and what is left without them."""
    count = int(segments.max()) + 1
    left, top, right, bottom = place.seen
    down = _axis(pixels.shape[0], top, bottom, place.inner[1], segments.shape[0])
    across = _axis(pixels.shape[1], left, right, place.inner[0], segments.shape[1])
    x, y = place.corner
    # Of each superpixel: its own colours, and how much of each of the model's pixels it covers.
    contributions = np.zeros((count, target.height, target.width, 3), np.float32)
    cover = np.zeros((count, target.height, target.width, 1), np.float32)
    fills = np.full((count, 3), FILLS.get(fill, 0.0))
    for index, (first_row, last_row, first_column, last_column) in enumerate(_bounds(segments, count)):
        above, beside = down.part(first_row, last_row), across.part(first_column, last_column)
        narrow = np.zeros((len(above.cells), len(beside.weights), 4))
        total = np.zeros(4)
        # A few rows at a time: a picture may be large.
        for first in range(0, len(above.cells), step := max(1, MOST_AT_ONCE // max(1, len(beside.cells)))):
            strip = slice(first, first + step)
            inside = segments[np.ix_(above.cells[strip], beside.cells)] == index
            layers = inside[..., None] * np.ones(4)
            layers[..., :3] *= pixels[above.pixels, beside.pixels][strip]
            narrow[strip] = beside.weights @ layers
            total += np.einsum("yxc,y,x->c", layers, above.seen[strip], beside.seen)
        part = np.tensordot(above.weights, narrow, 1)
        if fill == "mean":
            # What is thinner than a pixel holds none whole.
            colours = total if total[3] else part.sum(axis=(0, 1))
            fills[index] = colours[:3] / max(colours[3], np.finfo(float).tiny)
        there = np.s_[y + above.start : y + above.stop, x + beside.start : x + beside.stop]
        contributions[index][there], cover[index][there] = part[..., :3], part[..., 3:]
    outside = np.full((target.height, target.width, 3), 255.0)
    outside[y : y + place.inner[1], x : x + place.inner[0]] = 0
    # Pillow rounds to whole levels twice; what that loses is given back where it was lost.
    lost = whole - contributions.sum(axis=0, dtype=np.float64) - outside
    for index in range(count):
        contributions[index] = _quantised(contributions[index] + cover[index] * (lost - fills[index]))
    # With every superpixel there, the sum is the very picture that is classified.
    filled = whole - contributions.sum(axis=0, dtype=np.float64)
    return contributions.reshape(count, -1), filled.reshape(-1).astype(np.float32)


class _Part(NamedTuple):
    """Some cells of the grid along one axis."""

    pixels: slice
    """The picture's, that lie in these cells."""
    cells: NDArray[np.intp]
    """Of each of these pixels, its cell."""
    seen: NDArray[np.bool_]
    """Whether its middle is in there, and it is not just beside the last one."""
    start: int
    stop: int
    """Which of the model's pixels they add to."""
    weights: Floats
    """How much each adds: [stop - start, pixels]."""


@dataclass(frozen=True)
class _Axis:
    """The picture's pixels along one axis: in which cell of the grid each lies, and what of it the model sees."""

    first: int
    cells: NDArray[np.intp]
    """From pixel `first` on. Beside what the model sees, where the filter still reaches, the nearest cell takes it."""
    seen: NDArray[np.bool_]
    weights: Floats
    """[the model's pixels, pixels from `first` on]"""

    def part(self, first: int, last: int) -> _Part:
        """The cells from `first` to before `last`."""
        begin, end = (int(edge) for edge in np.searchsorted(self.cells, (first, last)))
        weights = self.weights[:, begin:end]
        touched = np.flatnonzero(weights.any(axis=1))
        start, stop = (int(touched[0]), int(touched[-1]) + 1) if touched.size else (0, 0)
        pixels = slice(self.first + begin, self.first + end)
        return _Part(pixels, self.cells[begin:end], self.seen[begin:end], start, stop, weights[start:stop])


def _axis(pixels: int, start: float, stop: float, target: int, cells: int) -> _Axis:
    """Pillow's bilinear filter from `start` to `stop` of so many pixels, as in its Resample.c: precompute_coeffs."""
    scale = (stop - start) / target
    centres = start + (np.arange(target) + 0.5) * scale
    distances = np.abs(np.arange(pixels) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distances)
    weights /= weights.sum(axis=1, keepdims=True)
    used = np.flatnonzero(weights.any(axis=0))
    places = np.floor((used + 0.5 - start) * cells / (stop - start)).astype(int)
    inside = np.clip(places, 0, cells - 1)
    return _Axis(int(used[0]), inside, places == inside, weights[:, used[0] : used[-1] + 1])


def _quantised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.rint(values / QUANTUM) * QUANTUM


def _bounds(segments: NDArray[np.int32], count: int) -> list[tuple[int, int, int, int]]:
    """Top, bottom, left, right of each superpixel, the ends not included."""
    edges = []
    for axis in (0, 1):
        places = np.broadcast_to(
            np.arange(segments.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1)), segments.shape
        )
        first = np.full(count, segments.shape[axis])
        last = np.zeros(count, int)
        np.minimum.at(first, segments, places)
        np.maximum.at(last, segments, places)
        edges += [first, last + 1]
    return [tuple(map(int, edge)) for edge in zip(*edges, strict=True)]  # type: ignore[misc]
