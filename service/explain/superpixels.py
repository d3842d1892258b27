"""A picture in, its superpixels out, and the picture at a model's size as the sum of what each of them adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.segmentation import slic

from service.decode import Placement, fit, placement
from service.explain.question import Box, Fill
from service.manifest import Input

# Segmenting at a model's own 20 x 20 or 75 x 75 finds one or two superpixels; more than this costs time and adds none.
GRID_SIDE = 256
COMPACTNESS, SMOOTHING, ITERATIONS = 20.0, 1.5, 5
# As many of even size are asked for, fewer where a picture has hardly any pixels.
USUAL_COUNT, LEAST_PIXELS = 50, 16
# Neighbours that are plain and alike, such as a studio's white, are one; in levels of 255.
PLAIN_SPREAD, ALIKE = 3.0, 3.0
# Contributions are multiples of this: any sum of them is exact in float32, so its order and threads do not matter.
QUANTUM = 1 / 128
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

        Resizing is linear in the pixels, so this is the masked picture resized, within rounding.
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
    grid = _grid(image, place)
    segments = segment(grid, count)
    contributions, filled = _split(grid, segments, fit(image, target), place, target, fill)
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
    grid: NDArray[np.uint8],
    segments: NDArray[np.int32],
    whole: NDArray[np.uint8],
    place: Placement,
    target: Input,
    fill: Fill,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    count = int(segments.max()) + 1
    rows = _resizing(grid.shape[0], place.inner[1])
    columns = _resizing(grid.shape[1], place.inner[0])
    x, y = place.corner
    inner = np.s_[y : y + place.inner[1], x : x + place.inner[0]]
    # Of each superpixel: its own colours, and how much of each of the model's pixels it covers.
    contributions = np.zeros((count, target.height, target.width, 3), np.float32)
    cover = np.zeros((count, target.height, target.width, 1), np.float32)
    fills = np.empty((count, 3))
    for index, (top, bottom, left, right) in enumerate(_bounds(segments, count)):
        inside = segments[top:bottom, left:right] == index
        pixels = grid[top:bottom, left:right].astype(np.float64)
        fills[index] = pixels[inside].mean(axis=0) if fill == "mean" else FILLS[fill]
        layers = np.concatenate([pixels, np.ones((*inside.shape, 1))], axis=-1) * inside[..., None]
        part = np.einsum(
            "ry,yxc,kx->rkc",
            rows[:, top:bottom],
            layers,
            columns[:, left:right],
            optimize=("einsum_path", (0, 1), (0, 1)),
        )
        contributions[index][inner], cover[index][inner] = part[..., :3], part[..., 3:]
    outside = np.full((target.height, target.width, 3), 255.0)
    outside[inner] = 0
    # The grid is the picture resized once already; what a second time loses is given back where it was lost.
    lost = whole - contributions.sum(axis=0, dtype=np.float64) - outside
    for index in range(count):
        contributions[index] = _quantised(contributions[index] + cover[index] * (lost - fills[index]))
    # With every superpixel there, the sum is the very picture that is classified.
    filled = whole - contributions.sum(axis=0, dtype=np.float64)
    return contributions.reshape(count, -1), filled.reshape(-1).astype(np.float32)


def _quantised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.rint(values / QUANTUM) * QUANTUM


def _resizing(source: int, target: int) -> NDArray[np.float64]:
    """What Pillow's bilinear filter does along one axis, as a matrix [target, source]."""
    identity = Image.fromarray(np.eye(source, dtype=np.float32))
    return np.asarray(identity.resize((source, target), Image.Resampling.BILINEAR), np.float64)


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
