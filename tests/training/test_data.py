"""Which pictures are found, how they are split, and what is made of them."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.decode import decode, fit
from service.manifest import Input
from tests.conftest import draw, encode
from training.data import (
    MAX_PIXELS,
    DataSet,
    Listing,
    Picture,
    count_by_label,
    gather,
    hold_out,
    list_classes,
    list_pictures,
    list_strangers,
    load,
)
from training.errors import DataError

TINY = Input(height=4, width=4, resize="squash")
PIXELS = encode(Image.new("RGB", (2, 2), "navy"))


def write(folder: Path, *names: str, content: bytes = PIXELS) -> Path:
    """Files of the same content below `folder`."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def listed(folder: Path, test_fraction: float = 0.5, seed: int = 0) -> Listing:
    return list_pictures(folder, test_fraction=test_fraction, seed=seed)


def loaded(folder: Path) -> DataSet:
    return load(listed(folder), TINY)


def names(pictures: Iterable[Picture]) -> list[str]:
    return sorted(f"{picture.label}/{picture.path.name}" for picture in pictures)


def by_film(pictures: Iterable[Picture]) -> dict[tuple[str, str], list[int]]:
    """Frames by class and film."""
    films: dict[tuple[str, str], list[int]] = defaultdict(list)
    for picture in pictures:
        films[picture.label, picture.film].append(picture.frame)
    return films


# Finding


@pytest.mark.parametrize(
    ("training", "test"),
    [
        pytest.param("Training", "Test", id="fruits-360"),
        pytest.param("TRAINING", "TEST", id="upper-case"),
        pytest.param("train", "test", id="short"),
        pytest.param("Train", "tEST", id="mixed-case"),
    ],
)
def test_folders_training_and_test_are_the_split_whatever_their_case(tmp_path: Path, training: str, test: str):
    for name in (f"{training}/b/1.png", f"{training}/a/2.png", f"{test}/a/3.png", f"{test}/b/4.png"):
        write(tmp_path, name)
    listing = listed(tmp_path)
    assert listing.labels == ["a", "b"]
    assert names(listing.training) == ["a/2.png", "b/1.png"]
    assert names(listing.test) == ["a/3.png", "b/4.png"]
    assert listing.split == f"the folders {training} and {test}"


def test_of_one_folder_the_fraction_of_each_class_is_held_out(tmp_path: Path):
    write(tmp_path, *(f"{label}/{number}.png" for label in ("few", "many") for number in range(4)))
    write(tmp_path, *(f"many/more{number}.png" for number in range(16)))
    listing = listed(tmp_path, test_fraction=0.25)
    assert {label: sum(picture.label == label for picture in listing.test) for label in listing.labels} == {
        "few": 1,
        "many": 5,
    }
    assert len(listing.training) + len(listing.test) == 24
    assert listing.split.startswith("0.25 of each class held out")


def test_folders_without_a_picture_are_told(tmp_path: Path):
    write(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png", "notes/1.txt")
    (tmp_path / "empty").mkdir()
    assert listed(tmp_path).empty == ["empty", "notes"]
    for name in ("Training", "Test"):
        write(tmp_path / "split" / name, "a/1.png", "b/1.png")
    (tmp_path / "split" / "Test" / "c").mkdir()
    assert listed(tmp_path / "split").empty == ["Test/c"]


def test_every_picture_is_found_and_other_files_are_not(tmp_path: Path):
    pictures = [f"{label}/{name}" for label in "ab" for name in ("1.jpg", "2.JPEG", "3.Png", "4.webp", "5.tif")]
    write(tmp_path, *pictures)
    write(tmp_path, "a/notes.txt", "a/.6.jpg", "b/Thumbs.db", "b/deeper/7.jpg", ".hidden/8.jpg", "9.jpg", "a/jpg")
    listing = listed(tmp_path)
    assert names(listing.training + listing.test) == sorted(pictures)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param([], "expected pictures .* in class folders, found none", id="empty"),
        pytest.param(["1.png", "2.png"], "expected pictures .* in class folders, found none", id="no-class-folders"),
        pytest.param(["a/1.txt", "b/1.txt"], "expected pictures .*, found none", id="no-pictures"),
        pytest.param(["a/1.png", "a/2.png"], "at least two class folders with pictures, found one: a", id="one-class"),
        pytest.param(
            ["a/1.png", "a/2.png", "b/1.png"], r"no training pictures of b \(1 in all\); each", id="a-lone-picture"
        ),
        pytest.param(
            ["Training/a/1.png", "Training/b/1.png"], "Training and Test or neither, found only Training", id="no-test"
        ),
        pytest.param(
            ["test/a/1.png", "test/b/1.png"], "Training and Test or neither, found only test", id="no-training"
        ),
        pytest.param(
            ["Training/a/1.png", "Training/b/1.png", "Test/a/1.png"],
            r"no test pictures of b \(1 in all\); each class needs training and test pictures",
            id="a-class-that-is-never-tested",
        ),
        pytest.param(
            ["Training/a/1.png", "Test/a/1.png", "Test/b/1.png", "Test/c/1.png"],
            r"no training pictures of b \(1 in all\), c \(1 in all\); each class needs training and test pictures",
            id="classes-that-are-never-trained",
        ),
    ],
)
def test_a_folder_that_is_no_data_set_is_named_with_what_was_found(tmp_path: Path, files: list[str], message: str):
    write(tmp_path, *files)
    with pytest.raises(DataError, match=message) as raised:
        listed(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}: ")


