"""Networks by a function of the user's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from service.manifest import Input
from tests.conftest import ROOT
from training import export
from training.errors import RecipeError
from training.networks import Network, build_network
from training.networks.foreign import build
from training.recipe import read_recipe

MODULE = """
import keras
from keras import layers

def sequential(height, width, classes):
    return keras.Sequential([
        layers.Rescaling(1 / 255), layers.Conv2D(4, 3, name="first"), layers.Conv2D(5, 3, name="second"),
        layers.SpatialDropout2D(0.2), layers.Flatten(), layers.Dense(classes),
    ])

def with_input(height, width, classes):
    return keras.Sequential([keras.Input((height, width, 3)), *sequential(height, width, classes).layers])

def functional(height, width, classes):
    images = keras.Input((height, width, 3), name="pictures")
    x = layers.Conv2D(4, 3, padding="same", name="first")(images / 255)
    x = layers.Concatenate()([x, images])
    x = layers.Conv2D(5, 3, name="second")(keras.ops.relu(x))
    return keras.Model(images, layers.Dense(classes)(keras.ops.mean(x, axis=(1, 2))))

def of_bytes(height, width, classes):
    images = keras.Input((height, width, 3), dtype="uint8", name="images")
    return keras.Model(images, sequential(height, width, classes)(images))

def flat_of_bytes(height, width, classes):
    images = keras.Input((height, width, 3), dtype="uint8", name="images")
    x = images
    for layer in sequential(height, width, classes).layers:
        x = layer(x)
    return keras.Model(images, x)

def softmax(height, width, classes):
    return keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(classes, activation="softmax")])

def softmax_layer(height, width, classes):
    return keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(classes), layers.Softmax()])

def softmax_operation(height, width, classes):
    model = functional(height, width, classes)
    return keras.Model(model.input, keras.ops.softmax(model.output))

def sigmoid(height, width, classes):
    return keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(classes, activation="sigmoid")])

def one_class_more(height, width, classes):
    return sequential(height, width, classes + 1)

def another_size(height, width, classes):
    return with_input(height + 1, width, classes)

def two_answers(height, width, classes):
    model = functional(height, width, classes)
    return keras.Model(model.input, [model.output, model.output + 1])

def without_maps(height, width, classes):
    return keras.Sequential([layers.Flatten(), layers.Dense(classes)])

def branches(height, width, classes):
    images = keras.Input((height, width, 3))
    ways = [layers.Flatten()(layers.Conv2D(4, 3, name=name)(images)) for name in ("left", "right")]
    return keras.Model(images, layers.Dense(classes)(layers.Concatenate()(ways)))

class Subclass(keras.Model):
    def call(self, images):
        return images

def subclass(height, width, classes):
    return Subclass()

def nothing(height, width, classes):
    return None

constant = 3
"""
TARGET = Input(height=8, width=9, resize="crop")
PICTURES = np.random.default_rng(2).integers(0, 256, (3, 8, 9, 3), np.uint8)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with modules of the user's."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_networks.py").write_text(MODULE)
    (folder / "broken_networks.py").write_text("import no_such_library\n")
    (folder / "unfinished_networks.py").write_text("def build(:\n")
    return folder


@pytest.fixture(autouse=True)
def _importable(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(module))


def by_recipe(reference: str) -> Network:
    recipe = read_recipe("fruit_cnn").model_copy(update={"network": reference, "input": TARGET})
    return build_network(recipe, 4)


@pytest.mark.parametrize("function", ["sequential", "with_input", "functional", "flat_of_bytes"])
def test_a_model_is_taken_with_its_layers_weights_and_answers(function: str):
    keras.utils.set_random_seed(5)
    network = by_recipe(f"own_networks:{function}")
    keras.utils.set_random_seed(5)
    made = getattr(sys.modules["own_networks"], function)(8, 9, 4)
    expected = np.asarray(made(PICTURES.astype(made.inputs[0].dtype if made.built else np.float32)))
    np.testing.assert_allclose(network.model(PICTURES), expected, rtol=1e-5, atol=1e-4)
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in network.model.inputs] == [
        ("images", "uint8", (None, 8, 9, 3))
    ]
    assert (network.gradcam_layer, network.base) == ("second", ())


@pytest.mark.parametrize("function", ["sequential", "functional"])
def test_a_model_can_be_exported(function: str, tmp_path: Path):
    network = by_recipe(f"own_networks:{function}")
    export.save(network, tmp_path)
    export.verify(network, tmp_path, PICTURES)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (
            "no_networks:build",
            "a module that can be imported, found ModuleNotFoundError: No module named 'no_networks'",
        ),
        ("broken_networks:build", "a module that can be imported, found ModuleNotFoundError: .*no_such_library"),
        ("unfinished_networks:build", "a module that can be imported, found SyntaxError"),
        (":build", "a module that can be imported, found ValueError"),
        ("own_networks:missing", "a function 'missing' in the module, found none"),
        ("own_networks:constant", "a function 'constant' in the module, found none"),
        ("own_networks:", "a function '' in the module, found none"),
        ("own_networks:nothing", "a keras.Sequential or functional model, found NoneType"),
        ("own_networks:subclass", "a keras.Sequential or functional model, found Subclass"),
        ("own_networks:one_class_more", r"logits out of shape \(None, 4\), found \(None, 5\)"),
        ("own_networks:two_answers", r"logits out of shape \(None, 4\), found \(None, 4\) and \(None, 4\)"),
        ("own_networks:another_size", r"pictures in of shape \(None, 8, 9, 3\), found \(None, 9, 9, 3\)"),
        ("own_networks:softmax", "logits, found softmax at the end"),
        ("own_networks:softmax_layer", "logits, found softmax at the end"),
        ("own_networks:softmax_operation", "logits, found softmax at the end"),
        ("own_networks:sigmoid", "logits, found sigmoid at the end"),
        ("own_networks:of_bytes", "layers only, found the model 'sequential.*' among them"),
        ("own_networks:without_maps", "a layer with feature maps .* for Grad-CAM, found none"),
        pytest.param(
            "own_networks:branches",
            "through the last layer with feature maps, found one past 'right'",
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="Keras 3.12 orders them otherwise"),
        ),
    ],
)
def test_what_cannot_be_trained_and_exported_is_refused(reference: str, said: str):
    with pytest.raises(RecipeError, match=f"network: {reference}: expected .*{said}"):
        build(reference, TARGET, 4)


def test_what_the_function_raises_is_its_authors_to_see():
    with pytest.raises(ValueError, match="negative"):
        build("own_networks:with_input", Input(height=2, width=2, resize="crop"), 4)


def test_a_module_in_the_working_directory_is_found(module: Path, drawn_folder: Path):
    """The same command with a wrong answer: training itself is tested elsewhere."""
    recipe = (ROOT / "training" / "recipes" / "fruit_cnn.toml").read_text()
    (module / "own.toml").write_text(recipe.replace('network = "fruit_cnn"', 'network = "own_networks:softmax"'))
    done = subprocess.run(
        [sys.executable, "-m", "training", "fit", "own.toml", "--data", str(drawn_folder), "--models", "models"],
        cwd=module,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(module)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error: network: own_networks:softmax: expected logits, found softmax at the end" in done.stderr
