"""What is found in a folder of pictures, and how it is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from service.decode import decode
from service.manifest import Input
from tests.conftest import ROOT, SHAPES, draw, encode
from training.__main__ import app
from training.data import list_pictures, load
from training.errors import DataError
from training.exploration_report import write_exploration
from training.explore import Exploration, explore
from training.likeness import (
    COLOUR_PAIRS,
    HASH_PAIRS,
    MAX_BITS,
    MAX_COLOURS,
    Fingerprints,
    fingerprint,
    gather,
    most_alike,
)

CIRCLE = encode(draw("circle", 0))


def write(folder: Path, *names: str, content: bytes = CIRCLE) -> Path:
    """Files of the same content below `folder`."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_drawn(folder: Path, *names: str) -> Path:
    """A circle of its own colours under each name."""
    for seed, name in enumerate(names):
        write(folder, name, content=encode(draw("circle", seed)))
    return folder


def facts(folder: Path) -> Exploration:
    return explore(folder).facts


def here(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# Classes and files


def test_each_class_is_counted_by_split(tmp_path: Path):
    write_drawn(tmp_path, "Training/b/1.png", "Training/b/2.png", "Training/a/1.png", "TEST/a/1.png")
    found = facts(tmp_path)
    assert found.splits == ["training", "test"]
    assert {one.label: one.pictures for one in found.classes} == {
        "a": {"training": 1, "test": 1},
        "b": {"training": 2, "test": 0},
    }
    assert (found.pictures, found.imbalance) == (4, 2.0)


def test_of_training_and_train_the_first_is_taken_as_by_fit(tmp_path: Path):
    write_drawn(tmp_path, *(f"{split}/{label}/1.png" for split in ("train", "Training", "test") for label in "ab"))
    write(tmp_path, "train/c/1.png", "valid/a/1.png")
    found = facts(tmp_path)
    listing = list_pictures(tmp_path, test_fraction=0.2, seed=0)
    assert found.pictures == len(listing.training + listing.test) == 4
    assert [one.label for one in found.classes] == ["a", "b"]
    assert found.ignored == {"a picture outside the class folders": 4}


def test_without_training_and_test_all_pictures_are_one_split(drawn_folder: Path):
    found = facts(drawn_folder)
    assert found.splits == ["all"]
    assert {one.label: one.pictures["all"] for one in found.classes} == dict.fromkeys(SHAPES, 40)


def test_sizes_formats_and_modes_are_those_of_the_files(tmp_path: Path):
    write(tmp_path, "a/1.png", content=encode(Image.new("L", (10, 20))))
    write(tmp_path, "a/2.jpg", content=encode(Image.new("RGB", (40, 20)), "JPEG"))
    write(tmp_path, "a/3.png", content=encode(Image.new("RGBA", (40, 20))))
    found = facts(tmp_path)
    assert found.formats == {"PNG": 2, "JPEG": 1}
    assert found.modes == {"L": 1, "RGB": 1, "RGBA": 1}
    assert found.sizes == {"40 x 20": 2, "10 x 20": 1}
    assert found.widths
    assert (found.widths.least, found.widths.median, found.widths.greatest) == (10, 40, 40)
    assert (found.widths.edges[0], found.widths.edges[-1], sum(found.widths.counts)) == (10, 40, 3)
    assert found.aspects
    assert (found.aspects.least, found.aspects.greatest) == (0.5, 2)
    assert found.file_bytes
    assert found.file_bytes.least == min(path.stat().st_size for path in (tmp_path / "a").iterdir())


def test_a_size_is_that_of_the_upright_picture(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path, "a/1.jpg", content=encode(Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert facts(tmp_path).sizes == {"20 x 40": 1}


def test_unreadable_pictures_are_named_with_the_reason(tmp_path: Path):
    write(tmp_path, "a/good.png")
    write(tmp_path, "a/short.png", content=CIRCLE[:-40])
    write(tmp_path, "a/text.jpg", content=b"no picture")
    (tmp_path / "a" / "folder.png").mkdir()
    found = facts(tmp_path)
    assert found.unreadable == {
        "a/folder.png": "Is a directory",
        "a/short.png": "the picture is truncated or damaged",
        "a/text.jpg": "expected JPEG, PNG, WEBP, GIF, BMP, TIFF or AVIF, got none of them",
    }
    assert found.classes[0].unreadable == 3
    assert "3 pictures cannot be read" in found.warnings


def test_other_files_are_counted_by_why_they_are_none_of_the_pictures(tmp_path: Path):
    write(tmp_path, "a/1.png", "a/notes.TXT", "a/README", "a/.2.png", ".git/3.png", "4.png", "a/deeper/5.png")
    found = facts(tmp_path)
    assert found.pictures == 1
    assert found.ignored == {"a picture outside the class folders": 2, "hidden": 2, ".txt": 1, "no suffix": 1}
    assert found.ignored_listed == [".git/3.png", "4.png", "a/.2.png", "a/README", "a/deeper/5.png", "a/notes.TXT"]


def test_class_folders_without_pictures_are_named(tmp_path: Path):
    write(tmp_path, "a/1.png", "notes/1.txt")
    (tmp_path / "empty").mkdir()
    found = facts(tmp_path)
    assert found.empty_classes == ["empty", "notes"]
    assert "class folders without pictures: empty, notes" in found.warnings


@pytest.mark.parametrize(
    ("many", "warned"), [pytest.param(29, False, id="not-thrice"), pytest.param(30, True, id="thrice")]
)
def test_a_class_of_three_times_the_pictures_is_warned_of(tmp_path: Path, many: int, warned: bool):
    write(tmp_path, *(f"few/{number}.png" for number in range(10)))
    write(tmp_path, *(f"many/{number}.png" for number in range(many)))
    assert any("the largest class has 3.0 times" in text for text in facts(tmp_path).warnings) == warned


def test_samples_are_drawn_by_the_seed(drawn_folder: Path):
    one, again, other = (explore(drawn_folder, seed=seed).facts for seed in (1, 1, 2))
    assert one == again
    assert [len(drawn.samples) for drawn in one.classes] == [6, 6, 6]
    assert all((drawn_folder / name).is_file() for drawn in one.classes for name in drawn.samples)
    assert [drawn.samples for drawn in one.classes] != [drawn.samples for drawn in other.classes]


def test_the_mean_picture_is_the_mean_of_each_pixel(tmp_path: Path):
    for number, colour in enumerate(((0, 100, 200), (10, 100, 0), (20, 103, 1))):
        write(tmp_path, f"a/{number}.png", content=encode(Image.new("RGB", (7, 5), colour)))
    write(tmp_path, "a/broken.png", content=b"")
    (mean,) = explore(tmp_path).means.values()
    assert mean.shape == (64, 64, 3)
    assert np.unique(mean.reshape(-1, 3), axis=0).tolist() == [[10, 101, 67]]


# Duplicates


def test_copies_are_found_within_and_across_splits_and_classes(tmp_path: Path):
    write_drawn(tmp_path, "Training/a/1.png", "Training/b/2.png", "Training/a/3.png", "Test/b/4.png")
    for source, copy in (
        ("Training/a/1.png", "Training/a/copy.png"),
        ("Training/a/1.png", "Training/b/copy.png"),
        ("Training/b/2.png", "Test/b/copy.png"),
    ):
        shutil.copy(tmp_path / source, tmp_path / copy)
    found = facts(tmp_path).exact_duplicates
    assert (found.groups, found.files, found.across_splits, found.across_classes) == (2, 3, 1, 1)
    assert sorted(map(sorted, found.listed)) == [
        ["Test/b/copy.png", "Training/b/2.png"],
        ["Training/a/1.png", "Training/a/copy.png", "Training/b/copy.png"],
    ]


def test_a_test_picture_that_is_a_training_picture_saved_anew_is_a_near_duplicate(tmp_path: Path):
    for seed, shape in enumerate(SHAPES):
        write(tmp_path, f"Training/{shape}/1.png", content=encode(draw(shape, seed, (96, 96))))
    smaller = draw("circle", 0, (96, 96)).resize((60, 60))
    write(tmp_path, "Test/circle/2.jpg", content=encode(smaller, "JPEG", quality=80))
    write(tmp_path, "Test/square/3.png", content=encode(draw("circle", 7, (96, 96))))
    found = facts(tmp_path)
    near = found.near_duplicates
    assert near
    assert (near.compared, near.pictures, near.alike, near.of_another_class) == (
        "test pictures with training pictures",
        2,
        1,
        0,
    )
    assert [(pair.first, pair.second) for pair in near.listed] == [("Test/circle/2.jpg", "Training/circle/1.png")]
    assert near.listed[0].bits <= MAX_BITS
    assert {one.label: one.alike for one in found.classes} == {"circle": 1, "square": 0, "stripes": 0}
    assert any(text.startswith("1 of 2 test pictures (50%) are nearly the same") for text in found.warnings)


def test_near_duplicates_of_another_class_are_listed_first(tmp_path: Path):
    first, second = draw("circle", 0), draw("stripes", 0)
    write(tmp_path, "Training/a/1.png", "Test/a/1.png", content=encode(first))
    write(tmp_path, "Training/b/2.png", content=encode(second))
    write(tmp_path, "Test/a/2.jpg", content=encode(second, "JPEG", quality=90))
    found = facts(tmp_path)
    assert found.near_duplicates
    assert found.near_duplicates.of_another_class == 1
    assert [pair.first for pair in found.near_duplicates.listed] == ["Test/a/2.jpg", "Test/a/1.png"]
    assert "1 pictures are nearly the same as one of another class: look at their labels" in found.warnings


def test_without_a_split_near_duplicates_are_looked_for_across_classes(tmp_path: Path):
    write(tmp_path, "a/1.png", "a/2.png", content=encode(draw("circle", 0)))
    write(tmp_path, "b/3.jpg", content=encode(draw("circle", 0), "JPEG", quality=90))
    write(tmp_path, "b/4.png", content=encode(draw("stripes", 0)))
    near = facts(tmp_path).near_duplicates
    assert near
    assert (near.pictures, near.alike, near.of_another_class) == (4, 3, 3)
    assert {frozenset((pair.first, pair.second)) for pair in near.listed} == {
        frozenset(("a/1.png", "b/3.jpg")),
        frozenset(("a/2.png", "b/3.jpg")),
    }


def test_of_one_class_and_no_split_there_is_nothing_to_compare(tmp_path: Path):
    assert facts(write(tmp_path, "a/1.png", "a/2.png")).near_duplicates is None


def bits_apart(one: Image.Image, other: Image.Image) -> int:
    return int(np.bitwise_count(fingerprint(one).hashes ^ fingerprint(other).hashes)[0])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda image: image.resize((150, 130)), id="scaled"),
        pytest.param(lambda image: decode(encode(image, "JPEG", quality=40), max_pixels=10**6), id="compressed"),
        pytest.param(lambda image: image.point(lambda value: value // 2), id="darker"),
    ],
)
def test_the_hash_stays_when_a_picture_is(change: Callable[[Image.Image], Image.Image]):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)).resize((90, 80))
    assert bits_apart(image, change(image)) <= MAX_BITS
    assert bits_apart(image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > 3 * MAX_BITS


def test_pictures_of_one_shape_and_different_colours_are_not_alike():
    red, blue, nearly_red = (
        fingerprint(
            Image.merge("RGB", [draw("circle", 0).convert("L").point(lambda v, s=s: v * s // 20) for s in scales])
        )
        for scales in ((20, 10, 10), (10, 10, 20), (20, 10, 11))
    )
    assert int(np.bitwise_count(red.hashes ^ blue.hashes)[0]) <= MAX_BITS
    found = most_alike(gather([red, blue]), gather([nearly_red]))
    assert found.nearest.tolist() == [0, -1]
    assert 0 < found.colours[0] < 8
    assert found.colours[1] == np.inf


def crowd(chance: np.random.Generator, count: int) -> Fingerprints:
    """Fingerprints about the same 10 points, some far and some near."""
    points = np.random.default_rng(0)
    hashes = points.integers(0, 2**63, 10, dtype=np.uint64)
    colours = points.integers(0, 200, (10, 216), dtype=np.uint8)
    which = chance.integers(0, 10, count)
    flips = np.bitwise_or.reduce(np.uint64(1) << chance.integers(0, 64, (3, count), dtype=np.uint64))
    noise = chance.integers(0, chance.integers(2, 40, (count, 1)), (count, 216)).astype(np.uint8)
    return Fingerprints(hashes[which] ^ flips, colours[which] + noise)


def test_the_most_alike_is_the_same_as_by_comparing_every_pair():
    chance = np.random.default_rng(3)
    ours, others = crowd(chance, 500), crowd(chance, 10_000)
    assert len(ours.hashes) * len(others.hashes) > HASH_PAIRS
    compared = 0
    expected = []
    for number, colours in zip(ours.hashes, ours.colours, strict=True):
        candidates = np.flatnonzero(np.bitwise_count(number ^ others.hashes) <= MAX_BITS)
        compared += len(candidates)
        differences = np.sqrt(np.square(colours - others.colours[candidates].astype(float)).mean(axis=1))
        best = differences.argmin()
        expected.append(int(candidates[best]) if differences[best] <= MAX_COLOURS else -1)
    assert compared > COLOUR_PAIRS
    assert 50 < expected.count(-1) < 450
    found = most_alike(ours, others)
    assert found.nearest.tolist() == expected
    chosen = found.nearest >= 0
    bits = np.bitwise_count(ours.hashes[chosen] ^ others.hashes[found.nearest[chosen]])
    assert found.bits[chosen].tolist() == bits.tolist()


def test_among_no_pictures_none_is_alike():
    one = fingerprint(draw("circle", 0))
    assert most_alike(one, gather([])).nearest.tolist() == [-1]
    assert most_alike(gather([]), one).nearest.tolist() == []


# Films


def test_test_frames_beside_training_frames_are_counted(tmp_path: Path):
    write(tmp_path, *(f"Training/a/{name}_100.jpg" for name in ("1", "2", "5", "r_1", "r_9")), "Training/b/7_100.jpg")
    write(tmp_path, *(f"Test/a/{name}_100.jpg" for name in ("3", "7", "r_8", "r2_2")), "Test/b/other.jpg")
    found = facts(tmp_path)
    assert found.films
    assert found.films.model_dump() == {
        "films": 4,
        "frames": 10,
        "test_frames": 4,
        "test_frames_of_training_films": 3,
        "test_frames_beside_training_frames": 2,
    }
    assert {one.label: one.films for one in found.classes} == {"a": 3, "b": 1}
    assert any(text.startswith("3 of 4 test frames are of films that training sees too, 2") for text in found.warnings)


def test_pictures_that_are_no_frames_make_no_films(drawn_folder: Path):
    assert facts(drawn_folder).films is None


# What fit would refuse


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        pytest.param(["a/1.png", "a/2.png"], [], id="one-class"),
        pytest.param([], [], id="empty"),
        pytest.param(["1.png"], [], id="no-class-folders"),
        pytest.param(["Training/a/1.png", "Training/b/1.png"], [], id="no-test"),
        pytest.param(["Training/a/1.png", "Training/b/1.png", "Test/a/1.png"], [], id="a-class-never-tested"),
        pytest.param(["a/1.png", "a/2.png", "b/1.png"], [], id="a-lone-picture"),
        pytest.param(["a/1.png", "a/2.png", "b/1.png", "b/2.png"], ["b/3.png"], id="many-unreadable"),
        pytest.param(
            [f"{split}/{label}/{number}.png" for split in ("train", "test") for label in "ab" for number in range(60)],
            ["train/c/1.png", "test/c/1.png"],
            id="a-class-unreadable",
        ),
        pytest.param(["a/1.png", "a/2.png", "b/1.png", "b/2.png"], [], id="good"),
    ],
)
def test_what_fit_refuses_is_explored_and_said(tmp_path: Path, good: list[str], bad: list[str]):
    write(write(tmp_path, *good), *bad, content=b"")
    try:
        load(list_pictures(tmp_path, test_fraction=0.2, seed=0), Input(height=4, width=4, resize="squash"))
        refused = False
    except DataError:
        refused = True
    found = facts(tmp_path)
    assert bool(found.refusals) == refused
    assert found.pictures == sum("/" in name for name in (*good, *bad))
    assert str(tmp_path) not in found.model_dump_json()


def test_a_class_that_cannot_be_read_is_named(tmp_path: Path):
    write(tmp_path, "Training/a/1.png", "Test/a/1.png", "Test/b/1.png")
    write(tmp_path, "Training/b/1.png", content=b"")
    assert "no readable training picture of b" in facts(tmp_path).refusals


def test_names_that_are_no_utf8_can_be_told(tmp_path: Path):
    name = b"a/\xff.png".decode("utf-8", "surrogateescape")
    found = facts(write(tmp_path, name, "a/1.png", "b/1.png", "b/2.png"))
    assert found.classes[0].pictures == {"all": 2}
    assert any(text.startswith("expected names in UTF-8") for text in found.refusals)
    assert Exploration.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("name", "found"), [pytest.param("none", "none", id="none"), pytest.param("f", "a file", id="file")]
)
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str, found: str):
    (tmp_path / "f").touch()
    with pytest.raises(DataError, match=f"{name}: expected a folder of pictures, found {found}"):
        explore(tmp_path / name)


