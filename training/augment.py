"""Cut-outs of studio pictures and a background in, a picture as a kitchen or a market might give it out."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.decode import decode
from service.errors import ImageError
from service.manifest import Input
from training.data import list_strangers
from training.errors import DataError

Pixels = NDArray[np.uint8]

# A studio's white, as JPEG leaves it.
WHITE = 222
# What a cut-out loses at its rim, as a share of the picture: JPEG and resizing have mixed the background into it.
RIM = 0.02
# Least opaque share of a cut-out; with less, the cutter has taken the object for background.
MIN_OPAQUE = 0.03
# Photographs are kept this small: enough to crop from, and hundreds of them fit into memory.
PHOTOGRAPH_SIDE = 320
MAX_PIXELS = 170_000_000
GREY = np.array([0.299, 0.587, 0.114])


class Augmentation(BaseModel):
    """How far composited pictures stray from the studio; a strength is 0 for not at all, 1 for as far as is natural."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    copies: int = Field(default=1, ge=0, le=100, description="Composited pictures for each training picture.")
    plain: float = Field(
        default=0.25, ge=0, le=1, description="Pictures left as they are, as a share of the training pictures."
    )
    negatives: float = Field(
        default=0.2, ge=0, lt=1, description="Pictures without any of the classes, as a share of all."
    )
    several: float = Field(
        default=0.5, ge=0, le=1, description="Share of composited pictures with more than one object."
    )
    smallest: float = Field(
        default=0.3, gt=0, le=1, description="Least size of a lone object, as a share of the frame."
    )
    largest: float = Field(default=1.4, ge=1, le=3, description="Most; beyond 1 the frame crops it.")
    clutter: float = Field(
        default=0.4, ge=0, le=1, description="Probability of other things behind, and half as often in front."
    )
    colour: float = Field(default=0.7, ge=0, le=1, description="Strength of light, white balance and ripeness.")
    camera: float = Field(default=0.7, ge=0, le=1, description="Strength of blur, noise and compression.")

    @model_validator(mode="after")
    def _shows_the_classes(self) -> Augmentation:
        if not self.copies and not self.plain:
            raise ValueError("expected copies or plain above 0")
        return self


def cut_out(studio: Pixels) -> Pixels:
    """RGBA [h, w, 4] of an object on white: transparent where white reaches the border, cropped to what is left.

    Whites inside the object stay, as highlights do. A picture without a white border comes back whole, opaque.
    """
    inside = ~_reached_from_border(studio.min(axis=2) >= WHITE)
    for _ in range(max(1, round(RIM * max(inside.shape)))):
        inside = _eroded(inside)
    if inside.mean() < MIN_OPAQUE:
        return np.dstack([studio, np.full(studio.shape[:2], 255, np.uint8)])
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    # One pixel more, for the softened edge; it is the object's own, since the rim was taken away.
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    part = np.s_[top : rows[-1] + 2, left : columns[-1] + 2]
    alpha = Image.fromarray(inside[part].astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(1))
    return np.dstack([studio[part], np.asarray(alpha)])


class Backgrounds:
    """An endless choice of things to stand behind an object: drawn textures and, where given, photographs."""

    def __init__(self, photographs: Sequence[Pixels] = (), share: float = 0.6) -> None:
        """`share` of the backgrounds are parts of `photographs`, if there are any."""
        self.photographs = list(photographs)
        self.share = share if self.photographs else 0.0

    @classmethod
    def of_folder(cls, folder: Path, share: float = 0.6) -> Backgrounds:
        """Every photograph in a folder and below, decoded once, small.

        Raises:
            DataError: a picture cannot be read, or there is none.
        """
        photographs = []
        for path in [picture.path for picture in list_strangers(folder)]:
            try:
                image = decode(path.read_bytes(), max_pixels=MAX_PIXELS)
            except (ImageError, OSError) as error:
                raise DataError(f"{path}: expected a photograph, found: {error}") from None
            shrink = PHOTOGRAPH_SIDE / min(image.size)
            if shrink < 1:
                size = (round(image.width * shrink), round(image.height * shrink))
                image = image.resize(size, Image.Resampling.BILINEAR)
            photographs.append(np.asarray(image))
        return cls(photographs, share)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Pixels:
        """Another background, uint8 [height, width, 3]."""
        if rng.random() < self.share:
            return _part_of(self.photographs[int(rng.integers(len(self.photographs)))], rng, height, width)
        if rng.random() < 0.3:
            return _table_and_wall(rng, height, width)
        return _texture(rng, height, width)