def test_no_folder_is_no_data_set(tmp_path: Path):
    with pytest.raises(DataError, match="nowhere: expected a folder of class folders, found none"):
        listed(tmp_path / "nowhere")


def test_a_file_is_no_data_set(tmp_path: Path):
    write(tmp_path, "archive.zip")
    with pytest.raises(DataError, match=r"archive\.zip: expected a folder of class folders, found a file"):
        listed(tmp_path / "archive.zip")


@pytest.mark.skipif(os.name == "nt", reason="Windows' file names are Unicode")
@pytest.mark.parametrize(
    "name", [pytest.param(b"\xc4pfel/1.png", id="class"), pytest.param(b"a/\xc4pfel.png", id="file")]
)
def test_a_name_that_is_no_unicode_is_an_error_that_can_be_printed(tmp_path: Path, name: bytes):
    # Neither a label nor the digest could hold it: both are UTF-8.
    write(tmp_path, *(f"{label}/{number}.png" for label in "ab" for number in (1, 2)))
    write(tmp_path, os.fsdecode(name), os.fsdecode(name.replace(b".", b"2.")))
    with pytest.raises(DataError, match="pfel") as raised:
        loaded(tmp_path)
    assert b"pfel" in str(raised.value).encode()


# Holding out


def test_frames_of_fruits_360_know_their_film(tmp_path: Path):
    write(tmp_path, "a/r_109_100.jpg", "a/109_100.jpg", "a/r2_7_100.jpg", "a/photo.jpg", "b/1_100.jpg", "b/2_100.jpg")
    listing = listed(tmp_path)
    found = {picture.path.name: (picture.film, picture.frame) for picture in listing.training + listing.test}
    films = [found[name][0] for name in ("r_109_100.jpg", "109_100.jpg", "r2_7_100.jpg", "photo.jpg")]
    assert len(set(films)) == 4
    assert [found[name][1] for name in ("r_109_100.jpg", "109_100.jpg", "r2_7_100.jpg")] == [109, 109, 7]


@pytest.mark.parametrize("seed", range(5))
def test_a_film_is_cut_at_one_place_in_the_order_of_its_frames(tmp_path: Path, seed: int):
    # 95 to 104: by name, 100 comes before 95.
    write(
        tmp_path,
        *(f"{label}/{film}{frame}_100.jpg" for label in "ab" for film in ("", "r_") for frame in range(95, 105)),
    )
    listing = listed(tmp_path, test_fraction=0.25, seed=seed)
    for label in "ab":
        held_out = {film: frames for (of, film), frames in by_film(listing.test).items() if of == label}
        assert [sorted(frames) for frames in held_out.values()] == [[100, 101, 102, 103, 104]]


@pytest.mark.parametrize("seed", range(5))
def test_a_film_that_fits_is_held_out_whole_instead_of_cutting_another(tmp_path: Path, seed: int):
    write(tmp_path, *(f"{label}/{frame}_100.jpg" for label in "ab" for frame in range(17)))
    write(tmp_path, *(f"{label}/r_{frame}_100.jpg" for label in "ab" for frame in range(3)))
    listing = listed(tmp_path, test_fraction=0.15, seed=seed)
    assert set(by_film(listing.test)) == {("a", "r"), ("b", "r")}
    assert set(by_film(listing.training)) == {("a", ""), ("b", "")}


def _pictures(films: dict[str, list[int]]) -> list[Picture]:
    return [
        Picture(Path(label, f"{film}_{frame}.png"), label, f"film{film}", frame)
        for label, lengths in films.items()
        for film, length in enumerate(lengths)
        for frame in range(length)
    ]


