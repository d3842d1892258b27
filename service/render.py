"""Numbers in, pictures out: colours, grids of cells, PNG files."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Both can be told apart by people who are blind to some colours; neither holds the grey of a dead cell.
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"

MAX_SIDE = 4096
# What a grid fills, and what one cell does, where enlarging is for the eye alone.
COMFORTABLE_SIDE, LARGEST_CELL = 1280, 160
MOST_CELLS = 16_384
# Of a strip of numbers: columns for each row.
STRIP_ASPECT = 4
STRIP_COLUMN, STRIP_CELL = 24, 40
GAP = 2
# What is between cells; about zero, white is a value.
PAPER, PAPER_ABOUT_ZERO = 255, 150
DEAD, CROSS = 225, 140
# A cross in fewer pixels is a blot.
CROSS_SIDE = 5
# Of a cell's number, in pixels; as shares of the height of a map and of a cell of one colour, where it hides nothing.
SMALLEST_DIGITS, LARGEST_DIGITS = 10, 16
MAP_DIGITS, COLOUR_DIGITS = 1 / 9, 1 / 3
# How much of a map a number may hide.
HIDDEN_SHARE = 1 / 6
# What is left of the light below a number.
PLATE = 0.35
# A picture that is longer than so many times its other side is drawn as if it were not: a line shows nothing.
MOST_ASPECT = 16
# What stays of a picture's light, without colours: where it is not shown, and where nothing is known of it.
FADED_LIGHT, UNSEEN_LIGHT = 0.35, 0.2

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Grid(NamedTuple):
    """Where cells lie on a sheet: row by row, each after a gap, in pixels."""

    columns: int
    rows: int
    cell_width: int
    cell_height: int
    gap: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        return (
            self.columns * (self.cell_width + self.gap) + self.gap,
            self.rows * (self.cell_height + self.gap) + self.gap,
        )

    def corner(self, index: int) -> tuple[int, int]:
        """Left and top of a cell."""
        row, column = divmod(index, self.columns)
        return (
            column * (self.cell_width + self.gap) + self.gap,
            row * (self.cell_height + self.gap) + self.gap,
        )


def layout(count: int, height: int, width: int) -> Grid:
    """A sheet, near to a square, of `count` maps; numbers, which are maps of one pixel, make a wide strip.

    Maps are enlarged by a whole number where there is room, and made smaller only where the sheet would outgrow
    `MAX_SIDE`.
    """
    alone = height == width == 1
    if alone:
        columns = count if count <= COMFORTABLE_SIDE // STRIP_COLUMN else math.ceil(math.sqrt(count * STRIP_ASPECT))
    else:
        columns = min(count, max(1, round(math.sqrt(count * height / width))))
    rows = math.ceil(count / columns)
    gap = GAP if max(columns, rows) * (GAP + 1) < COMFORTABLE_SIDE else 0
    largest = STRIP_CELL if alone else LARGEST_CELL
    scale = min(_room(COMFORTABLE_SIDE, columns, gap) / width, _room(COMFORTABLE_SIDE, rows, gap) / height)
    scale = max(1, math.floor(min(scale, largest / max(height, width))))
    most = min(_room(MAX_SIDE, columns, gap) / width, _room(MAX_SIDE, rows, gap) / height)
    if most < 1:
        return Grid(columns, rows, max(1, int(width * most)), max(1, int(height * most)), gap)
    return Grid(columns, rows, width * scale, height * scale, gap)


def sheet(
    maps: Floats, grid: Grid, colour: Callable[[Floats], Pixels], dead: NDArray[np.bool_], *, paper: int = PAPER
) -> Pixels:
    """Maps [N, h, w] as cells of one picture: `colour` makes [h, w, 3] of each, but those that are dead get a cross.

    Each has its number in its corner, where that leaves enough of it.
    """
    width, height = grid.size
    canvas = np.full((height, width, 3), paper, np.uint8)
    crossed = _crossed(grid.cell_height, grid.cell_width)
    for index, values in enumerate(maps):
        left, top = grid.corner(index)
        size = (grid.cell_width, grid.cell_height)
        cell = crossed if dead[index] else enlarge(colour(shrink(values, size)), size)
        canvas[top : top + grid.cell_height, left : left + grid.cell_width] = cell
    _number(canvas, grid, maps)
    return canvas


def shrink(values: Floats, size: tuple[int, int]) -> Floats:
    """A map [h, w] or picture [h, w, 3] in at most `size` (columns, rows): means of what falls together."""
    if values.shape[1] <= size[0] and values.shape[0] <= size[1]:
        return values
    if values.ndim == 3:
        return np.stack([shrink(part, size) for part in np.moveaxis(values, -1, 0)], axis=-1)
    return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize(size, Image.Resampling.BOX))


def enlarge(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Every pixel of [h, w, 3] as a block, `size` (columns, rows) in all: a multiple of both."""
    return pixels.repeat(size[1] // pixels.shape[0], axis=0).repeat(size[0] // pixels.shape[1], axis=1)


def sequential(values: Floats, low: float, high: float) -> Pixels:
    """Colours [..., 3] of numbers between `low`, dark, and `high`, bright; where both are the same, the middle."""
    share = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5, np.float32)
    colours: Pixels = _table(SEQUENTIAL)[_places(share)]
    return colours


