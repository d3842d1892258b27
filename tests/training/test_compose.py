"""Which pictures a plan makes, of which class, and from which backgrounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.manifest import Input
from training.augment import Augmentation
from training.cache import Cache
from training.compose import Scenery, compose
from training.data import Picture, Split
from training.errors import DataError
from training.train import NONE_OF_THE_CLASSES, Examples

TARGET = Input(height=24, width=24, resize="crop")
COLOURS = ((170, 20, 20), (20, 40, 170))
# The light stays as it is: colours tell what was composed.
HOW = Augmentation(plain=0.5, copies=2, negatives=0.25, clutter=0, colour=0, camera=0)


def disc(colour: tuple[int, int, int], size: int) -> np.ndarray:
    image = Image.new("RGB", (24, 24), "white")
    ImageDraw.Draw(image).ellipse((12 - size, 12 - size, 12 + size, 12 + size), fill=colour)
    return np.asarray(image)


@pytest.fixture(scope="module")
def split() -> Split:
    """Red discs and blue discs, eight of each, all a little different."""
    images = np.stack([disc(colour, size) for colour in COLOURS for size in (6, 7, 8, 9, 10, 6, 7, 8)])
    return Split(images, np.repeat(np.arange(2, dtype=np.int32), 8), [Picture(Path(), "", "", 0)] * 16)


def made(
    split: Split, folder: Path, how: Augmentation = HOW, *, seed: int = 3, scenery: Path | None = None
) -> tuple[Examples, list[int]]:
    told: list[int] = []
    backgrounds = Scenery.of(scenery).training
    found = compose(
        split, how, TARGET, backgrounds, seed=seed, cache=Cache(folder), begin=told.append, done=lambda rows: None
    )
    return found, told


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs of walls, each of another grey."""
    folder = tmp_path_factory.mktemp("grey")
    for number in range(12):
        Image.new("RGB", (60, 40), (100 + number,) * 3).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def examples(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    found, told = made(split, tmp_path_factory.mktemp("cache"))
    assert told == [len(found.classes)]
    return found


def test_a_plan_has_plain_pictures_then_copies_then_negatives(examples: Examples):
    # Half of 16 plain, two copies of 16, and 13.3 more are a quarter of all.
    assert [int((examples.classes[part] == NONE_OF_THE_CLASSES).sum()) for part in (np.s_[:40], np.s_[40:])] == [0, 13]
    assert examples.images.shape == (53, 24, 24, 3)
    np.testing.assert_array_equal(examples.rows, np.arange(53))
    assert np.bincount(examples.classes[8:40]).tolist() == [16, 16]


def test_plain_pictures_are_as_they_were(examples: Examples, split: Split):
    known = {image.tobytes(): number for image, number in zip(split.images, split.classes, strict=True)}
    for image, number in zip(examples.images[:8], examples.classes[:8], strict=True):
        assert known[image.tobytes()] == number


def test_all_plain_keeps_the_order_of_the_pictures(split: Split, tmp_path: Path):
    found, _ = made(split, tmp_path, HOW.model_copy(update={"plain": 1.0}))
    np.testing.assert_array_equal(found.images[:16], split.images)
    np.testing.assert_array_equal(found.classes[:16], split.classes)


def test_a_composite_shows_what_its_class_says(split: Split, tmp_path: Path, grey: Path):
    how = HOW.model_copy(update={"smallest": 0.8, "several": 0.0, "copies": 4})
    found, _ = made(split, tmp_path, how, scenery=grey)
    composed = found.images[8:72].astype(int)
    redder = (composed[..., 0] > composed[..., 2] + 80).mean(axis=(1, 2))
    bluer = (composed[..., 2] > composed[..., 0] + 80).mean(axis=(1, 2))
    right = np.where(found.classes[8:72] == 0, redder > bluer, bluer > redder)
    # Here and there a drawn background is louder than the disc.
    assert right.mean() > 0.9


@pytest.mark.parametrize("again", [pytest.param(True, id="from-disk"), pytest.param(False, id="made-anew")])
def test_the_same_arguments_give_the_same_pictures(split: Split, tmp_path: Path, again: bool):
    first, _ = made(split, tmp_path / "one")
    second, _ = made(split, tmp_path / ("one" if again else "two"))
    np.testing.assert_array_equal(first.images, second.images)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"seed": 4}, id="seed"),
        pytest.param({"how": HOW.model_copy(update={"several": 0.0})}, id="augmentation"),
        pytest.param({"scenery": True}, id="photographs"),
    ],
)
def test_other_arguments_give_other_pictures(
    split: Split, examples: Examples, tmp_path: Path, grey: Path, change: dict[str, object]
):
    first, _ = made(split, tmp_path)
    other, _ = made(split, tmp_path, **{**change, **({"scenery": grey} if "scenery" in change else {})})
    assert len(list(tmp_path.glob("*.npy"))) == 2
    assert (first.images[8:] != other.images[8:]).any()


def test_every_tenth_photograph_is_held_out(grey: Path):
    scenery = Scenery.of(grey)
    held_out, training = (
        [int(photograph[0, 0, 0]) - 100 for photograph in backgrounds.photographs]
        for backgrounds in (scenery.held_out, scenery.training)
    )
    assert held_out == [0, 10]
    assert training == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]


def test_without_a_folder_there_are_no_photographs():
    scenery = Scenery.of(None)
    assert (scenery.training.photographs, scenery.held_out.photographs) == ([], [])
    assert (scenery.training.share, scenery.held_out.share) == (0, 0)


def test_one_photograph_is_held_out_and_training_draws_its_own(tmp_path: Path):
    Image.new("RGB", (40, 40), "green").save(tmp_path / "one.png")
    scenery = Scenery.of(tmp_path)
    assert len(scenery.held_out.photographs) == 1
    assert scenery.training.draw(np.random.default_rng(1), 8, 8).shape == (8, 8, 3)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(DataError, match="expected a folder of pictures, found none"):
        Scenery.of(tmp_path / "nowhere")
