"""Fruits-360 out of a tree as Kaggle's: whole, as expected, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.conftest import ROOT, draw, encode
from training.__main__ import app
from training.data import list_pictures
from training.download import DIGEST, LABELS, PICTURES, arrange
from training.errors import DataError

OTHERS = ("Apple Braeburn", "Apple Red 1")


def write_release(folder: Path, labels: tuple[str, ...] = LABELS) -> Path:
    """Drawn pictures laid out as a release of Fruits-360: three a class to train, one to test."""
    for number, label in enumerate((*labels, *OTHERS)):
        for split, frames in (("Training", (0, 1, 2)), ("Test", (3,))):
            (folder / split / label).mkdir(parents=True)
            for frame in frames:
                content = encode(draw("circle", 10 * number + frame, (10, 10)), "JPEG")
                (folder / split / label / f"r_{frame}_100.jpg").write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def here(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("fruits-360_dataset/fruits-360", id="until-2021"),
        pytest.param("fruits-360_100x100/fruits-360", id="newer"),
        pytest.param(".", id="bare"),
    ],
)
def test_the_workshop_s_classes_are_taken_out_of_a_release(tmp_path: Path, place: str):
    release = write_release(tmp_path / "tree" / place)
    (release / "test-multiple_fruits").mkdir()
    (release / "Training" / "Kiwi" / "notes.txt").touch()
    made = arrange(tmp_path / "tree", tmp_path / "to" / "fruits", any_release=True)
    listing = list_pictures(tmp_path / "to" / "fruits", test_fraction=0.2, seed=0)
    assert listing.labels == list(LABELS)
    assert (
        made.pictures
        == {"Training": 48, "Test": 16}
        == {
            "Training": len(listing.training),
            "Test": len(listing.test),
        }
    )
    copied = contents(tmp_path / "to" / "fruits")
    assert copied == {
        name: content
        for name, content in contents(release).items()
        if name.split("/")[1] in LABELS and not name.endswith(".txt")
    }
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["fruits"]


def test_of_several_sizes_the_one_with_the_classes_is_taken(tmp_path: Path):
    write_release(tmp_path / "tree" / "fruits-360_original-size" / "fruits-360", ("banana_1", "lemon_2"))
    write_release(tmp_path / "tree" / "fruits-360_some" / "fruits-360", LABELS[:3])
    write_release(tmp_path / "tree" / "fruits-360_the_100x100" / "fruits-360")
    write_release(tmp_path / "tree" / "fruits-360_whatever" / "fruits-360", LABELS[3:9])
    made = arrange(tmp_path / "tree", tmp_path / "fruits", any_release=True)
    assert made.pictures == {"Training": 48, "Test": 16}


def test_newer_releases_number_the_classes(tmp_path: Path):
    write_release(tmp_path / "tree", (*(f"{label} 1" for label in LABELS[1:]), "Apricot", "Apricot 1", "Kiwi 2"))
    made = arrange(tmp_path / "tree", tmp_path / "fruits", any_release=True)
    assert sorted(path.name for path in (tmp_path / "fruits" / "Training").iterdir()) == list(LABELS)
    assert "Training/Banana is 'Banana 1' there" in made.differences
    assert not any("Apricot" in text for text in made.differences)
    original = (tmp_path / "tree" / "Training" / "Apricot" / "r_0_100.jpg").read_bytes()
    assert (tmp_path / "fruits" / "Training" / "Apricot" / "r_0_100.jpg").read_bytes() == original


def test_another_release_is_not_kept_unless_asked_for(tmp_path: Path):
    write_release(tmp_path / "tree", LABELS[:-1])
    with pytest.raises(DataError) as refused:
        arrange(tmp_path / "tree", tmp_path / "fruits")
    assert "--any-release" in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
    made = arrange(tmp_path / "tree", tmp_path / "fruits", any_release=True)
    assert made.differences == [
        "no Training/Strawberry",
        "no Test/Strawberry",
        "45 pictures in Training, expected 7709",
        "15 pictures in Test, expected 2592",
        f"digest {made.digest}, expected {DIGEST}",
    ]
    assert all(text in str(refused.value) for text in made.differences)


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path):
    write_release(tmp_path / "tree")
    (tmp_path / "fruits").mkdir()
    with pytest.raises(DataError, match="fruits: expected no such folder yet, found one"):
        arrange(tmp_path / "tree", tmp_path / "fruits", any_release=True)
    assert list((tmp_path / "fruits").iterdir()) == []


def test_a_tree_without_the_classes_is_refused(tmp_path: Path):
    write_release(tmp_path / "tree", ("Onion",))
    with pytest.raises(DataError, match=r"expected a folder with Training/Apricot and Test/Apricot .* found none"):
        arrange(tmp_path / "tree", tmp_path / "fruits", any_release=True)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path):
    write_release(tmp_path / "tree")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written: (File exists|Not a directory)"):
        arrange(tmp_path / "tree", tmp_path / "file" / "fruits", any_release=True)


@pytest.mark.realdata
def test_the_pinned_digest_is_of_the_pictures_that_the_bundled_models_saw(data_folder: Path, tmp_path: Path):
    made = arrange(data_folder, tmp_path / "fruits")
    assert (made.digest, made.pictures, made.differences) == (DIGEST, PICTURES, [])


def test_the_pinned_digest_is_the_bundled_model_s():
    manifest = json.loads((ROOT / "models" / "fruit_cnn" / "1" / "manifest.json").read_text(encoding="utf-8"))
    assert DIGEST in json.dumps(manifest["data"])


# The command


def test_without_a_network_the_error_is_one_clear_line_on_stderr(tmp_path: Path):
    pytest.importorskip("kagglehub")
    # kagglehub's own switch: it asks a port of this machine at which nobody answers.
    environ = {**os.environ, "KAGGLE_API_ENVIRONMENT": "TEST", "KAGGLEHUB_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "training", "download", "fruits-360", "--to", tmp_path / "fruits", "--json"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: moltean/fruits cannot be downloaded; expected a network")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "fruits").exists()


def test_what_kagglehub_has_fetched_already_is_arranged(tmp_path: Path):
    pytest.importorskip("kagglehub")
    # Where kagglehub keeps version 7, and its mark that it is whole.
    cache = tmp_path / "cache" / "datasets" / "moltean" / "fruits"
    write_release(cache / "versions" / "7" / "fruits-360")
    (cache / "7.complete").touch()
    environ = {**os.environ, "KAGGLE_API_ENVIRONMENT": "TEST", "KAGGLEHUB_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "training", "download", "fruits-360", "--to", tmp_path / "fruits", "--json"]
    done = subprocess.run(
        [*command, "--release", "7", "--any-release"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pictures"] == {"Training": 48, "Test": 16}
    assert (tmp_path / "fruits" / "Test" / "Plum").is_dir()
    shutil.rmtree(tmp_path / "fruits")
    refused = subprocess.run(
        [*command, "--release", "7"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "expected the pictures of the release of 2018-09-07" in refused.stderr


def test_without_kagglehub_it_says_what_to_install(tmp_path: Path):
    hide = (
        "import runpy, sys; sys.modules['kagglehub'] = None; "
        "sys.argv[1:] = ['download', 'fruits-360', '--to', sys.argv[1]]; "
        "runpy.run_module('training', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide, tmp_path / "fruits"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "kagglehub not installed: pip install -c constraints.txt -e '.[download]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_folder_is_one_clear_line_before_anything_is_fetched(tmp_path: Path):
    done = here("download", "fruits-360", "--to", tmp_path)
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}: expected no such folder yet")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no-name"),
        pytest.param(["vegetables"], id="unknown-name"),
        pytest.param(["fruits-360", "--release", "0"], id="release-0"),
    ],
)
def test_wrong_usage_has_exit_status_2(arguments: list[str]):
    assert here("download", *arguments).exit_code == 2


def test_help_shows_examples():
    done = CliRunner().invoke(app, ["download", "--help"], terminal_width=200)
    assert done.exit_code == 0
    assert "python -m training download fruits-360 --to pictures/fruits --any-release" in done.stdout
