"""`python -m training` as a person at a terminal meets it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from service.manifest import read_manifest, verify_files
from tests.conftest import ROOT
from training.__main__ import app
from training.data import DataSet, Split
from training.progress import ConsoleProgress
from training.recipe import bundled_recipes, read_recipe


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A process of its own, without colours and in lines wide enough for the examples."""
    forced = {"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"}
    environ = {name: value for name, value in os.environ.items() if name not in forced}
    return subprocess.run(
        [sys.executable, "-m", "training", *map(str, arguments)],
        cwd=ROOT,
        env={**environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def here(*arguments: str | Path) -> Result:
    """In this process: TensorFlow is loaded already."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def weights(folder: Path) -> bytes:
    (path,) = (folder / "variables").glob("variables.data*")
    return path.read_bytes()


def test_help_names_the_commands():
    done = run("--help")
    assert done.returncode == 0
    assert "Train image classifiers offline" in done.stdout
    assert re.search(r"\bfit\b .*Train a network on a folder of pictures", done.stdout)


def test_help_of_fit_shows_examples_and_bundled_recipes():
    done = run("fit", "--help")
    assert done.returncode == 0
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "python -m training fit fruit_cnn --data fruits-360" in lines
    assert "python -m training fit my_recipe.toml --data pictures --models /srv/models --epochs 10 --seed 7" in lines
    assert "a bundled recipe: fruit_cnn" in done.stdout


class TwoRuns(NamedTuple):
    """Two runs into one models folder: by a process of its own with the session's `epochs` and `seed`, then here."""

    models: Path
    statuses: list[int]
    outputs: list[str]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory, drawn_folder: Path, recipe_file: Path) -> TwoRuns:
    folder = tmp_path_factory.mktemp("command")
    text = recipe_file.read_text()
    for old, new in (("epochs = 8\n", "epochs = 1\n"), ("seed = 3\n", "seed = 4\n")):
        assert old in text
        text = text.replace(old, new)
    (folder / "other.toml").write_text(text)
    places = ("--data", drawn_folder, "--models", folder / "models", "--runs", folder / "runs")
    fit = ("fit", folder / "other.toml", *places, "--no-maximise", "--epochs", "8")
    first, second = run(*fit, "--seed", "3"), here(*fit)
    return TwoRuns(folder / "models", [first.returncode, second.exit_code], [first.stdout, second.stdout])


def test_fit_publishes_the_next_version_and_says_where(two_runs: TwoRuns):
    assert two_runs.statuses == [0, 0]
    for version, output in enumerate(two_runs.outputs, start=1):
        folder = two_runs.models / "shapes" / str(version)
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
        assert f"published {folder}" in output.splitlines()
        assert f"accuracy {manifest.metrics.accuracy:.2%}" in output
    assert sorted(path.name for path in (two_runs.models / "shapes").iterdir()) == ["1", "2"]


def test_without_a_terminal_each_epoch_is_a_line(two_runs: TwoRuns):
    line = r"^epoch (\d) of 8: loss [\d.]+  accuracy [\d.]+  test loss [\d.]+  test accuracy [\d.]+$"
    for output in two_runs.outputs:
        assert re.findall(line, output, re.MULTILINE) == list("12345678")


def test_each_class_is_shown_with_its_pictures(two_runs: TwoRuns):
    for name, training, test in (("circle", 30, 10), ("square", 30, 10), ("stripes", 30, 10), ("all", 90, 30)):
        assert re.search(rf"\b{name}\b\W+{training}\W+{test}\b", two_runs.outputs[0])


def test_options_stand_instead_of_the_recipes_values(two_runs: TwoRuns):
    fitting = [read_manifest(two_runs.models / "shapes" / version).recipe["fitting"] for version in "12"]
    assert [(values["stages"][0]["epochs"], values["seed"]) for values in fitting] == [(8, 3), (8, 4)]


def test_the_same_seed_gives_the_same_weights_and_figures_in_another_process(two_runs: TwoRuns, shapes_models: Path):
    folders = two_runs.models / "shapes" / "1", shapes_models / "shapes" / "1"
    assert weights(folders[0]) == weights(folders[1])
    first, second = (read_manifest(folder) for folder in folders)
    assert first.metrics == second.metrics
    assert first.data == second.data
    assert first.probe == second.probe
    assert first.recognition_threshold == second.recognition_threshold


def test_another_seed_gives_other_weights(two_runs: TwoRuns):
    first, second = (weights(two_runs.models / "shapes" / version) for version in "12")
    assert first != second


def test_an_error_is_one_clear_line_on_stderr(tmp_path: Path):
    done = run("fit", "no_such_recipe", "--data", tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"error: no recipe 'no_such_recipe': expected a TOML file or one of {', '.join(bundled_recipes())}\n"
    )


@pytest.mark.parametrize("name", [pytest.param("nowhere", id="none"), pytest.param("", id="no-pictures")])
def test_a_bad_data_folder_is_one_clear_line_on_stderr(recipe_file: Path, tmp_path: Path, name: str):
    done = here("fit", recipe_file, "--data", tmp_path / name, "--models", tmp_path / "models")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / name}: expected ")
    assert "Traceback" not in done.output
    assert not (tmp_path / "models").exists()