def test_progress_is_told_picture_by_picture(drawn_folder: Path):
    told: list[int] = []
    explore(drawn_folder, on_listed=told.append, on_picture=lambda: told.append(1))
    assert told == [120] + [1] * 120


# The page


def test_the_page_names_only_pictures_beside_it_and_no_place_of_the_machine(drawn_folder: Path, tmp_path: Path):
    page = write_exploration(explore(drawn_folder), drawn_folder, tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    shown = set(re.findall(r'(?:src|href)="([^"]*)"', text))
    assert shown == {path.name for path in page.parent.glob("*.png")}
    assert {"mean-0.png", "samples-2.png", "spreads.png"} <= shown
    for image in shown:
        decode((page.parent / image).read_bytes(), max_pixels=10**7)
    for path in (page, page.parent / "explore.json"):
        assert str(drawn_folder.parent) not in path.read_text(encoding="utf-8")
        assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_samples_are_shown_side_by_side(tmp_path: Path):
    write(tmp_path, "a/1.png", content=encode(Image.new("RGB", (30, 30), "red")))
    write(tmp_path, "a/2.png", content=encode(Image.new("RGB", (30, 30), "blue")))
    page = write_exploration(explore(tmp_path), tmp_path, tmp_path / "out")
    with Image.open(page.parent / "samples-0.png") as strip:
        assert strip.size == (2 * 128 + 8, 128)
        left, gap, right = (strip.convert("RGB").getpixel((x, 64)) for x in (64, 132, 200))
    assert (left, gap, right) == ((255, 0, 0), (255, 255, 255), (0, 0, 255))


def test_a_sample_that_is_gone_since_is_blank(drawn_folder: Path, tmp_path: Path):
    folder = shutil.copytree(drawn_folder, tmp_path / "pictures")
    explored = explore(folder)
    shutil.rmtree(folder / "circle")
    page = write_exploration(explored, folder, tmp_path / "out")
    strip = decode((page.parent / "samples-0.png").read_bytes(), max_pixels=10**6)
    assert strip.getextrema() == ((255, 255), (255, 255), (255, 255))


def test_names_are_escaped_on_the_page(tmp_path: Path):
    folder = tmp_path / "<i>$x"
    write(folder, "<b>bold/1.png", "<b>bold/<u>.txt", "c/[red]2.png")
    write(folder, "c/<s>.png", content=b"")
    page = write_exploration(explore(folder), folder, tmp_path / "out").read_text(encoding="utf-8")
    assert "&lt;b&gt;bold" in page
    assert not re.search("<[ibus]>", page)


@pytest.mark.parametrize("files", [pytest.param([], id="empty"), pytest.param(["a/1.png"], id="one-broken-picture")])
def test_a_folder_without_a_readable_picture_has_a_page(tmp_path: Path, files: list[str]):
    folder = tmp_path / "pictures"
    folder.mkdir()
    write(folder, *files, content=b"")
    page = write_exploration(explore(folder), folder, tmp_path / "out")
    assert "fit will refuse:" in page.read_text(encoding="utf-8")


def test_exploring_again_replaces_the_page(drawn_folder: Path, tmp_path: Path):
    first = write_exploration(explore(drawn_folder), drawn_folder, tmp_path).read_text(encoding="utf-8")
    again = write_exploration(explore(drawn_folder, seed=5), drawn_folder, tmp_path).read_text(encoding="utf-8")
    assert "seed 0" in first
    assert "seed 5" in again


def test_a_place_that_cannot_be_written_is_said(drawn_folder: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: expected a folder to write to: File exists"):
        write_exploration(explore(drawn_folder), drawn_folder, tmp_path / "file")


# The command


def test_the_command_shows_tables_and_warnings_and_where_the_page_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "[red]fruit", "a/1.png", "[b]/2.png")
    done = here("explore", "[red]fruit")
    assert done.exit_code == 0
    assert re.search(r"\[b\]\W+1\W+0\W+0\W+1\b", done.stdout)
    assert "warning: 1 pictures are in several classes: one of the labels is wrong" in done.stdout
    assert "fit will refuse: no training pictures of [b] (1 in all), a (1 in all); each class needs" in done.stdout
    assert "wrote explore-[red]fruit/explore.html" in done.stdout
    assert (tmp_path / "explore-[red]fruit" / "explore.json").is_file()


def test_json_is_one_object_on_stdout_and_the_file_s(drawn_folder: Path, tmp_path: Path):
    done = here("explore", drawn_folder, "--out", tmp_path / "out", "--seed", "4", "--json")
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "out" / "explore.json").read_text(encoding="utf-8"))
    assert (printed["pictures"], printed["seed"]) == (120, 4)
    assert "reading pictures" in done.stderr