def composite(
    cut_outs: Sequence[Pixels],
    background: Pixels,
    target: Input,
    rng: np.random.Generator,
    how: Augmentation | None = None,
) -> Pixels:
    """One training picture, uint8 [H, W, 3], with objects drawn from `cut_outs` (RGBA, of one class) on `background`.

    Without cut-outs it is a negative: the background with clutter, seen by the same camera.
    """
    how = how or Augmentation()
    height, width = target.height, target.width
    canvas = Image.fromarray(background).resize((width, height), Image.Resampling.BILINEAR)
    if rng.random() < (how.clutter if cut_outs else max(how.clutter, 0.6)):
        for _ in range(rng.integers(1, 4)):
            _put_clutter(canvas, rng, float(rng.uniform(0.2, 0.7)))
    if cut_outs:
        light = _Light(rng, how.colour)
        for size, x, y in _places(rng, how):
            cut = cut_outs[int(rng.integers(len(cut_outs)))]
            _put(canvas, _turned(light.falls_on(cut, rng), size * min(height, width), rng), x, y, rng)
        if rng.random() < how.clutter / 2:
            _put_clutter(canvas, rng, float(rng.uniform(0.1, 0.35)))
    return _photographed(canvas, rng, how)


class _Light:
    """What the objects of one picture have in common: how ripe and how lit they are."""

    def __init__(self, rng: np.random.Generator, strength: float) -> None:
        self.strength = strength
        hue = math.radians(rng.normal(0, 7 * strength))
        saturation = math.exp(rng.normal(0, 0.25 * strength))
        gains = np.exp(rng.normal(0, 0.08 * strength, 3))
        if rng.random() < 0.4:
            # Fruits-360's lamps were cold: its raspberries are violet. Less blue mends that, and most fruits have none.
            gains[2] *= math.exp(-rng.uniform(0, 1.7 * strength))
        self.matrix = (_hue_and_saturation(hue, saturation).T * gains).astype(np.float32)
        self.gamma = math.exp(rng.normal(0, 0.3 * strength))

    def falls_on(self, cut: Pixels, rng: np.random.Generator) -> Image.Image:
        """One object in this light, brighter on one side."""
        height, width = cut.shape[:2]
        colours = cut[:, :, :3].astype(np.float32) @ self.matrix
        colours = np.clip(colours, 0, 255) * np.float32(1 / 255)
        gamma = self.gamma * math.exp(rng.normal(0, 0.12 * self.strength))
        np.power(colours, np.float32(gamma), out=colours)
        angle, contrast = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.5) * self.strength
        across = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(math.cos(angle) * contrast)
        down = np.linspace(-1, 1, height, dtype=np.float32) * np.float32(math.sin(angle) * contrast)
        colours *= (1 + across[None, :] + down[:, None])[:, :, None] * np.float32(255)
        return Image.fromarray(np.dstack([np.clip(colours, 0, 255).astype(np.uint8), cut[:, :, 3]]))


def _places(rng: np.random.Generator, how: Augmentation) -> list[tuple[float, float, float]]:
    """Sizes and centres of objects, as shares of the frame, the farthest first."""
    if rng.random() >= how.several:
        size = math.exp(rng.uniform(math.log(how.smallest), math.log(how.largest)))
        # The larger, the more of it may be outside.
        reach = 0.5 - 0.35 * min(size, 1) + 0.25 * max(size - 0.8, 0)
        return [(size, 0.5 + rng.uniform(-reach, reach), 0.5 + rng.uniform(-reach, reach))]
    if rng.random() < 0.5:
        # A few, loosely together.
        count = int(rng.integers(2, 6))
        size = rng.uniform(0.8, 1.5) * max(how.smallest, 0.9 / math.sqrt(count + 1))
        centre = rng.uniform(0.35, 0.65, 2)
        centres = centre + rng.normal(0, 0.3 * size * math.sqrt(count) / 1.4, (count, 2))
    else:
        # A heap, a row or a crate: side by side, over all of the frame or a part.
        size = rng.uniform(0.22, 0.6)
        spacing = size * rng.uniform(0.6, 0.95)
        low, high = (0.0, 1.0) if rng.random() < 0.5 else np.sort(rng.uniform([-0.1, 0.6], [0.4, 1.1]))
        rows = np.arange(low, high + spacing / 2, spacing)
        columns = np.arange(-0.05, 1.05, spacing) if rng.random() < 0.7 else np.arange(0.15, 0.85, spacing)
        grid = np.array([(x + (number % 2) * spacing / 2, y) for number, y in enumerate(rows) for x in columns])
        centres = grid + rng.normal(0, 0.12 * size, grid.shape)
    order = np.argsort(centres[:, 1])
    return [(float(size * rng.uniform(0.85, 1.15)), float(x), float(y)) for x, y in centres[order]]


