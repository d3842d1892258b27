"""The exported graph against the contract, against the network, and against answers worked by hand."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from service.manifest import read_manifest
from training import export
from training.errors import ExportError
from training.networks import Network

Arrays = dict[str, NDArray[np.float32]]

PICTURES = np.random.default_rng(5).integers(0, 256, (4, 3, 2, 3), np.uint8)
# Two feature maps of 3 x 2 pixels: a 1 x 1 convolution; then ReLU and three logits.
KERNEL = np.array([[1, -1], [-2, 1], [0.5, 0.5]], np.float32)
DENSE = np.random.default_rng(6).normal(size=(12, 3)).astype(np.float32)
BIAS = np.array([0.25, -0.5, 0], np.float32)


def tiny(extra_layer: bool = False) -> Network:
    """A network whose answers a person can work out."""
    images = keras.Input((3, 2, 3), dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255, name="rescaling")(images)
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="maps")(x)
    x = keras.layers.ReLU(name="relu")(x)
    if extra_layer:
        x = keras.layers.ReLU(name="relu_again")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    model = keras.Model(images, keras.layers.Dense(3, name="logits")(x), name="tiny")
    model.get_layer("maps").set_weights([KERNEL.reshape(1, 1, 3, 2)])
    model.get_layer("logits").set_weights([DENSE, BIAS])
    return Network(model, "maps")


def maps_by_hand() -> NDArray[np.float32]:
    return (PICTURES / np.float32(255)) @ KERNEL


def logits_by_hand() -> NDArray[np.float32]:
    return np.maximum(maps_by_hand(), 0).reshape(len(PICTURES), -1) @ DENSE + BIAS


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    export.save(tiny(), folder)
    return folder


@pytest.fixture(scope="module")
def answers(exported: Path) -> dict[str, Arrays]:
    """By signature; Grad-CAM of the classes 0, 1, 2, 0."""
    return {
        "serving_default": call(exported, "serving_default", images=PICTURES),
        "activations": call(exported, "activations", images=PICTURES),
        "gradcam": call(exported, "gradcam", images=PICTURES, class_index=np.array([0, 1, 2, 0], np.int32)),
    }


def call(folder: Path, signature: str, **arguments: NDArray[np.generic]) -> Arrays:
    loaded = tf.saved_model.load(str(folder))
    found = loaded.signatures[signature](**{name: tf.constant(value) for name, value in arguments.items()})
    return {name: tensor.numpy() for name, tensor in found.items()}


def specs(tensors: dict[str, tf.TensorSpec]) -> dict[str, tuple[str, list[int | None]]]:
    return {name: (tensor.dtype.name, tensor.shape.as_list()) for name, tensor in tensors.items()}


def test_there_are_the_contracts_three_signatures_and_no_other(shapes_models: Path):
    loaded = tf.saved_model.load(str(shapes_models / "shapes" / "1"))
    layers = read_manifest(shapes_models / "shapes" / "1").layers
    images, probabilities = ("uint8", [None, 16, 12, 3]), ("float32", [None, 3])
    found = {
        name: (specs(signature.structured_input_signature[1]), specs(signature.structured_outputs))
        for name, signature in loaded.signatures.items()
    }
    assert found == {
        "serving_default": (
            {"images": images},
            {"probabilities": probabilities, "logits": ("float32", [None, 3]), "recognition": ("float32", [None])},
        ),
        "activations": ({"images": images}, {layer.name: ("float32", [None, *layer.shape]) for layer in layers}),
        "gradcam": (
            {"images": images, "class_index": ("int32", [None])},
            {"heatmap": ("float32", [None, 16, 12]), "probabilities": probabilities},
        ),
    }


def test_each_weight_is_stored_once(shapes_models: Path):
    folder = shapes_models / "shapes" / "1"
    weights = 4 * read_manifest(folder).parameters
    stored = sum(path.stat().st_size for path in (folder / "variables").glob("variables.data*"))
    assert weights <= stored < 1.1 * weights
    assert (folder / "saved_model.pb").stat().st_size < weights / 2


def test_logits_are_those_worked_by_hand(answers: dict[str, Arrays]):
    np.testing.assert_allclose(answers["serving_default"]["logits"], logits_by_hand(), rtol=1e-4, atol=1e-5)


def test_probabilities_are_the_softmax_and_recognition_the_logsumexp_of_the_logits(answers: dict[str, Arrays]):
    found = answers["serving_default"]
    np.testing.assert_allclose(found["probabilities"], softmax(found["logits"]), rtol=1e-5)
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found["recognition"], np.log(np.exp(found["logits"]).sum(axis=1)), rtol=1e-5)
    np.testing.assert_allclose(answers["gradcam"]["probabilities"], found["probabilities"], rtol=1e-6)


def test_activations_are_the_layers_outputs(answers: dict[str, Arrays]):
    found = answers["activations"]
    assert set(found) == {"rescaling", "maps", "relu", "logits"}
    np.testing.assert_allclose(found["maps"], maps_by_hand(), atol=1e-6)
    np.testing.assert_allclose(found["relu"], np.maximum(maps_by_hand(), 0), atol=1e-6)
    np.testing.assert_allclose(found["logits"], logits_by_hand(), rtol=1e-4, atol=1e-5)


def test_gradcam_is_the_heatmap_worked_by_hand(answers: dict[str, Arrays]):
    maps = maps_by_hand()
    # d logit_c / d map = the dense layer's column of c where ReLU is open, else 0.
    gradients = DENSE.T[[0, 1, 2, 0]].reshape(4, 3, 2, 2) * (maps > 0)
    weighed = (gradients.mean(axis=(1, 2), keepdims=True) * maps).sum(axis=-1)
    assert (weighed < 0).any()
    assert (weighed > 0).any()
    np.testing.assert_allclose(answers["gradcam"]["heatmap"], np.maximum(weighed, 0), rtol=1e-4, atol=1e-6)


def test_gradcam_of_a_trained_network_is_never_negative_and_another_for_another_class(shapes_models: Path):
    pictures = np.random.default_rng(7).integers(0, 256, (3, 16, 12, 3), np.uint8)
    heatmaps = [
        call(shapes_models / "shapes" / "1", "gradcam", images=pictures, class_index=np.full(3, number, np.int32))[
            "heatmap"
        ]
        for number in (0, 1)
    ]
    assert all((heatmap >= 0).all() and heatmap.max() > 0 for heatmap in heatmaps)
    assert not np.allclose(*heatmaps)


def test_answers_do_not_depend_on_the_batch(exported: Path, answers: dict[str, Arrays]):
    for number in range(len(PICTURES)):
        alone = call(exported, "serving_default", images=PICTURES[number : number + 1])["probabilities"]
        np.testing.assert_allclose(alone[0], answers["serving_default"]["probabilities"][number], rtol=1e-5)


def test_visible_layers_are_those_that_change_what_they_get():
    assert [(layer.name, layer.type, layer.shape, layer.parameters) for layer in export.visible_layers(tiny())] == [
        ("rescaling", "Rescaling", [3, 2, 3], 0),
        ("maps", "Conv2D", [3, 2, 2], 6),
        ("relu", "ReLU", [3, 2, 2], 0),
        ("logits", "Dense", [3], 39),
    ]


def test_each_layer_names_those_that_it_takes():
    """As in ResNet50: what goes round a block, what goes through it, and between them what is no layer."""
    images = keras.Input((8, 8, 3), dtype="uint8", name="images")
    x = keras.layers.Rescaling(1 / 255, name="scaled")(keras.ops.flip(images, axis=-1))
    x = shortcut = keras.layers.Conv2D(4, 3, padding="same", name="conv_1")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv_2")(x)
    x = keras.layers.Add(name="add")([shortcut, x])
    mean = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    both = keras.layers.Concatenate(name="both")([keras.ops.sqrt(mean), keras.layers.Flatten(name="flat")(x), mean])
    network = Network(keras.Model(images, keras.layers.Dense(2, name="logits")(both)), "conv_2")
    assert {layer.name: layer.inputs for layer in export.visible_layers(network)} == {
        "scaled": [],
        "conv_1": ["scaled"],
        "relu": ["conv_1"],
        "conv_2": ["relu"],
        "add": ["conv_1", "conv_2"],
        "mean": ["add"],
        "both": ["mean", "add"],
        "logits": ["both"],
    }


@pytest.mark.parametrize("layer", ["maps", "logits"])
def test_verifying_refuses_an_export_of_other_weights(exported: Path, layer: str):
    network = tiny()
    export.verify(network, exported, PICTURES)
    changed = network.model.get_layer(layer)
    changed.set_weights([weights * 1.01 for weights in changed.get_weights()])
    with pytest.raises(ExportError, match=r"of 1: .* differs from the Keras model's by up to"):
        export.verify(network, exported, PICTURES)


def test_verifying_refuses_an_export_of_another_gradcam_layer(exported: Path):
    network = Network(tiny().model, "relu")
    with pytest.raises(ExportError, match="gradcam of 1: heatmap differs"):
        export.verify(network, exported, PICTURES)


def test_verifying_refuses_an_export_without_one_of_the_layers(exported: Path):
    with pytest.raises(ExportError, match=r"activations of 1: expected outputs .*relu_again.*, found"):
        export.verify(tiny(extra_layer=True), exported, PICTURES)