@given(
    films=st.dictionaries(
        st.sampled_from(["apple", "kiwi", "plum"]), st.lists(st.integers(1, 12), min_size=1, max_size=8), min_size=1
    ),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
    order=st.randoms(use_true_random=False),
)
@example(films={"two pictures": [1, 1]}, fraction=0.8, seed=0, order=random.Random(0))
@example(films={"one film": [2]}, fraction=0.9, seed=0, order=random.Random(0))
@settings(deadline=None, max_examples=200, database=None)
def test_holding_out_keeps_films_together_and_loses_nothing(
    films: dict[str, list[int]], fraction: float, seed: int, order: random.Random
):
    pictures = _pictures(films)
    training, test = hold_out(pictures, fraction, seed)
    assert sorted(training + test) == sorted(pictures)

    again = order.sample(pictures, len(pictures))
    assert [sorted(split) for split in hold_out(again, fraction, seed)] == [sorted(training), sorted(test)]

    kept, held_out = by_film(training), by_film(test)
    for label, lengths in films.items():
        number, tested = sum(lengths), sum(picture.label == label for picture in test)
        if number >= 2:
            assert 1 <= tested < number
        assert abs(tested - fraction * number) <= 0.5 or tested in (1, number - 1)
        cut = [film for film in kept.keys() & held_out.keys() if film[0] == label]
        assert len(cut) <= 1
        for film in cut:
            assert max(kept[film]) < min(held_out[film])
            whole = [frames for other, frames in kept.items() if other[0] == label and other != film]
            assert all(len(frames) > len(held_out[film]) for frames in whole)


def test_another_seed_holds_out_others():
    pictures = _pictures({"apple": [1] * 20})
    chosen = {tuple(sorted(hold_out(pictures, 0.5, seed)[1])) for seed in range(5)}
    assert len(chosen) == 5


# Reading


def test_each_picture_is_read_into_its_split_and_class(tmp_path: Path):
    write(tmp_path, "Training/black/1.png", "Test/black/2.png", content=encode(Image.new("RGB", (3, 3), "black")))
    write(tmp_path, "Training/white/1.png", "Test/white/2.png", content=encode(Image.new("RGB", (3, 3), "white")))
    write(tmp_path, "Training/white/3.png", content=encode(Image.new("RGB", (3, 3), "white")))
    calls: list[None] = []
    data = load(listed(tmp_path), TINY, lambda: calls.append(None))
    assert data.labels == ["black", "white"]
    assert (data.training.images.shape, data.training.images.dtype) == ((3, 4, 4, 3), np.uint8)
    assert data.training.classes.tolist() == [0, 1, 1]
    assert data.test.classes.tolist() == [0, 1]
    for split in (data.training, data.test):
        assert (split.images == np.array([0, 255])[split.classes][:, None, None, None]).all()
    assert len(calls) == 5
    assert count_by_label(data.training.classes, data.labels) == {"black": 1, "white": 2}


def _turned_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(draw("square", 1, (60, 31)), "JPEG", exif=exif)


def _transparent_png() -> bytes:
    image = draw("circle", 2, (31, 60)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return encode(image)


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.jpg", _turned_jpeg(), id="turned-jpeg"),
        pytest.param("a.jpg", encode(draw("circle", 1, (800, 700)), "JPEG"), id="large-jpeg"),
        pytest.param("a.png", _transparent_png(), id="rgba-png"),
    ],
)
def test_training_sees_the_pixels_that_the_service_sees(tmp_path: Path, name: str, content: bytes, resize: str):
    target = Input(height=20, width=14, resize=resize)
    write(tmp_path, f"Training/a/{name}", f"Test/a/{name}", content=content)
    write(tmp_path, "Training/b/1.png", "Test/b/1.png")
    data = load(listed(tmp_path), target)
    served = fit(decode(content, max_pixels=MAX_PIXELS, target=target), target)
    np.testing.assert_array_equal(data.training.images[0], served)
    np.testing.assert_array_equal(data.test.images[0], served)


def test_a_turned_picture_is_upright_and_a_transparent_one_on_white(tmp_path: Path):
    # The square's left half is dark: turned by 90 degrees to the right, its upper half.
    write(tmp_path, "Training/turned/1.jpg", "Test/turned/1.jpg", content=_turned_jpeg())
    write(tmp_path, "Training/clear/1.png", "Test/clear/1.png", content=_transparent_png())
    data = load(listed(tmp_path), Input(height=20, width=10, resize="squash"))
    clear, turned = (data.training.images[number].astype(int) for number in (0, 1))
    assert turned[:8].max() < 120 < 180 < turned[12:].min()
    assert clear[0].min() > 240


