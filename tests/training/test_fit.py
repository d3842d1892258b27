"""From a recipe and pictures to a version: what it promises is what its graph does."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from service import __version__
from service.manifest import Manifest, probe_images, read_manifest, verify_files
from tests.conftest import ROOT, SHAPES, draw
from training.data import DataSet, list_pictures, load
from training.errors import ExportError, PublishError
from training.evaluate import measure
from training.fit import Progress, Published, fit
from training.recipe import Recipe, read_recipe

BUNDLED = ROOT / "models" / "fruit_cnn" / "1"


class Notes(Progress):
    """What a run told."""

    def __init__(self) -> None:
        self.announced: list[int] = []
        self.read = 0
        self.data: list[DataSet] = []
        self.steps: list[tuple[int, int]] = []
        self.stages: list[str] = []
        self.notes: list[str] = []

    def reading(self, pictures: int) -> None:
        self.announced.append(pictures)

    def read_one(self) -> None:
        self.read += 1

    def loaded(self, data: DataSet) -> None:
        self.data.append(data)

    def callbacks(self, epochs: int, steps: int) -> Sequence[keras.callbacks.Callback]:
        self.steps.append((epochs, steps))
        return ()

    def stage(self, what: str, total: int | None = None) -> None:
        self.stages.append(what)

    def note(self, text: str) -> None:
        self.notes.append(text)


def serve(folder: Path, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    loaded = tf.saved_model.load(str(folder)).signatures["serving_default"]
    batches = [loaded(images=tf.constant(images[start : start + 256])) for start in range(0, len(images), 256)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return read_recipe(str(recipe_file))


@pytest.fixture(scope="module")
def shapes(shapes_models: Path) -> Path:
    return shapes_models / "shapes" / "1"


@pytest.fixture(scope="module")
def manifest(shapes: Path) -> Manifest:
    return read_manifest(shapes)


@pytest.fixture(scope="module")
def data(drawn_folder: Path, recipe: Recipe) -> DataSet:
    return load(list_pictures(drawn_folder, test_fraction=0.25, seed=3), recipe.input)


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> tuple[Published, Notes]:
    """A run on two classes of two pictures each, with nothing to resume, and what it told."""
    folder, notes = tmp_path_factory.mktemp("smallest"), Notes()
    (folder / "pictures" / "empty").mkdir(parents=True)
    for shape in SHAPES[:2]:
        (folder / "pictures" / shape).mkdir(parents=True)
        for number in range(2):
            draw(shape, number).save(folder / "pictures" / shape / f"{number}.png")
    return fit(
        recipe.with_fitting(epochs=2),
        folder / "pictures",
        folder / "models",
        runs=folder / "runs",
        resume=True,
        progress=notes,
    ), notes


def test_what_is_published_is_whole(shapes: Path, manifest: Manifest):
    verify_files(shapes, manifest)
    there = {path.relative_to(shapes).as_posix() for path in shapes.rglob("*") if path.is_file()}
    assert there == {*manifest.files, "manifest.json"}
    assert {"saved_model.pb", "variables/variables.index"} < there


def test_the_manifest_tells_pictures_labels_and_split(manifest: Manifest, data: DataSet):
    assert manifest.labels == sorted(SHAPES)
    assert manifest.data.digest == data.digest
    assert (manifest.data.training_images, manifest.data.test_images, manifest.data.skipped_images) == (90, 30, 0)
    assert manifest.data.split.startswith("0.25 of each class held out")


def test_the_manifest_tells_recipe_software_and_network(manifest: Manifest, recipe: Recipe):
    assert Recipe.model_validate(manifest.recipe) == recipe
    assert manifest.input == recipe.input
    assert (manifest.description, manifest.licence, manifest.attribution) == (
        "Shapes.",
        "Apache-2.0",
        "Drawn by the tests.",
    )
    assert manifest.software == {"sichtbar": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    assert manifest.parameters == sum(layer.parameters for layer in manifest.layers)
    assert manifest.layers[-1].shape == [3]
    assert manifest.created.tzinfo is not None


def test_shapes_are_learned(manifest: Manifest):
    assert manifest.metrics.accuracy >= 0.9
    assert manifest.metrics.top3_accuracy == 1
    assert manifest.metrics.loss < 0.5


def test_the_figures_are_the_exported_graphs_on_held_out_pictures(shapes: Path, manifest: Manifest, data: DataSet):
    found = measure(serve(shapes, data.test.images)["probabilities"], data.test.classes, data.labels)
    assert found.images == 30
    assert manifest.metrics.loss == pytest.approx(found.loss, rel=1e-4, abs=1e-6)
    # The temperature was fitted on these pictures: the manifest's error is cross-fitted.
    changes = {"loss": found.loss, "calibration_error": found.calibration_error}
    assert manifest.metrics.model_copy(update=changes) == found


def test_ninety_nine_of_a_hundred_held_out_pictures_are_recognised(shapes: Path, manifest: Manifest, data: DataSet):
    recognition = serve(shapes, data.test.images)["recognition"]
    assert manifest.recognition_threshold == pytest.approx(float(np.quantile(recognition, 0.01)), rel=1e-4)


def test_the_probe_is_the_exported_graphs_answer(shapes: Path, manifest: Manifest):
    answer = serve(shapes, probe_images(16, 12))["probabilities"]
    np.testing.assert_allclose(manifest.probe.probabilities, answer, rtol=1e-4, atol=1e-6)


def test_two_pictures_of_two_classes_are_enough(smallest: tuple[Published, Notes]):
    published, _ = smallest
    assert published.folder.name == "1"
    assert published.manifest == read_manifest(published.folder)
    assert published.manifest.labels == ["circle", "square"]
    assert (published.manifest.data.training_images, published.manifest.data.test_images) == (2, 2)
    assert published.manifest.metrics.top3_accuracy == 1


def test_a_run_tells_what_it_does(smallest: tuple[Published, Notes]):
    published, notes = smallest
    assert notes.announced == [4]
    assert notes.read == 4
    assert [data.digest for data in notes.data] == [published.manifest.data.digest]
    # Two pictures are one batch.
    assert notes.steps == [(2, 1)]
    assert notes.stages == [
        "measuring",
        "exporting",
        "verifying the export",
        "maximising channels",
        "writing the report",
    ]
    assert published.seconds["fitting"] > 0
    assert notes.notes == ["empty holds no picture: it is no class", "nothing to resume: beginning with epoch 1"]


def test_a_taken_version_is_refused_before_a_picture_is_read(own_models: Path, drawn_folder: Path, recipe: Recipe):
    notes = Notes()
    with pytest.raises(PublishError, match="expected a free version number, found a version"):
        fit(
            recipe.with_fitting(epochs=1),
            drawn_folder,
            own_models,
            runs=own_models.parent / "runs",
            version=1,
            progress=notes,
        )
    assert notes.read == 0


class Saboteur(Progress):
    """Puts another version's weights into the export before it is verified."""

    def __init__(self, model: Path) -> None:
        self._model = model

    def stage(self, what: str, total: int | None = None) -> None:
        if what == "verifying the export":
            (staged,) = self._model.glob(".*")
            shutil.copytree(self._model / "1" / "variables", staged / "variables", dirs_exist_ok=True)