def _turned(cut: Image.Image, size: float, rng: np.random.Generator) -> Image.Image:
    """The object, its longer side about `size` pixels, seen from another side."""
    scale = size / max(cut.size)
    stretch = math.exp(rng.normal(0, 0.08))
    pixels = (max(2, round(cut.width * scale * stretch)), max(2, round(cut.height * scale / stretch)))
    if rng.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # Most things lie on their largest side; now and then they lie as they fell.
    angle = rng.normal(0, 25) if rng.random() < 0.5 else rng.uniform(-180, 180)
    turned = cut.resize(pixels, Image.Resampling.BICUBIC)
    return turned.rotate(angle, Image.Resampling.BICUBIC if size > 40 else Image.Resampling.BILINEAR, expand=True)


def _put(canvas: Image.Image, thing: Image.Image, x: float, y: float, rng: np.random.Generator) -> None:
    """Paste an RGBA object centred at shares `x`, `y` of the canvas, and its shadow before."""
    left, top = round(x * canvas.width - thing.width / 2), round(y * canvas.height - thing.height / 2)
    alpha = thing.getchannel("A")
    if rng.random() < 0.7:
        blur = max(1.0, 0.06 * max(thing.size))
        darkness = rng.uniform(0.2, 0.75)
        margin = math.ceil(2 * blur)
        shadow = Image.new("L", (thing.width + 2 * margin, thing.height + 2 * margin))
        shadow.paste(alpha.point(lambda value: int(value * darkness)), (margin, margin))
        offset = (round(rng.normal(0, 0.06) * thing.width), round(rng.uniform(0, 0.1) * thing.height))
        corner = (left - margin + offset[0], top - margin + offset[1])
        canvas.paste((0, 0, 0), corner, shadow.filter(ImageFilter.BoxBlur(blur)))
    canvas.paste(thing, (left, top), alpha)


def _put_clutter(canvas: Image.Image, rng: np.random.Generator, size: float) -> None:
    """Paste something that is none of the classes: a leaf, a dish, a box, of any colour and texture."""
    side = max(8, round(size * min(canvas.size)))
    across, down = round(side * math.exp(rng.normal(0, 0.4))) + 2, side
    mask = Image.new("L", (across, down))
    drawing = ImageDraw.Draw(mask)
    kind = rng.integers(3)
    if kind == 0:
        drawing.ellipse((0, 0, across - 1, down - 1), fill=255)
    elif kind == 1:
        drawing.rectangle((0, 0, across - 1, down - 1), fill=255)
    else:
        angles = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(3, 9))))
        radii = rng.uniform(0.5, 1, angles.size)
        xs = (1 + radii * np.cos(angles)) * across / 2
        ys = (1 + radii * np.sin(angles)) * down / 2
        drawing.polygon(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=255)
    thing = Image.fromarray(_texture(rng, down, across))
    thing.putalpha(mask)
    thing = thing.rotate(rng.uniform(0, 360), Image.Resampling.BILINEAR, expand=True)
    _put(canvas, thing, rng.random(), rng.random(), rng)


