"""The workshop's network, layer by layer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from service.manifest import Input
from training.errors import RecipeError
from training.networks import Network, build_network
from training.recipe import read_recipe


def square(side: int) -> Input:
    return Input(height=side, width=side, resize="crop")


def cnn(target: Input, classes: int) -> Network:
    return build_network(read_recipe("fruit_cnn").model_copy(update={"input": target}), classes)


def described(layer: keras.layers.Layer) -> tuple[object, ...]:
    """What makes a layer the workshop's."""
    kind = type(layer).__name__
    if isinstance(layer, keras.layers.Conv2D):
        return kind, layer.filters, layer.kernel_size, layer.strides, layer.padding, layer.activation.__name__
    if isinstance(layer, keras.layers.Dense):
        return kind, layer.units, layer.activation.__name__
    if isinstance(layer, keras.layers.Dropout):
        return kind, layer.rate
    if isinstance(layer, keras.layers.LeakyReLU):
        return kind, layer.negative_slope
    if isinstance(layer, keras.layers.MaxPooling2D):
        return kind, layer.pool_size
    return (kind,)


def test_fruit_cnn_has_the_workshops_layers_and_parameters():
    model = cnn(square(20), 16).model
    assert [described(layer) for layer in model.layers] == [
        ("InputLayer",),
        ("Rescaling",),
        ("Conv2D", 32, (3, 3), (1, 1), "same", "linear"),
        ("ReLU",),
        ("Conv2D", 16, (3, 3), (1, 1), "same", "linear"),
        ("LeakyReLU", 0.5),
        ("BatchNormalization",),
        ("MaxPooling2D", (2, 2)),
        ("Dropout", 0.25),
        ("Flatten",),
        ("Dense", 512, "linear"),
        ("ReLU",),
        ("Dropout", 0.5),
        ("Dense", 16, "linear"),
    ]
    assert model.count_params() == 833_504


def test_it_takes_bytes_of_any_shape_and_gives_a_logit_a_class():
    model = cnn(Input(height=9, width=7, resize="pad"), 5).model
    assert model.input_shape == (None, 9, 7, 3)
    assert model.inputs[0].dtype == "uint8"
    assert model.output_shape == (None, 5)


def test_preprocessing_is_inside_and_from_minus_one_to_one():
    model = cnn(square(4), 2).model
    pictures = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1) * np.ones((1, 4, 4, 3), np.uint8)
    scaled = np.asarray(model.layers[1](pictures))
    np.testing.assert_allclose(scaled[:, 0, 0, 0], [-1, -0.6, 1], atol=1e-6)


def test_gradcam_weighs_the_last_feature_maps_before_pooling():
    network = cnn(square(20), 16)
    assert network.model.get_layer(network.gradcam_layer).output.shape == (None, 20, 20, 16)


def test_first_weights_come_from_keras_seed():
    def weights(seed: int) -> np.ndarray:
        keras.utils.set_random_seed(seed)
        return cnn(square(6), 3).model.get_layer("conv_1").get_weights()[0]

    np.testing.assert_array_equal(weights(4), weights(4))
    assert (weights(4) != weights(5)).any()


def test_an_unknown_network_is_named_beside_the_known_ones():
    with pytest.raises(RecipeError, match=r"network: expected one of .*fruit_cnn.*, found 'fruit_rnn'"):
        build_network(read_recipe("fruit_cnn").model_copy(update={"network": "fruit_rnn"}), 16)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 20), (20, 1)])
def test_an_input_that_leaves_nothing_to_pool_is_the_recipes_fault(height: int, width: int):
    with pytest.raises(RecipeError, match="input: expected at least 2 pixels a side for fruit_cnn, found 1"):
        cnn(Input(height=height, width=width, resize="crop"), 2)


def test_the_smallest_input_has_a_network():
    assert cnn(square(2), 2).model.output_shape == (None, 2)
