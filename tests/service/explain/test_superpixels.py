from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from service.decode import fit
from service.explain.question import Fill, runs
from service.explain.superpixels import FILLS, superpixels
from service.manifest import Input, ResizeRule
from tests.conftest import draw

PICTURES = {
    "landscape": draw("circle", 1, (230, 140)),
    "portrait": draw("stripes", 2, (90, 200)),
    "small": draw("square", 3, (24, 30)),
    "larger than the grid": draw("circle", 4, (700, 620)),
}


def target(rule: ResizeRule, height: int = 40, width: int = 60) -> Input:
    return Input(height=height, width=width, resize=rule)


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("rule", ["crop", "squash", "pad"])
def test_with_every_superpixel_it_is_the_picture_that_is_classified(picture: str, rule: ResizeRule) -> None:
    image = PICTURES[picture]
    parts = superpixels(image, target(rule), count=None, fill="mean")
    whole = parts.perturbed(np.ones((1, parts.count), bool))[0]
    assert (whole == fit(image, target(rule))).all()


@pytest.mark.parametrize("fill", ["mean", "grey", "white"])
@pytest.mark.parametrize("rule", ["crop", "squash", "pad"])
@pytest.mark.parametrize("picture", PICTURES)
def test_the_linear_shortcut_is_masking_the_full_picture_and_resizing_it(
    picture: str, rule: ResizeRule, fill: Fill
) -> None:
    image = PICTURES[picture]
    goal = target(rule)
    parts = superpixels(image, goal, count=20, fill=fill)
    # The superpixel of each pixel of the full picture; none beside what the model sees.
    edges = (parts.box.top, parts.box.bottom, image.height), (parts.box.left, parts.box.right, image.width)
    rows, columns = (
        np.floor((np.arange(side) + 0.5 - first * side) / ((last - first) * side) * cells).astype(int)
        for (first, last, side), cells in zip(edges, parts.segments.shape, strict=True)
    )
    seen = np.ix_((rows >= 0) & (rows < parts.segments.shape[0]), (columns >= 0) & (columns < parts.segments.shape[1]))
    segments = np.full((image.height, image.width), -1)
    segments[seen] = parts.segments[np.ix_(rows[seen[0][:, 0]], columns[seen[1][0]])]
    pixels = np.asarray(image)
    for mask in np.random.default_rng(5).random((8, parts.count)) < 0.5:
        masked = pixels.astype(float)
        for index in np.flatnonzero(~mask):
            inside = segments == index
            masked[inside] = pixels[inside].mean(axis=0) if fill == "mean" else FILLS[fill]
        expected = fit(Image.fromarray(np.rint(masked).astype(np.uint8)), goal)
        difference = np.abs(parts.perturbed(mask[None])[0].astype(int) - expected)
        if rule == "crop":
            # At the crop's border the filter reaches for what is outside, which is part of no superpixel.
            rim = 1 + 2 * goal.height // int((parts.box.bottom - parts.box.top) * image.height)
            difference = difference[rim:-rim, rim:-rim]
        # Three roundings to whole levels on the one way, one on the other.
        assert difference.max() <= 2
        assert difference.mean() < 0.2


def test_sums_do_not_depend_on_the_order_of_superpixels() -> None:
    parts = superpixels(PICTURES["landscape"], target("crop"), count=30, fill="mean")
    mask = np.random.default_rng(1).random(parts.count) < 0.5
    forwards = np.zeros(parts.contributions.shape[1], np.float32)
    backwards = forwards.copy()
    for index in np.flatnonzero(mask):
        forwards += parts.contributions[index]
    for index in np.flatnonzero(mask)[::-1]:
        backwards += parts.contributions[index]
    assert (forwards == backwards).all()


def test_segments_are_numbered_without_gaps_and_are_about_as_many_as_asked_for() -> None:
    for count in (4, 20, 100):
        parts = superpixels(PICTURES["larger than the grid"], target("squash"), count=count, fill="mean")
        assert set(np.unique(parts.segments)) == set(range(parts.count))
        assert count / 2 <= parts.count <= count * 1.5


def test_plain_ground_is_one_superpixel_unless_a_number_is_asked_for() -> None:
    image = Image.new("RGB", (200, 200), "white")
    image.paste(draw("stripes", 1, (80, 80)), (60, 60))
    parts = superpixels(image, target("squash"), count=None, fill="grey")
    corners = {int(parts.segments[y, x]) for y in (0, -1) for x in (0, -1)}
    assert len(corners) == 1
    assert superpixels(image, target("squash"), count=30, fill="grey").count > parts.count


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_the_smallest_pictures_have_superpixels(size: tuple[int, int]) -> None:
    parts = superpixels(Image.new("RGB", size, "red"), target("crop"), count=None, fill="mean")
    assert parts.count >= 1
    assert parts.perturbed(np.zeros((1, parts.count), bool)).shape == (1, 40, 60, 3)


def test_one_colour_is_one_superpixel() -> None:
    assert superpixels(Image.new("RGB", (300, 200), "teal"), target("crop"), count=None, fill="mean").count == 1


def test_runs_are_lengths_outside_and_inside_by_turns() -> None:
    assert runs(np.array([[False, True, True], [True, False, False]])) == [1, 3, 2]
    assert runs(np.array([[True, False]])) == [0, 1, 1]