def _photographed(canvas: Image.Image, rng: np.random.Generator, how: Augmentation) -> Pixels:
    """The scene as a camera sees it: white balance, exposure, blur, noise, compression."""
    if rng.random() < 0.6 * how.camera:
        if rng.random() < 0.5:
            canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
        else:
            # Enlarged from fewer pixels.
            shrink = rng.uniform(0.4, 0.9)
            small = (max(8, round(canvas.width * shrink)), max(8, round(canvas.height * shrink)))
            canvas = canvas.resize(small, Image.Resampling.BILINEAR).resize(canvas.size, Image.Resampling.BICUBIC)
    elif rng.random() < 0.5:
        canvas = canvas.filter(ImageFilter.UnsharpMask(rng.uniform(0.8, 2), int(rng.uniform(30, 120)), 2))
    pixels = np.asarray(canvas, np.float32)
    warmth = rng.normal(0, 0.12 * how.colour)
    gains = np.exp([warmth, rng.normal(0, 0.04 * how.colour), -warmth])
    matrix = _hue_and_saturation(0.0, math.exp(rng.normal(0, 0.2 * how.colour))).T * gains
    pixels = np.clip(pixels @ (matrix * math.exp(rng.normal(0, 0.15 * how.colour)) / 255).astype(np.float32), 0, 1)
    np.power(pixels, np.float32(math.exp(rng.normal(0, 0.2 * how.colour))), out=pixels)
    pixels *= np.float32(255)
    if rng.random() < how.camera:
        pixels += rng.normal(0, rng.uniform(0, 9) * how.camera, pixels.shape[:2])[:, :, None].astype(np.float32)
    result = np.clip(pixels, 0, 255).astype(np.uint8)
    if rng.random() < how.camera:
        packed = io.BytesIO()
        Image.fromarray(result).save(packed, "JPEG", quality=int(rng.integers(35, 96)))
        with Image.open(packed, formats=["JPEG"]) as unpacked:
            result = np.asarray(unpacked)
    return np.ascontiguousarray(result[:, ::-1]) if rng.random() < 0.5 else result


def _part_of(photograph: Pixels, rng: np.random.Generator, height: int, width: int) -> Pixels:
    """A random part of a photograph, at least a third of the largest of that shape."""
    rows, columns = photograph.shape[:2]
    part = rng.uniform(0.35, 1) * min(rows / height, columns / width)
    tall, wide = part * height, part * width
    top, left = rng.uniform(0, rows - tall), rng.uniform(0, columns - wide)
    box = (left, top, min(left + wide, columns), min(top + tall, rows))
    return np.asarray(Image.fromarray(photograph).resize((width, height), Image.Resampling.BILINEAR, box=box))


def _table_and_wall(rng: np.random.Generator, height: int, width: int) -> Pixels:
    horizon = round(height * rng.uniform(0.2, 0.7))
    wall, table = _texture(rng, height, width), _texture(rng, height, width)
    wall = np.asarray(Image.fromarray(wall).filter(ImageFilter.GaussianBlur(rng.uniform(0, 3))))
    return np.concatenate([wall[:horizon], table[horizon:]])