# Pictures that cannot be read


def _hundred_and_one(folder: Path) -> Path:
    return write(folder, *(f"{label}/{number}.png" for label in "ab" for number in range(50)), "b/50.png")


def test_one_unreadable_picture_of_a_hundred_is_skipped_and_named(tmp_path: Path):
    whole = loaded(_hundred_and_one(tmp_path))
    write(tmp_path, "a/7.png", content=PIXELS[:40])
    data = loaded(tmp_path)
    assert data.unreadable == {"a/7.png": "the picture is truncated or damaged"}
    assert len(data.training.classes) + len(data.test.classes) == 100
    assert len(data.training.images) == len(data.training.classes)
    assert whole.unreadable == {}
    assert whole.digest != data.digest


def test_a_picture_without_bytes_and_one_without_a_file_are_named_with_the_reason(tmp_path: Path):
    write(tmp_path, *(f"{label}/{number}.png" for label in "ab" for number in range(100)))
    write(tmp_path, "a/7.png", content=b"")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert loaded(tmp_path).unreadable == {
        "a/7.png": "expected a picture, got 0 bytes",
        "b/gone.png": "No such file or directory",
    }


def test_more_than_one_unreadable_picture_of_a_hundred_is_an_error_that_names_them(tmp_path: Path):
    write(_hundred_and_one(tmp_path), "a/7.png", "b/3.png", content=PIXELS[:40])
    with pytest.raises(DataError, match="2 of 101 pictures cannot be read, expected at most 1%") as raised:
        loaded(tmp_path)
    for name in ("a/7.png", "b/3.png"):
        assert f"  {name}: the picture is truncated or damaged" in str(raised.value).splitlines()


@pytest.mark.parametrize(("broken", "split"), [("Training", "training"), ("Test", "test")])
def test_a_class_without_any_readable_picture_is_an_error(tmp_path: Path, broken: str, split: str):
    folders = {"Training", "Test"}
    write(tmp_path, *(f"{folder}/a/{number}.png" for folder in folders for number in range(60)))
    write(tmp_path, *(f"{folder}/b/1.png" for folder in folders))
    write(tmp_path, f"{broken}/b/1.png", content=PIXELS[:40])
    with pytest.raises(DataError, match=f"no readable {split} picture of b"):
        loaded(tmp_path)


# The digest


@pytest.fixture
def digested(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for number, name in enumerate(("Training/a/1.png", "Training/b/1.png", "Test/a/2.png", "Test/b/2.png")):
        write(folder, name, content=encode(draw("circle", number, (8, 8))))
    return folder


def _flip_last_byte(folder: Path) -> None:
    # After a PNG's end: the pixels stay.
    path = folder / "Test" / "b" / "2.png"
    path.write_bytes(path.read_bytes() + b"\0")


def _rename(folder: Path) -> None:
    (folder / "Training" / "a" / "1.png").rename(folder / "Training" / "a" / "one.png")


def _move_to_other_class(folder: Path) -> None:
    (folder / "Training" / "a" / "1.png").rename(folder / "Training" / "b" / "3.png")
    write(folder, "Training/a/1.png")


def _swap(folder: Path) -> None:
    one, two = folder / "Training" / "a" / "1.png", folder / "Training" / "b" / "1.png"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_flip_last_byte, id="a-byte"),
        pytest.param(_rename, id="a-name"),
        pytest.param(_move_to_other_class, id="a-class"),
        pytest.param(_swap, id="contents-swapped"),
        pytest.param(lambda folder: write(folder, "Test/a/3.png"), id="one-more"),
    ],
)
def test_the_digest_changes_with_a_byte_or_a_name(digested: Path, change: object):
    before = loaded(digested).digest
    assert callable(change)
    change(digested)
    assert loaded(digested).digest != before


def test_the_digest_does_not_change_with_the_folders_place_or_the_listings_order(digested: Path, tmp_path: Path):
    listing = listed(digested)
    before = load(listing, TINY).digest
    reordered = replace(listing, training=listing.training[::-1], test=listing.test[::-1])
    assert load(reordered, TINY).digest == before
    assert loaded(shutil.copytree(digested, tmp_path / "elsewhere" / "copy")).digest == before


def test_the_digest_does_not_change_with_the_models_input_or_other_files(digested: Path):
    before = loaded(digested).digest
    write(digested, "Test/a/notes.txt", "LICENSE")
    assert load(listed(digested), Input(height=7, width=9, resize="pad")).digest == before