def test_an_export_that_answers_otherwise_is_never_published(own_models: Path, drawn_folder: Path, recipe: Recipe):
    with pytest.raises(ExportError, match="differs from the Keras model's"):
        fit(
            recipe.with_fitting(epochs=1),
            drawn_folder,
            own_models,
            runs=own_models.parent / "runs",
            progress=Saboteur(own_models / "shapes"),
        )
    assert [path.name for path in (own_models / "shapes").iterdir()] == ["1"]


# The bundled model


@pytest.fixture(scope="module")
def fruits(data_folder: Path) -> DataSet:
    promised = read_manifest(BUNDLED)
    listing = list_pictures(data_folder / "fruits-360", test_fraction=0.2, seed=1)
    return load(listing, promised.input)


@pytest.mark.realdata
def test_the_bundled_model_is_of_these_pictures_and_the_bundled_recipe(fruits: DataSet):
    promised = read_manifest(BUNDLED)
    assert promised.data.digest == fruits.digest
    assert promised.labels == fruits.labels
    assert Recipe.model_validate(promised.recipe) == read_recipe("fruit_cnn")


@pytest.mark.realdata
def test_the_bundled_model_reaches_what_its_manifest_says(fruits: DataSet):
    promised = read_manifest(BUNDLED).metrics
    found = measure(serve(BUNDLED, fruits.test.images)["probabilities"], fruits.test.classes, fruits.labels)
    assert (found.images, found.accuracy, found.top3_accuracy) == (
        promised.images,
        promised.accuracy,
        promised.top3_accuracy,
    )
    assert found.loss == pytest.approx(promised.loss, rel=1e-3)
