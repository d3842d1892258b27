from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from service import render


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 64, 512, 2048, 16_384])
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (7, 7), (20, 20), (30, 60), (300, 1), (224, 224), (4096, 4096)])
def test_a_sheet_holds_every_cell_and_stays_small(count: int, shape: tuple[int, int]) -> None:
    grid = render.layout(count, *shape)
    width, height = grid.size
    assert max(width, height) <= render.MAX_SIDE
    assert grid.columns * grid.rows >= count > grid.columns * (grid.rows - 1)
    left, top = grid.corner(count - 1)
    assert left + grid.cell_width <= width
    assert top + grid.cell_height <= height
    if grid.cell_width >= shape[1]:
        assert (grid.cell_height % shape[0], grid.cell_width % shape[1]) == (0, 0)


def test_small_maps_are_enlarged_so_that_they_can_be_seen() -> None:
    grid = render.layout(512, 4, 4)
    assert grid.cell_width >= 48
    assert 0.8 < grid.size[0] / grid.size[1] < 1.25


def test_maps_too_large_for_a_sheet_are_averaged() -> None:
    maps = np.zeros((64, 1024, 1024), np.float32)
    maps[0, :512] = 1
    grid = render.layout(*maps.shape)
    dead = np.array([False] + [True] * 63)
    pixels = render.sheet(maps, grid, lambda values: render.sequential(values, 0, 1), dead)
    assert pixels.shape == (grid.size[1], grid.size[0], 3)
    half = grid.cell_height // 2
    assert (pixels[grid.gap + 2, grid.gap + half] == render.sequential(np.float32([1]), 0, 1)[0]).all()
    assert (pixels[grid.gap + half + 2, grid.gap + 2] == render.sequential(np.float32([0]), 0, 1)[0]).all()


@pytest.mark.parametrize("shape", [(512, 8, 8), (512, 1, 1), (32, 20, 20), (16, 1, 1)])
@pytest.mark.parametrize("light", [0.0, 1.0])
def test_each_cell_has_its_number_in_its_corner_to_be_read_on_dark_and_on_light(
    shape: tuple[int, int, int], light: float
) -> None:
    grid = render.layout(*shape)
    maps = np.full(shape, light, np.float32)
    pixels = render.sheet(maps, grid, lambda values: render.sequential(values, 0, 1), np.zeros(len(maps), bool))
    colour = render.sequential(np.float32([light]), 0, 1)[0]
    numbers = set()
    for index in range(len(maps)):
        left, top = grid.corner(index)
        shown = pixels[top : top + grid.cell_height, left : left + grid.cell_width].astype(int)
        numbers.add(shown.tobytes())
        marked = (shown != colour).any(axis=-1)
        assert (shown[marked].min(axis=-1) > 200).any()
        assert shown[0, 0].max() < 100
        rows, columns = np.nonzero(marked)
        assert rows.max() < max(grid.cell_height / 3, 12)
        assert columns.max() < max(grid.cell_width / 2, 21)
    assert len(numbers) == len(maps)


@pytest.mark.parametrize("shape", [(2048, 1, 1), (2048, 7, 7), (9, 1, 300)])
def test_cells_that_a_number_would_fill_have_none(shape: tuple[int, int, int]) -> None:
    maps = np.ones(shape, np.float32)
    grid = render.layout(*shape)
    pixels = render.sheet(maps, grid, lambda values: render.sequential(values, 0, 1), np.zeros(len(maps), bool))
    paper, colour = (render.PAPER,) * 3, tuple(render.sequential(np.float32([1]), 0, 1)[0])
    assert {tuple(pixel) for pixel in np.unique(pixels.reshape(-1, 3), axis=0)} == {paper, colour}


def test_colours_are_dark_to_bright_and_blue_to_red_and_grey_is_nothing() -> None:
    ramp = render.sequential(np.linspace(-3, 5, 50, dtype=np.float32), -3, 5).astype(int)
    luma = ramp @ [299, 587, 114]
    assert (np.diff(luma) > 0).all()
    red, white, blue = render.diverging(np.float32([2, 0, -2]), 2).astype(int)
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert white.min() > 240
    assert render.about_grey(np.float32([[-1, 0, 1]]), 1).tolist() == [[0, 128, 255]]


def test_a_map_of_one_value_and_one_with_nan_are_drawn() -> None:
    middle = render.sequential(np.full((2, 2), 7, np.float32), 7, 7)
    assert len(np.unique(middle.reshape(-1, 3), axis=0)) == 1
    render.sequential(np.float32([np.nan, np.inf, 1]), 0, 1)
    assert render.diverging(np.zeros(3, np.float32), 0).min() > 240


def test_a_png_is_the_same_bytes_in_another_process_and_holds_the_pixels() -> None:
    program = (
        "import sys, numpy as np; from service import render;"
        "sys.stdout.buffer.write(render.png(render.sequential(np.arange(12.).reshape(3, 4), 0, 11)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    pixels = render.sequential(np.arange(12.0).reshape(3, 4), 0, 11)
    assert render.png(pixels) == ended.stdout
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(ended.stdout))), pixels)
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(render.png(grey)))), grey)