@pytest.mark.realdata
def test_fruits_360_is_found_whole(data_folder: Path):
    listing = listed(data_folder / "fruits-360")
    assert len(listing.labels) == 16
    assert (len(listing.training), len(listing.test)) == (7_709, 2_592)


# One folder that is not split


def test_class_folders_are_listed_and_classes_may_be_missing(tmp_path: Path):
    write(tmp_path, "a/1.png", "a/2.png", "c/1.png", "a/notes.txt", ".hidden/1.png")
    assert names(list_classes(tmp_path, ["a", "b", "c"])) == ["a/1.png", "a/2.png", "c/1.png"]


def test_of_a_split_folder_the_test_pictures_are_listed(tmp_path: Path):
    write(tmp_path, "Training/a/1.png", "Test/a/2.png")
    assert [picture.path for picture in list_classes(tmp_path, ["a", "b"])] == [tmp_path / "Test" / "a" / "2.png"]


def test_a_class_may_be_named_test(tmp_path: Path):
    write(tmp_path, "Test/1.png", "a/1.png")
    assert names(list_classes(tmp_path, ["Test", "a"])) == ["Test/1.png", "a/1.png"]


def test_folders_that_are_no_class_are_named(tmp_path: Path):
    write(tmp_path, "a/1.png", "x/1.png", "y/1.png")
    with pytest.raises(
        DataError, match=r"expected class folders named .* 6 labels \(a, b, c, d, e, ...\), found x, y$"
    ):
        list_classes(tmp_path, list("abcdef"))


def test_strangers_are_found_at_any_depth(tmp_path: Path):
    write(tmp_path, "1.png", "x/2.jpg", "x/y/3.webp", "x/.cache/4.png", "5.txt")
    assert [picture.path.name for picture in list_strangers(tmp_path)] == ["1.png", "2.jpg", "3.webp"]


@pytest.mark.parametrize("find", [lambda folder: list_classes(folder, ["a"]), list_strangers], ids=["known", "strange"])
def test_a_folder_without_pictures_or_no_folder_is_refused(tmp_path: Path, find: Callable[[Path], object]):
    with pytest.raises(DataError, match=r"expected pictures .* found none"):
        find(tmp_path)
    with pytest.raises(DataError, match="expected a folder of pictures, found none"):
        find(tmp_path / "nowhere")
    with pytest.raises(DataError, match="expected a folder of pictures, found a file"):
        find(write(tmp_path, "file") / "file")


def test_what_cannot_be_read_is_skipped_and_named(tmp_path: Path):
    write(tmp_path, *(f"a/{number:03}.png" for number in range(100)))
    write(tmp_path, "a/050.png", content=b"no picture")
    ticks: list[None] = []
    found = gather(tmp_path, list_classes(tmp_path, ["a"]), TINY, lambda: ticks.append(None))
    assert found.images.shape == (99, 4, 4, 3)
    assert found.names == [f"a/{number:03}.png" for number in range(100) if number != 50]
    assert list(found.unreadable) == ["a/050.png"]
    assert len(ticks) == 100


def test_too_many_that_cannot_be_read_are_an_error(tmp_path: Path):
    write(tmp_path, *(f"a/{number:02}.png" for number in range(99)))
    write(tmp_path, "a/50.png", content=b"no picture")
    with pytest.raises(
        DataError, match=r"1 of 99 pictures cannot be read, expected at most 1%:\n  a/50.png: expected "
    ):
        gather(tmp_path, list_classes(tmp_path, ["a"]), TINY)


def test_the_digest_is_of_names_and_bytes(tmp_path: Path):
    def digest(name: str, content: bytes = PIXELS) -> str:
        folder = write(tmp_path / str(len(list(tmp_path.iterdir()))), name, content=content)
        return gather(folder, list_strangers(folder), TINY).digest

    assert digest("a/1.png") == digest("a/1.png")
    other = encode(Image.new("RGB", (2, 2), "red"))
    assert len({digest("a/1.png"), digest("a/2.png"), digest("a/1.png", other)}) == 3


@pytest.mark.skipif(os.name == "nt", reason="names there are Unicode")
def test_a_name_that_is_no_utf_8_is_an_error_of_one_folder_too(tmp_path: Path):
    try:
        write(tmp_path, os.fsdecode(b"a/\xff.png"))
    except OSError:
        pytest.skip("the file system refuses such names itself")
    with pytest.raises(DataError, match=r"expected names in UTF-8, found 'a/\\udcff.png'"):
        gather(tmp_path, list_classes(tmp_path, ["a"]), TINY)
