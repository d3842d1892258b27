"""Where a network may be cut, what is frozen before the cut, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pytest

from service.manifest import Input
from tests.training import tiny
from training.cache import Cache
from training.errors import TrainingError
from training.frozen import Cut, Features, last_cut, set_trainable
from training.networks import Network, build_network
from training.networks.applications import build
from training.recipe import Backbone, Head, read_recipe

BACKBONES = ("vgg16", "resnet50", "mobilenet")


@pytest.fixture(scope="module")
def backbones() -> dict[str, Network]:
    """With random weights; the tests change only what is trainable."""
    head = Head(pooling="average", units=4, dropout=0.5)
    size = Input(height=32, width=32, resize="crop")
    return {name: build(Backbone(name=name, weights="random", head=head), size, 3) for name in BACKBONES}


def cut_after(network: Network, base_layers: int | str) -> str | None:
    set_trainable(network, base_layers)
    cut = last_cut(network)
    return None if cut is None else network.model.operations[cut.position].name


def trained(network: Network) -> list[str]:
    return [layer.name for layer in network.model.layers if layer.trainable_weights]


@pytest.mark.parametrize(
    ("name", "base_layers", "expected"),
    [
        pytest.param("vgg16", 0, "average", id="vgg16-pooling-needs-no-training"),
        pytest.param("vgg16", 1, "average", id="vgg16-nor-its-last-layer"),
        pytest.param("vgg16", 2, "block5_conv2", id="vgg16-one-convolution"),
        pytest.param("vgg16", 4, "block4_pool", id="vgg16-a-block"),
        pytest.param("vgg16", "all", None, id="vgg16-all"),
        pytest.param("resnet50", 0, "average", id="resnet50-pooling"),
        # Its last convolution: only what is before the whole block leads on through one tensor.
        pytest.param("resnet50", 4, "conv5_block2_out", id="resnet50-skip"),
        # The first block of a stage has a convolution beside it.
        pytest.param("resnet50", 26, "conv4_block6_out", id="resnet50-projection"),
        pytest.param("mobilenet", 0, "average", id="mobilenet-pooling"),
        pytest.param("mobilenet", 3, "conv_dw_13_relu", id="mobilenet-pointwise"),
    ],
)
def test_the_cut_is_the_deepest_before_what_trains(
    backbones: dict[str, Network], name: str, base_layers: int | str, expected: str | None
):
    assert cut_after(backbones[name], base_layers) == expected


def test_a_cut_is_never_inside_a_block(backbones: dict[str, Network]):
    network = backbones["resnet50"]
    for base_layers in range(1, 172, 9):
        set_trainable(network, base_layers)
        cut = last_cut(network)
        assert cut is not None
        # Keras says so where another tensor leads past it.
        rest = keras.Model(cut.tensor, network.model.output)
        assert len(rest.trainable_weights) == len(network.model.trainable_weights)
        name = network.model.operations[cut.position].name
        assert not name.startswith(("conv2_", "conv3_", "conv4_", "conv5_")) or name.endswith("_out"), name


def test_a_network_without_a_base_has_no_cut():
    network = build_network(read_recipe("fruit_cnn"), 3)
    assert cut_after(network, 0) is None
    assert all(layer.trainable for layer in network.model.layers)


def test_the_last_four_of_vgg16_train_beside_the_head(backbones: dict[str, Network]):
    network = backbones["vgg16"]
    set_trainable(network, 4)
    assert trained(network) == ["block5_conv1", "block5_conv2", "block5_conv3", "hidden", "logits"]
    # Keras' own: without preprocessing and head, `base.layers[:-4]` are frozen.
    assert network.base[-4:] == ("block5_conv1", "block5_conv2", "block5_conv3", "block5_pool")
    set_trainable(network, 0)
    assert trained(network) == ["hidden", "logits"]


@pytest.mark.parametrize(
    "base_layers", [pytest.param("all", id="all"), pytest.param(86, id="as-many"), pytest.param(87, id="one-more")]
)
def test_batch_normalisation_of_the_base_stays_frozen_when_all_else_trains(
    backbones: dict[str, Network], base_layers: int | str
):
    network = backbones["mobilenet"]
    set_trainable(network, base_layers)
    for layer in network.model.layers:
        if layer.weights:
            assert bool(layer.trainable_weights) != isinstance(layer, keras.layers.BatchNormalization), layer.name


def features(network: Network, folder: Path, base_layers: Sequence[int]) -> tuple[Features, list[Cut | None], list]:
    """Of stages that train so many layers of the base, and what they will have told."""
    cuts = []
    for count in base_layers:
        set_trainable(network, count)
        cuts.append(last_cut(network))
    told: list[tuple[str, int]] = []
    return Features(network, cuts, Cache(folder), lambda *what: told.append(what), lambda _: None), cuts, told


PICTURES = tiny.examples(0, 4).images
SHARED, DEEPER = "frozen layers up to norm_1", "frozen layers up to average"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.npy")}


@pytest.mark.parametrize("base_layers", [0, 2])
def test_the_rest_makes_of_features_what_the_whole_makes_of_pictures(tmp_path: Path, base_layers: int):
    network = tiny.network()
    found, (cut,), _ = features(network, tmp_path, [base_layers])
    assert cut is not None
    rows = found.of(PICTURES, cut)
    assert (rows.dtype, len(rows)) == (np.float16, len(PICTURES))
    rest = keras.Model(cut.tensor, network.model.output)
    np.testing.assert_allclose(rest(rows), network.model(PICTURES, training=False), rtol=5e-3, atol=5e-3)


def test_features_of_two_stages_share_what_is_frozen_in_both(tmp_path: Path):
    network = tiny.network()
    found, (deep, shared), told = features(network, tmp_path, [0, 2])
    assert deep is not None
    assert shared is not None
    found.of(PICTURES, shared)
    (path,) = tmp_path.glob("*.npy")
    # The deeper ones come from these: doctored, they show.
    np.save(path, np.zeros_like(np.load(path)))
    zeros = np.zeros((1, *shared.tensor.shape[1:]), np.float32)
    expected = keras.Model(shared.tensor, deep.tensor)(zeros, training=False)
    np.testing.assert_allclose(found.of(PICTURES, deep)[:1], expected, atol=1e-3)
    assert told == [(SHARED, 12), (SHARED, 12), (DEEPER, 12)]
    assert len(files(tmp_path)) == 2


def test_where_a_stage_freezes_nothing_each_cut_is_computed_from_pictures(tmp_path: Path):
    found, (deep, none), told = features(tiny.network(), tmp_path, [0, 4])
    assert none is None
    assert found.of(PICTURES, none) is PICTURES
    found.of(PICTURES, deep)
    assert told == [(DEEPER, 12)]


def test_other_frozen_weights_and_other_pictures_are_other_features(tmp_path: Path):
    network = tiny.network()
    found, (cut,), _ = features(network, tmp_path, [0])

    def fresh() -> bool:
        before = files(tmp_path)
        found.of(PICTURES, cut)
        return files(tmp_path) != before

    assert fresh()
    assert not fresh()
    network.model.get_layer("hidden").kernel.assign_add(np.ones((8, 8)))
    assert not fresh(), "what is behind the cut does not matter"
    network.model.get_layer("norm_1").moving_mean.assign_add(np.ones(4))
    assert fresh()
    before = files(tmp_path)
    found.of(255 - PICTURES, cut)
    assert files(tmp_path) != before


def test_features_are_found_again_by_the_same_network_built_anew(tmp_path: Path):
    for _ in range(2):
        found, (cut,), _ = features(tiny.network(), tmp_path, [0])
        found.of(PICTURES, cut)
    assert len(files(tmp_path)) == 1


def test_features_beyond_float16_are_refused(tmp_path: Path):
    network = tiny.network()
    network.model.get_layer("norm_2").gamma.assign(np.full(8, 1e8))
    found, (cut,), _ = features(network, tmp_path, [0])
    with pytest.raises(TrainingError, match="expected features within float16, found "):
        found.of(PICTURES, cut)
    assert not files(tmp_path)
