"""Keras' applications as backbones: flat, with Keras' own preprocessing, weights and answers."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.manifest import Input
from tests.conftest import ROOT
from training.errors import RecipeError, WeightsError
from training.export import visible_layers
from training.networks import Network, build_network
from training.networks.applications import APPLICATIONS, build, build_classifier
from training.recipe import Backbone, Head, read_recipe

# Keras' own, where it saves weights with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

HEAD = Head(pooling="average", units=8, dropout=0.5)
SMALL = "mobilenet_v3_small"


def backbone(name: str, weights: str = "random", **head: object) -> Backbone:
    return Backbone(name=name, weights=weights, head=HEAD.model_copy(update=head))


def square(side: int) -> Input:
    return Input(height=side, width=side, resize="crop")


def pictures(side: int) -> NDArray[np.uint8]:
    """The photographs of examples/: [4, side, side, 3]."""
    paths = sorted((ROOT / "examples").glob("*.png"))
    return np.stack([np.asarray(Image.open(path).convert("RGB").resize((side, side))) for path in paths])


def base_output(network: Network, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    model = keras.Model(network.model.input, network.model.get_layer(network.base[-1]).output)
    return np.asarray(model(images, training=False))


def keras_preprocessing(name: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """By Keras' own function, which writes into what it gets."""
    module = "mobilenet_v3" if name.startswith("mobilenet_v3") else name.removesuffix("_b0")
    return np.asarray(getattr(keras.applications, module).preprocess_input(images.astype(np.float32)))


def test_vgg16_with_the_workshops_head_has_the_workshops_parameters():
    recipe = read_recipe("fruit_vgg16_transfer")
    blank = recipe.model_copy(update={"backbone": recipe.backbone.model_copy(update={"weights": "random"})})
    network = build_network(blank, 16)
    assert network.model.count_params() == 15_786_439
    assert (network.model.input_shape, network.model.output_shape) == ((None, 75, 75, 3), (None, 16))
    assert [layer.name for layer in network.model.layers[-4:]] == ["flatten", "hidden", "dropout", "logits"]
    assert network.base[0] == "block1_conv1"
    # The workshop trained `layers[:-4]` not at all; so do the recipe's four.
    last = read_recipe("fruit_vgg16_finetune").fitting.stages[-1].base_layers
    assert network.base[-last:] == ("block5_conv1", "block5_conv2", "block5_conv3", "block5_pool")


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_is_flat_takes_bytes_and_gives_logits(name: str):
    side = APPLICATIONS[name].smallest_side
    network = build(backbone(name), Input(height=side, width=side + 5, resize="crop"), 3)
    assert not [layer for layer in network.model.layers if isinstance(layer, keras.Model)]
    assert [(tensor.name, tensor.dtype) for tensor in network.model.inputs] == [("images", "uint8")]
    assert network.model.output_shape == (None, 3)
    # The probabilities are the export's.
    assert network.model.layers[-1].activation.__name__ == "linear"
    assert len(network.model.get_layer(network.gradcam_layer).output.shape) == 4
    assert network.gradcam_layer in {layer.name for layer in visible_layers(network)}
    layers = [layer.name for layer in network.model.layers]
    assert set(layers) - set(network.base) == {"images", "average", "hidden", "dropout", "logits"} | (
        {"preprocessing"} & set(layers)
    )
    assert [name for name in layers if name in network.base] == list(network.base)


@pytest.mark.parametrize(
    "name", [name for name in APPLICATIONS if APPLICATIONS[name].preprocessing.__name__ != "_inside"]
)
def test_preprocessing_is_keras_own(name: str):
    images = keras.Input((75, 75, 3), dtype="uint8")
    found = keras.Model(images, APPLICATIONS[name].preprocessing(images))(pictures(75))
    np.testing.assert_allclose(found, keras_preprocessing(name, pictures(75)), atol=1e-4)


def test_a_backbone_answers_as_keras_own_model_with_the_same_weights():
    network = build(backbone("mobilenet"), square(64), 3)
    reference = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(64, 64, 3))
    reference.set_weights([w for name in network.base for w in network.model.get_layer(name).get_weights()])
    expected = reference(keras_preprocessing("mobilenet", pictures(64)), training=False)
    np.testing.assert_allclose(base_output(network, pictures(64)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "features"), [("flatten", 2 * 2 * 512), ("average", 512), ("max", 512), ("average_max", 2 * 512)]
)
def test_the_head_pools_feature_maps_as_the_recipe_says(pooling: str, features: int):
    network = build(backbone("vgg16", pooling=pooling, units=5, dropout=0.25), square(64), 3)
    maps = base_output(network, pictures(64))
    assert maps.shape[1:] == (2, 2, 512)
    hidden, dropout, logits = network.model.layers[-3:]
    assert (hidden.units, hidden.activation.__name__, dropout.rate, logits.units) == (5, "relu", 0.25, 3)
    found = np.asarray(keras.Model(network.model.input, hidden.input)(pictures(64), training=False))
    assert found.shape[1:] == (features,)
    expected = {
        "flatten": maps.reshape(4, -1),
        "average": maps.mean(axis=(1, 2)),
        "max": maps.max(axis=(1, 2)),
        "average_max": np.concatenate([maps.mean(axis=(1, 2)), maps.max(axis=(1, 2))], axis=-1),
    }
    np.testing.assert_allclose(found, expected[pooling], rtol=1e-4, atol=1e-5)


# Weights


@pytest.fixture(scope="module")
def whole() -> keras.Model:
    """The small application with its top, and weights that no other has."""
    keras.utils.set_random_seed(11)
    return keras.applications.MobileNetV3Small(weights=None)


