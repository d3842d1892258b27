"""Recipes that read, and what is said of those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.errors import RecipeError
from training.recipe import bundled_recipes, read_recipe


def changed(recipe_file: Path, folder: Path, old: str, new: str) -> Path:
    """A copy of the recipe with `new` in the place of `old`."""
    text = recipe_file.read_text()
    assert old in text
    path = folder / "changed.toml"
    path.write_text(text.replace(old, new, 1))
    return path


def test_the_bundled_recipe_is_the_workshops():
    recipe = read_recipe("fruit_cnn")
    assert (recipe.name, recipe.network) == ("fruit_cnn", "fruit_cnn")
    assert (recipe.input.height, recipe.input.width) == (20, 20)
    assert recipe.fitting.batch_size == 32
    (stage,) = recipe.fitting.stages
    assert (stage.epochs, stage.optimizer.name, stage.optimizer.learning_rate) == (3, "rmsprop", 1e-4)


@pytest.mark.parametrize("name", bundled_recipes())
def test_every_bundled_recipe_reads_and_is_named_as_its_file(name: str):
    assert read_recipe(name).name == name


def test_a_recipe_file_reads(recipe_file: Path):
    recipe = read_recipe(str(recipe_file))
    assert (recipe.input.height, recipe.input.width, recipe.input.resize) == (16, 12, "crop")
    assert recipe.fitting.stages[0].optimizer.learning_rate == 0.002
    assert recipe.data.test_fraction == 0.25
    assert recipe.card.attribution == "Drawn by the tests."


@pytest.mark.parametrize(
    ("old", "new", "key", "expected", "found"),
    [
        pytest.param('name = "shapes"\n', "", "name", "a value", "none", id="missing-key"),
        pytest.param(
            ", learning_rate = 0.002",
            "",
            "fitting.stages.0.optimizer.learning_rate",
            "a value",
            "none",
            id="missing-deep-key",
        ),
        pytest.param("[data]\ntest_fraction = 0.25\n", "", "data", "a value", "none", id="missing-table"),
        pytest.param("seed = 3", "seed = 3\nsede = 4", "fitting.sede", "no such key", "4", id="unknown-key"),
        pytest.param(
            'resize = "crop"', 'resize = "crop"\ndepth = 3', "input.depth", "no such key", "3", id="unknown-input-key"
        ),
        pytest.param(
            "epochs = 8", 'epochs = "8"', "fitting.stages.0.epochs", "a valid integer", "'8'", id="text-for-integer"
        ),
        pytest.param(
            "epochs = 8", "epochs = true", "fitting.stages.0.epochs", "a valid integer", "True", id="truth-for-number"
        ),
        pytest.param('name = "shapes"', "name = 1", "name", "a valid string", "1", id="number-for-text"),
        pytest.param("height = 16", 'height = "tall"', "input.height", "integer", "'tall'", id="text-for-height"),
        pytest.param("epochs = 8", "epochs = 0", "fitting.stages.0.epochs", "than or equal to 1", "0", id="no-epoch"),
        pytest.param(
            "= 0.002", "= 0.0", "fitting.stages.0.optimizer.learning_rate", "greater than 0", "0.0", id="rate-of-0"
        ),
        pytest.param("batch_size = 8", "batch_size = 0", "fitting.batch_size", "equal to 1", "0", id="empty-batch"),
        pytest.param("seed = 3", "seed = 4294967296", "fitting.seed", "4294967296", "4294967296", id="seed-too-large"),
        pytest.param("seed = 3", "seed = -1", "fitting.seed", "than or equal to 0", "-1", id="seed-below-0"),
        pytest.param("= 0.25", "= 1.0", "data.test_fraction", "less than 1", "1.0", id="all-held-out"),
        pytest.param("= 0.25", "= 0.0", "data.test_fraction", "greater than 0", "0.0", id="none-held-out"),
        pytest.param("height = 16", "height = 0", "input.height", "than or equal to 1", "0", id="no-rows"),
        pytest.param(
            '"adam"', '"adamw"', "fitting.stages.0.optimizer.name", "'rmsprop'", "'adamw'", id="unknown-optimizer"
        ),
        pytest.param('"crop"', '"stretch"', "input.resize", "'squash'", "'stretch'", id="unknown-resize-rule"),
        pytest.param('name = "shapes"', 'name = "../up"', "name", "match pattern", "'../up'", id="name-leaves-folder"),
    ],
)
def test_a_wrong_key_is_named_with_file_expected_and_found(
    recipe_file: Path, tmp_path: Path, old: str, new: str, key: str, expected: str, found: str
):
    path = changed(recipe_file, tmp_path, old, new)
    with pytest.raises(RecipeError) as raised:
        read_recipe(str(path))
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{path}: {key}: expected ")
    assert line.endswith(f", found {found}")
    assert expected in line.removesuffix(f", found {found}")


def test_every_wrong_key_has_a_line(recipe_file: Path, tmp_path: Path):
    path = changed(recipe_file, tmp_path, "licence =", "license =")
    with pytest.raises(RecipeError) as raised:
        read_recipe(str(path))
    assert sorted(str(raised.value).splitlines()) == [
        f"{path}: card.licence: expected a value, found none",
        f"{path}: card.license: expected no such key, found 'Apache-2.0'",
    ]


@pytest.mark.parametrize("name", ["no_such_recipe", "no_such_recipe.toml"])
def test_a_recipe_that_is_not_there_is_named_beside_those_that_are(name: str):
    with pytest.raises(RecipeError, match=f"no recipe '{name}': expected a TOML file or one of .*fruit_cnn"):
        read_recipe(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"name = \n", "expected TOML, found: .*line 1", id="no-toml"),
        pytest.param(b'name = "\xff"\n', "cannot be read: .*0xff", id="no-utf-8"),
    ],
)
def test_a_file_that_is_no_toml_is_named_with_the_place(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message) as raised:
        read_recipe(str(path))
    assert str(raised.value).startswith(f"{path}: ")


def test_a_folder_is_no_recipe(tmp_path: Path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RecipeError, match=r"folder\.toml: cannot be read"):
        read_recipe(str(tmp_path / "folder.toml"))


def test_a_folder_of_the_same_name_does_not_hide_a_bundled_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "fruit_cnn").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_recipe("fruit_cnn").name == "fruit_cnn"


@pytest.mark.parametrize(
    ("changes", "epochs", "seed"),
    [
        pytest.param({}, 8, 3, id="none"),
        pytest.param({"epochs": 2}, 2, 3, id="epochs"),
        pytest.param({"seed": 0}, 8, 0, id="seed-0"),
        pytest.param({"epochs": 1, "seed": 5}, 1, 5, id="both"),
    ],
)
def test_other_epochs_or_another_seed_change_nothing_else(
    recipe_file: Path, changes: dict[str, int], epochs: int, seed: int
):
    recipe = read_recipe(str(recipe_file))
    other = recipe.with_fitting(**changes)
    assert (other.fitting.stages[0].epochs, other.fitting.seed) == (epochs, seed)
    assert other.with_fitting(epochs=8, seed=3) == recipe
    assert (recipe.fitting.stages[0].epochs, recipe.fitting.seed) == (8, 3)