def test_without_the_libraries_of_reports_it_says_what_to_install(tmp_path: Path):
    hide = (
        "import runpy, sys; sys.modules['matplotlib'] = None; sys.argv[1:] = ['explore', '.']; "
        "runpy.run_module('training', run_name='__main__')"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", hide], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "matplotlib not installed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_not_there_is_one_clear_line_on_stderr(tmp_path: Path):
    done = here("explore", tmp_path / "nowhere", "--json", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line == f"error: {tmp_path / 'nowhere'}: expected a folder of pictures, found none"


@pytest.mark.parametrize(
    "arguments", [pytest.param([], id="no-folder"), pytest.param(["x", "--seed", "-1"], id="seed-below-0")]
)
def test_wrong_usage_has_exit_status_2(arguments: list[str]):
    assert here("explore", *arguments).exit_code == 2


def test_help_shows_examples():
    done = CliRunner().invoke(app, ["explore", "--help"], terminal_width=200)
    assert done.exit_code == 0
    assert "python -m training explore pictures --json | jq .warnings" in done.stdout


@pytest.mark.realdata
def test_fruits_360_s_test_pictures_are_nearly_training_pictures(data_folder: Path):
    found = facts(data_folder / "fruits-360")
    assert (found.pictures, len(found.classes), found.unreadable) == (10_301, 16, {})
    assert found.exact_duplicates.groups == 0
    assert found.films
    assert (found.films.films, found.films.test_frames_of_training_films) == (32, 2_592)
    assert found.films.test_frames_beside_training_frames == 407
    assert found.near_duplicates
    assert 0.4 < found.near_duplicates.alike / 2_592 < 0.6
    assert found.near_duplicates.of_another_class == 0