def diverging(values: Floats, most: float) -> Pixels:
    """Colours [..., 3] of numbers about zero, which is white: red to `most`, blue to minus `most`."""
    return _table(DIVERGING)[_places(0.5 + values / (2 * most) if most > 0 else np.full(values.shape, 0.5))]


def about_grey(values: Floats, most: float) -> Pixels:
    """[..., 3] numbers about zero as red, green and blue: zero is mid-grey, `most` 255, minus `most` 0."""
    colours: Pixels = np.clip(np.rint(127.5 + 127.5 * values / most), 0, 255).astype(np.uint8)
    return colours


def canvas_size(picture: tuple[int, int], smallest: int, largest: int) -> tuple[int, int]:
    """How large a picture of so many columns and rows is drawn upon: its longest side between the two, or its own."""
    longest = max(picture)
    side = min(largest, max(longest, smallest))
    width, height = (max(1, round(each * side / longest), side // MOST_ASPECT) for each in picture)
    return width, height


def grey(picture: Floats) -> Floats:
    """Luminance of [..., 3], as three equal channels (ITU-R BT.601)."""
    return np.repeat((picture @ np.array([0.299, 0.587, 0.114], np.float32))[..., None], 3, axis=-1)


def spotlight(picture: Floats, strength: Floats, opacity: float) -> Floats:
    """A picture [h, w, 3] that shows where `strength` [h, w] is 1, and fades to dark grey where it is 0.

    `opacity` 0 is the picture alone.
    """
    faded = grey(picture) * (1 - opacity * (1 - FADED_LIGHT))
    kept = strength[..., None] + (1 - strength[..., None]) * (1 - opacity)
    lit: Floats = picture * kept + faded * (1 - kept)
    return lit


def unseen(picture: Floats) -> Floats:
    """A picture [..., 3] of which nothing is known."""
    return grey(picture) * UNSEEN_LIGHT


def png(pixels: Pixels) -> bytes:
    """A PNG file of [h, w, 3] or [h, w]: the same bytes for the same pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=6)
    return file.getvalue()


def _room(side: int, cells: int, gap: int) -> float:
    return (side - gap) / cells - gap


def _places(shares: NDArray[np.floating]) -> NDArray[np.intp]:
    places: NDArray[np.intp] = np.rint(np.clip(np.nan_to_num(shares), 0, 1) * 255).astype(np.intp)
    return places


@cache
def _table(name: str) -> Pixels:
    # Slow to load and of no use to predictions: only the process that explains draws.
    from matplotlib import colormaps

    table: Pixels = colormaps[name](np.arange(256), bytes=True)[:, :3]
    return table


def _number(canvas: Pixels, grid: Grid, maps: Floats) -> None:
    """White on a darkened plate: to be read on any colour."""
    alone = maps[0].size == 1
    share = COLOUR_DIGITS if alone else MAP_DIGITS
    size = min(max(SMALLEST_DIGITS, round(grid.cell_height * share)), LARGEST_DIGITS)
    font = ImageFont.load_default(size)
    _, above, _, below = font.getbbox("0123456789")
    edge = max(1, size // 6)
    height, longest = round(below - above) + 2 * edge, math.ceil(font.getlength(str(len(maps) - 1))) + 2 * edge
    hides = height * longest / (grid.cell_height * grid.cell_width)
    if height > grid.cell_height or longest > grid.cell_width or (hides > HIDDEN_SHARE and not alone):
        return
    for index in range(len(maps)):
        left, top = grid.corner(index)
        plate = Image.new("L", (math.ceil(font.getlength(str(index))) + 2 * edge, height))
        ImageDraw.Draw(plate).text((edge, edge - above), str(index), fill=255, font=font)
        below_it = canvas[top : top + plate.height, left : left + plate.width]
        ink = np.asarray(plate, np.float32)[..., None] / 255
        below_it[:] = np.rint(255 * ink + PLATE * below_it * (1 - ink))


def _crossed(height: int, width: int) -> Pixels:
    cell = np.full((height, width, 3), DEAD, np.uint8)
    if min(height, width) >= CROSS_SIDE:
        y, x = np.mgrid[0:height, 0:width]
        down = np.abs(x * (height - 1) - y * (width - 1))
        up = np.abs((width - 1 - x) * (height - 1) - y * (width - 1))
        cell[np.minimum(down, up) <= 0.75 * max(height, width)] = CROSS
    return cell
