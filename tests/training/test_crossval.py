"""What a recipe reaches on films it never saw; a run that is killed goes on fold by fold."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.conftest import ROOT, SHAPES, draw
from tests.training.test_resume import kill_after
from training.__main__ import app
from training.crossval import GROUPINGS, CrossValidation, _plan
from training.data import Picture, list_pictures
from training.errors import DataError

FOLDS = 2
FRAMES = 6


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of two films with six frames each, as Fruits-360 names them."""
    folder = tmp_path_factory.mktemp("films")
    for shape in SHAPES[:2]:
        (folder / shape).mkdir()
        for number, film in enumerate(("", "r_")):
            for frame in range(FRAMES):
                draw(shape, 10 * number + frame).save(folder / shape / f"{film}{frame}_100.png")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, recipe_file: Path) -> Path:
    text = recipe_file.read_text()
    assert "height = 16\nwidth = 12" in text
    path = tmp_path_factory.mktemp("small") / "small.toml"
    path.write_text(text.replace("height = 16\nwidth = 12", "height = 6\nwidth = 6"))
    return path


def arguments(recipe: Path, films: Path, folder: Path, *more: str) -> list[str]:
    places = ("--data", films, "--out", folder / "page", "--runs", folder / "runs")
    return [str(part) for part in ("crossval", recipe, *places, "--folds", FOLDS, "--epochs", 1, *more)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, recipe: Path, films: Path) -> tuple[Path, str]:
    """The folder of the page, and what `--json` printed."""
    folder = tmp_path_factory.mktemp("whole")
    done = CliRunner().invoke(app, arguments(recipe, films, folder, "--json"))
    assert done.exit_code == 0, done.output
    return folder / "page", done.stdout


@pytest.fixture(scope="module")
def result(uninterrupted: tuple[Path, str]) -> CrossValidation:
    return CrossValidation.model_validate_json((uninterrupted[0] / "crossval.json").read_bytes())


def test_json_is_one_object_and_nothing_else(uninterrupted: tuple[Path, str], result: CrossValidation):
    assert CrossValidation.model_validate(json.loads(uninterrupted[1])) == result


def test_page_figure_and_a_report_a_fold_are_there(uninterrupted: tuple[Path, str], result: CrossValidation):
    folder, _ = uninterrupted
    page = (folder / "index.html").read_text()
    assert (folder / "folds.png").read_bytes().startswith(b"\x89PNG")
    for estimate in (result.grouped, result.naive):
        for fold in estimate.folds:
            assert (folder / fold.report).is_file()
            assert fold.report in page
    assert len({fold.report for estimate in (result.grouped, result.naive) for fold in estimate.folds}) == 2 * FOLDS


def test_folds_hold_out_each_picture_once(result: CrossValidation):
    assert (result.pictures, result.films) == (4 * FRAMES, 4)
    for estimate in (result.grouped, result.naive):
        assert sum(fold.metrics.images for fold in estimate.folds) == result.pictures
        assert {fold.training_images + fold.metrics.images for fold in estimate.folds} == {result.pictures}


def test_films_are_shared_by_the_naive_folds_alone(result: CrossValidation):
    assert [fold.shared_films for fold in result.grouped.folds] == [0] * FOLDS
    assert all(fold.shared_films for fold in result.naive.folds)


def test_the_estimate_is_mean_and_deviation_of_the_folds(result: CrossValidation):
    for estimate in (result.grouped, result.naive):
        accuracies = [fold.metrics.accuracy for fold in estimate.folds]
        assert estimate.mean == pytest.approx(np.mean(accuracies))
        assert estimate.standard_deviation == pytest.approx(np.std(accuracies, ddof=1))


def test_one_killed_in_its_second_fold_ends_as_the_uninterrupted(
    tmp_path: Path, recipe: Path, films: Path, result: CrossValidation
):
    whole = arguments(recipe, films, tmp_path)
    assert kill_after("measuring grouped-2", *whole) == -signal.SIGKILL
    assert not (tmp_path / "page" / "crossval.json").exists()
    done = CliRunner().invoke(app, [*whole, "--resume", "--json"])
    assert done.exit_code == 0, done.output
    assert "grouped-1 was finished before" in done.stderr
    # Its one epoch was behind.
    assert done.stderr.count("resuming after epoch 1 of 1") == 1
    assert CrossValidation.model_validate_json(done.stdout) == result


def of_films(films: Path) -> tuple[np.ndarray, np.ndarray]:
    listing = list_pictures(films, test_fraction=0.5, seed=1)
    pictures: list[Picture] = sorted(listing.training + listing.test)
    classes = np.array([listing.labels.index(picture.label) for picture in pictures])
    return classes, np.array([f"{picture.label}/{picture.film}" for picture in pictures])


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_plan_holds_out_each_row_once_and_grouped_never_cuts_a_film(films: Path, grouping: str, seed: int):
    classes, names = of_films(films)
    plan = _plan(grouping, classes, names, FOLDS, seed)
    held_out = np.concatenate([rows for _, rows in plan])
    assert sorted(held_out) == list(range(len(classes)))
    for training, rows in plan:
        assert not set(training) & set(rows)
        assert set(classes[training]) == set(classes[rows]) == {0, 1}
        assert bool(set(names[training]) & set(names[rows])) == (grouping == "naive")


@pytest.mark.parametrize(
    ("grouping", "folds", "message"),
    [
        pytest.param("grouped", 5, "folds: expected at most as many as films, 4, found 5", id="films"),
        pytest.param(
            "naive", 13, "folds: expected at most as many as pictures of each class, 12, found 13", id="naive"
        ),
    ],
)
def test_more_folds_than_parts_are_refused(films: Path, grouping: str, folds: int, message: str):
    with pytest.raises(DataError, match=message):
        _plan(grouping, *of_films(films), folds, 1)


def test_a_class_of_one_film_cannot_be_told_from_films_never_seen():
    classes, films = np.array([0, 0, 1, 1, 1]), np.array(["a/x", "a/x", "b/x", "b/y", "b/z"])
    with pytest.raises(DataError, match=r"a: expected two films at least, .* found one"):
        _plan("grouped", classes, films, 2, 1)


def test_too_many_folds_are_one_line_before_training(tmp_path: Path, recipe: Path, films: Path):
    done = CliRunner().invoke(app, [*arguments(recipe, films, tmp_path), "--folds", "9"])
    assert done.exit_code == 1
    assert "error: folds: expected at most as many as films, 4, found 9" in done.stderr
    assert str(ROOT) not in done.stderr
