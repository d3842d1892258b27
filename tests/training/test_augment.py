"""Cut-outs keep the object and nothing of the studio; composites are of their class and of their seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydantic import ValidationError

from service.manifest import Input
from tests.conftest import draw
from training.augment import Augmentation, Backgrounds, composite, cut_out
from training.errors import DataError

TARGET = Input(height=40, width=48, resize="crop")
CALM = Augmentation(clutter=0, colour=0, camera=0)


def disc(colour: tuple[int, int, int], *, highlight: bool = False) -> np.ndarray:
    """As a studio has it: antialiased, on white."""
    image = Image.new("RGB", (400, 400), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((80, 80, 320, 320), fill=colour)
    if highlight:
        pen.ellipse((170, 170, 230, 230), fill="white")
    return np.asarray(image.resize((100, 100), Image.Resampling.BOX))


def test_a_cut_out_is_the_disc_without_a_white_rim():
    cut = cut_out(disc((150, 20, 30)))
    assert abs(cut.shape[0] - 60) <= 6
    assert abs(cut.shape[1] - 60) <= 6
    # Of the green that white has and the disc has not, as much as is seen of it.
    assert (cut[:, :, 1] * (cut[:, :, 3] / 255)).max() < 60, "some white is left"
    assert cut[cut.shape[0] // 2, cut.shape[1] // 2].tolist() == [150, 20, 30, 255]
    assert not cut[0, 0, 3], "the corner is background"


def test_a_highlight_inside_stays():
    cut = cut_out(disc((150, 20, 30), highlight=True))
    assert cut[cut.shape[0] // 2, cut.shape[1] // 2].tolist() == [255, 255, 255, 255]


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(np.full((20, 30, 3), 90, np.uint8), id="no-white-at-the-border"),
        pytest.param(np.full((20, 30, 3), 255, np.uint8), id="nothing-but-white"),
    ],
)
def test_what_cannot_be_cut_out_comes_back_whole(picture: np.ndarray):
    cut = cut_out(picture)
    np.testing.assert_array_equal(cut[:, :, :3], picture)
    assert (cut[:, :, 3] == 255).all()


def composed(colour: tuple[int, int, int], seed: int, how: Augmentation) -> np.ndarray:
    rng = np.random.default_rng(seed)
    background = np.full((TARGET.height, TARGET.width, 3), (60, 90, 140), np.uint8)
    return composite([cut_out(disc(colour))], background, TARGET, rng, how)


def test_a_composite_is_of_its_size_and_the_same_for_the_same_dice():
    one, same, other = (composed((150, 20, 30), seed, Augmentation()) for seed in (1, 1, 2))
    assert (one.shape, one.dtype) == ((40, 48, 3), np.uint8)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize("seed", range(6))
def test_the_object_is_in_the_composite(seed: int):
    red, green, _ = np.moveaxis(composed((150, 20, 30), seed, CALM).astype(int), 2, 0)
    # The background is bluish everywhere.
    assert (red > green + 40).mean() > 0.01


def test_without_cut_outs_a_composite_has_none():
    background = np.full((40, 48, 3), (60, 90, 140), np.uint8)
    how = Augmentation(clutter=0, colour=0, camera=0)
    red, _, blue = np.moveaxis(composite([], background, TARGET, np.random.default_rng(2), how).astype(int), 2, 0)
    # Half of it and more is the background still.
    assert (blue > red).mean() > 0.5


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"negatives": 1.0}, id="nothing-but-negatives"),
        pytest.param({"copies": 0, "plain": 0.0}, id="nothing-of-the-classes"),
        pytest.param({"clutter": 1.5}, id="probability-above-one"),
        pytest.param({"colours": 1.0}, id="unknown"),
    ],
)
def test_an_augmentation_that_makes_no_sense_is_refused(values: dict[str, float]):
    with pytest.raises(ValidationError):
        Augmentation.model_validate(values)


def test_backgrounds_are_drawn_endlessly_and_of_the_size_asked_for():
    rng = np.random.default_rng(3)
    drawn = [Backgrounds().draw(rng, 20, 30) for _ in range(12)]
    assert {picture.shape for picture in drawn} == {(20, 30, 3)}
    assert len({picture.tobytes() for picture in drawn}) == 12


def test_photographs_are_found_at_any_depth_and_shown_as_often_as_asked(tmp_path: Path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    Image.new("RGB", (700, 900), (10, 200, 10)).save(tmp_path / "deep" / "er" / "green.png")
    (tmp_path / ".hidden").write_bytes(b"no picture")
    backgrounds = Backgrounds.of_folder(tmp_path, share=1.0)
    assert [min(photograph.shape[:2]) < 700 for photograph in backgrounds.photographs] == [True]
    part = backgrounds.draw(np.random.default_rng(1), 20, 30)
    np.testing.assert_array_equal(part, np.broadcast_to((10, 200, 10), (20, 30, 3)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, r"expected pictures .* at any depth, found none", id="empty"),
        pytest.param(b"no picture", r"broken\.jpg: expected a photograph, found: ", id="broken"),
    ],
)
def test_a_folder_of_photographs_that_is_none_is_said(tmp_path: Path, content: bytes | None, message: str):
    if content:
        draw("circle", 1).save(tmp_path / "a.png")
        (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(DataError, match=message):
        Backgrounds.of_folder(tmp_path)