def _texture(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """A surface of two or three colours, mixed by one of the patterns."""
    pattern = PATTERNS[rng.integers(len(PATTERNS))](rng, height, width)
    colours = _palette(rng)
    position = np.clip(pattern, 0, 1) * (len(colours) - 1)
    stops = np.arange(len(colours))
    mixed = np.stack([np.interp(position, stops, colours[:, channel]) for channel in range(3)], axis=2)
    mixed += rng.uniform(0, 25) * (_noise(rng, height, width, first=int(rng.integers(6, 20))) - 0.5)[:, :, None]
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _palette(rng: np.random.Generator) -> NDArray[np.float64]:
    """Colours that go together: of similar hue, as often pale or grey as vivid."""
    count = int(rng.integers(2, 4))
    base = rng.uniform(0, 255, 3) if rng.random() < 0.7 else np.repeat(rng.uniform(20, 255), 3)
    # Rooms are less colourful than fruit.
    base += (base @ GREY - base) * rng.uniform(0, 1)
    shades = rng.normal(0, rng.uniform(10, 70), (count, 1)) + rng.normal(0, 18, (count, 3))
    return np.asarray(np.clip(base + shades, 0, 255))


def _clouds(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    return _noise(rng, height, width, first=int(rng.integers(1, 8)))


def _slope(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    x, _ = _turned_grid(rng, height, width)
    return ((x + 1) / 2 + 0.15 * (_noise(rng, height, width, first=2) - 0.5)).astype(np.float32)


def _wood(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Grain along one direction, in planks as often as not."""
    grain = Image.fromarray(_noise(rng, int(rng.integers(24, 72)), int(rng.integers(2, 5)), first=2))
    pattern = np.asarray(grain.resize((width, height), Image.Resampling.BICUBIC)).copy()
    if rng.random() < 0.5:
        edges = np.linspace(0, height, int(rng.integers(3, 8)), dtype=int)
        for first, last in itertools.pairwise(edges.tolist()):
            pattern[first:last] += np.float32(rng.normal(0, 0.15))
            pattern[first : first + max(1, height // 96)] -= np.float32(0.5)
    return np.asarray(pattern.T if height == width and rng.random() < 0.5 else pattern)


def _stripes(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    x, _ = _turned_grid(rng, height, width)
    return _edged(np.sin(x * rng.uniform(4, 40)), rng)


def _checks(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    x, y = _turned_grid(rng, height, width)
    frequency = rng.uniform(4, 25)
    a, b = np.sin(x * frequency), np.sin(y * frequency)
    # A chess board, a tablecloth, tiles with joints.
    combined = (a * b, (a + b) / 2, np.maximum(np.abs(a), np.abs(b)) * 2 - 1)[rng.integers(3)]
    return _edged(np.asarray(combined, np.float32), rng)


def _cells(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Pebbles, crumbs, a crowd of things: distance to the nearest of many points."""
    count = int(rng.integers(6, 40))
    points = rng.uniform(-0.1, 1.1, (count, 2))
    y, x = np.mgrid[0:1:48j, 0:1:48j].astype(np.float32)
    distances = (x[:, :, None] - points[:, 0]) ** 2 + (y[:, :, None] - points[:, 1]) ** 2
    shade = rng.uniform(0, 1, count)[distances.argmin(axis=2)] if rng.random() < 0.5 else 0.0
    near = np.sqrt(distances.min(axis=2) * count)
    pattern = Image.fromarray((near + shade).astype(np.float32) / 2)
    return np.asarray(pattern.resize((width, height), Image.Resampling.BICUBIC))


PATTERNS: tuple[Callable[[np.random.Generator, int, int], NDArray[np.float32]], ...] = (
    _clouds,
    _clouds,
    _slope,
    _slope,
    _wood,
    _wood,
    _stripes,
    _checks,
    _cells,
)


def _edged(wave: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """From -1..1 to 0..1, between soft and sharp."""
    return np.asarray(np.clip(wave * rng.uniform(0.5, 6) + 0.5, 0, 1), np.float32)


def _turned_grid(rng: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates -1..1 in a frame turned by a random angle."""
    angle = rng.uniform(0, math.pi)
    across, down = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return across * cosine + down * sine, down * cosine - across * sine


def _noise(rng: np.random.Generator, height: int, width: int, *, first: int) -> NDArray[np.float32]:
    """Octaves of smooth noise about 0.5; the first has `first` bumps a side."""
    total = np.zeros((height, width), np.float32)
    weight, bumps = 1.0, first
    persistence = rng.uniform(0.3, 0.8)
    while weight > 0.1 and bumps < 2 * max(height, width):
        octave = Image.fromarray(rng.random((bumps + 1, bumps + 1), np.float32) - np.float32(0.5))
        total += np.float32(weight) * np.asarray(octave.resize((width, height), Image.Resampling.BICUBIC))
        weight, bumps = weight * persistence, bumps * 2
    return np.asarray(total + np.float32(0.5))


def _hue_and_saturation(hue: float, saturation: float) -> NDArray[np.float64]:
    """The matrix that turns colours about grey by `hue` radians and moves them from grey by `saturation`."""
    axis = 1 / math.sqrt(3)
    cross = np.array([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]])
    turn = np.eye(3) + math.sin(hue) * cross + (1 - math.cos(hue)) * (cross @ cross)
    towards_grey = np.tile(GREY, (3, 1))
    return np.asarray((towards_grey + saturation * (np.eye(3) - towards_grey)) @ turn)


def _reached_from_border(passable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a walk from outside over `passable` pixels, up, down and sideways, can get."""
    padded = np.pad(passable, 1, constant_values=True)
    reached = np.zeros_like(padded)
    reached[[0, -1]] = reached[:, [0, -1]] = True
    count = -1
    while count != (count := int(reached.sum())):
        # Several steps before the next count, which costs as much as one.
        for _ in range(8):
            reached[1:] |= reached[:-1] & padded[1:]
            reached[:-1] |= reached[1:] & padded[:-1]
            reached[:, 1:] |= reached[:, :-1] & padded[:, 1:]
            reached[:, :-1] |= reached[:, 1:] & padded[:, :-1]
    return reached[1:-1, 1:-1]


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the pixels that have a neighbour outside; the picture's edge is no outside."""
    padded = np.pad(mask, 1, mode="edge")
    return mask & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