def test_a_taken_version_is_one_clear_line_and_stays_as_it_was(recipe_file: Path, drawn_folder: Path, own_models: Path):
    folder = own_models / "shapes" / "1"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = here("fit", recipe_file, "--data", drawn_folder, "--models", own_models, "--version", "1", "--epochs", "1")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {folder}: expected a free version number, found a version")
    assert "Traceback" not in done.output
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["fit"], "RECIPE", id="no-recipe"),
        pytest.param(["fit", "fruit_cnn"], "--data", id="no-data"),
        pytest.param(["fit", "fruit_cnn", "--data", "x", "--epochs", "0"], "--epochs", id="no-epoch"),
        pytest.param(["fit", "fruit_cnn", "--data", "x", "--seed", "-1"], "--seed", id="seed-below-0"),
        pytest.param(["fit", "fruit_cnn", "--data", "x", "--version", "one"], "--version", id="version-no-number"),
        pytest.param(["fit", "fruit_cnn", "--data", "x", "--epoch", "1"], "--epoch", id="unknown-option"),
        pytest.param(["train"], "train", id="unknown-command"),
    ],
)
def test_wrong_usage_has_exit_status_2_and_names_the_argument(arguments: list[str], said: str):
    done = here(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output


def test_skipped_pictures_are_named_and_counted(recipe_file: Path):
    split = Split(np.zeros((2, 1, 1, 3), np.uint8), np.array([0, 1], np.int32), [])
    unreadable = {f"a/[red]{number}.png": "the picture is truncated or damaged" for number in range(12)}
    data = DataSet(["a", "[b]"], split, split, unreadable, "sha256:0", "the folders Training and Test")
    output = io.StringIO()
    ConsoleProgress(Console(file=output, width=40), read_recipe(str(recipe_file))).loaded(data)
    lines = output.getvalue().splitlines()
    assert "skipped a/[red]0.png: the picture is truncated or damaged" in lines
    assert sum(line.startswith("skipped ") for line in lines) == 10
    assert "12 unreadable pictures were skipped" in lines
    assert any(re.search(r"\[b\]\W+1\W+1\b", line) for line in lines)


def test_without_the_libraries_of_training_it_says_which_extras_to_install(tmp_path: Path) -> None:
    hide = (
        "import runpy, sys; sys.modules['sklearn'] = None; sys.argv[1:] = ['fit', 'fruit_cnn', '--data', '.']; "
        "runpy.run_module('training', run_name='__main__')"
    )
    finished = subprocess.run(
        [sys.executable, "-c", hide], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 1
    assert "sklearn not installed" in finished.stderr
    assert "pip install -c constraints.txt -e '.[cpu,train]'" in finished.stderr
    assert "Traceback" not in finished.stderr