@pytest.fixture(scope="module")
def weight_files(whole: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights with and without the top, in Keras' two formats."""
    folder = tmp_path_factory.mktemp("weights")
    base = keras.applications.MobileNetV3Small(weights=None, include_top=False)
    base.set_weights(whole.get_weights()[: len(base.weights)])
    for name, model in (("whole", whole), ("notop", base)):
        model.save_weights(folder / f"{name}.weights.h5")
        model.save(folder / f"{name}.h5")
    return folder


@pytest.mark.parametrize("name", ["notop.weights.h5", "whole.weights.h5", "notop.h5", "whole.h5"])
def test_a_file_of_weights_stands_instead_of_the_download(name: str, weight_files: Path, whole: keras.Model):
    network = build(backbone(SMALL, "imagenet"), square(64), 3, weight_files / name)
    found = [w for layer in network.base for w in network.model.get_layer(layer).get_weights()]
    assert len(found) > 100
    for one, other in zip(found, whole.get_weights(), strict=False):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["notop.weights.h5", "notop.h5"])
def test_a_classifier_needs_the_top_too(name: str, weight_files: Path):
    with pytest.raises(WeightsError, match=r"expected the weights of mobilenet_v3_small \(\d+ arrays, 2,554,968 num"):
        build_classifier(SMALL, weight_files / name)


def test_a_file_of_another_network_is_refused_with_what_was_expected_and_found(weight_files: Path):
    path = weight_files / "whole.weights.h5"
    said = (
        rf"{path}: expected the weights of mobilenet, with or without its top \(\d+ arrays, 3,228,864 numbers\), "
        r"found \d+ arrays, 2,554,968 numbers, that do not fit"
    )
    with pytest.raises(WeightsError, match=said):
        build(backbone("mobilenet", "imagenet"), square(64), 3, path)


@pytest.mark.parametrize("name", ["w.weights.h5", "w.h5", "w"])
def test_what_is_no_file_of_weights_is_refused(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(b"<html>")
    with pytest.raises(WeightsError, match=rf"{tmp_path / name}: expected "):
        build(backbone(SMALL, "imagenet"), square(64), 3, tmp_path / name)


@pytest.mark.parametrize(("name", "found"), [("nowhere/w.weights.h5", "none"), (".", "a folder")])
def test_weights_that_are_not_there_are_named_in_our_words(name: str, found: str, tmp_path: Path):
    path = tmp_path / name
    with pytest.raises(WeightsError, match=rf"^{path}: expected a file of weights, found {found}$"):
        build(backbone(SMALL, "imagenet"), square(64), 3, path)


def test_efficientnet_from_a_file_divides_by_the_roots_of_the_deviations_as_keras_download_does(tmp_path: Path):
    """Keras adds that division only where it downloads the weights itself."""
    keras_model = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(32, 32, 3))
    normalization = keras_model.get_layer(index=2)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalization.load_own_variables({"0": mean, "1": deviation, "2": np.array(0)})
    keras_model.save_weights(tmp_path / "notop.weights.h5")
    network = build(backbone("efficientnet_b0", "imagenet"), square(32), 3, tmp_path / "notop.weights.h5")
    found = keras.Model(network.model.input, network.model.get_layer("stem_conv_pad").input)(pictures(32))
    np.testing.assert_allclose(found, (pictures(32) / 255 - mean) / deviation, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("chosen", "side", "weights", "said"),
    [
        pytest.param(backbone("vgg17"), 75, None, r"backbone: expected one of vgg16, .*, found 'vgg17'", id="unknown"),
        pytest.param(
            backbone("xception"), 70, None, "expected at least 71 pixels a side for xception, found 70", id="small"
        ),
        pytest.param(backbone("vgg16"), 75, Path("x.h5"), 'expected "imagenet" where a file', id="random-and-file"),
    ],
)
def test_a_backbone_that_cannot_be_built_is_the_recipes_fault(
    chosen: Backbone, side: int, weights: Path | None, said: str
):
    with pytest.raises(RecipeError, match=said):
        build(chosen, square(side), 2, weights)


@pytest.mark.parametrize(("layers", "stage"), [((0, 86), 2), ((9999,), 1)])
def test_more_layers_than_the_backbone_has_cannot_train(layers: tuple[int, ...], stage: int):
    recipe = read_recipe("fruit_vgg16_transfer")
    stages = [recipe.fitting.stages[0].model_copy(update={"base_layers": count}) for count in layers]
    changes = {
        "backbone": backbone("mobilenet", "random"),
        "fitting": recipe.fitting.model_copy(update={"stages": stages}),
    }
    said = rf"at most 85, the layers of mobilenet, found {layers[-1]} in stage {stage}$"
    with pytest.raises(RecipeError, match=said):
        build_network(recipe.model_copy(update=changes), 3)


def test_a_network_of_ones_own_takes_no_file_of_weights():
    with pytest.raises(RecipeError, match="expected a backbone where a file of weights is given, found 'fruit_cnn'"):
        build_network(read_recipe("fruit_cnn"), 2, Path("x.h5"))


# The real weights


@pytest.mark.realdata
def test_vgg16_with_the_real_weights_gives_keras_feature_maps(weights_folder: Path):
    path = weights_folder / "vgg16_imagenet_notop_f16.weights.h5"
    network = build_network(read_recipe("fruit_vgg16_transfer"), 16, path)
    reference = keras.applications.VGG16(include_top=False, weights=path, input_shape=(75, 75, 3))
    expected = np.asarray(reference(keras_preprocessing("vgg16", pictures(75)), training=False))
    assert expected.std() > 1
    np.testing.assert_allclose(base_output(network, pictures(75)), expected, rtol=1e-3, atol=1e-3 * expected.max())
