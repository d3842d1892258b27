"""What a channel looks for: pictures of which a person knows what they must show."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from service.manifest import Layer, read_manifest
from tests.conftest import ROOT
from training import export, maximise
from training.errors import VersionError
from training.maximise import Chosen, Maximised, choose, glance
from training.networks import Network

SIDE = 32
VERTICAL = np.array([[-1, 2, -1]] * 3, np.float32)


def detectors(activation: str | None) -> Network:
    """Channels answer to vertical stripes, to horizontal ones, and to red without green; two are the classes."""
    images = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="images")
    # Keras' applications turn bytes around before they scale them.
    x = keras.layers.Rescaling(1 / 255, name="scaled")(keras.ops.flip(images, axis=-1))
    x = keras.layers.Conv2D(3, 3, activation=activation, name="detectors")(x)
    x = keras.layers.GlobalMaxPooling2D(name="strongest")(x)
    model = keras.Model(images, keras.layers.Dense(2, use_bias=False, name="logits")(x), name="detectors")
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    kernel[..., 0], kernel[..., 1] = VERTICAL[..., None], VERTICAL.T[..., None]
    # Blue, green, red, as they come.
    kernel[1, 1, :, 2] = [0, -1, 1]
    # Grey ground is silent for it.
    model.get_layer("detectors").set_weights([kernel, np.array([0, 0, -0.5], np.float32)])
    model.get_layer("logits").set_weights([np.eye(3, 2, dtype=np.float32)])
    return Network(model, "detectors")


@pytest.fixture(scope="module", params=["relu", None], ids=["rectified", "signed"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detectors")
    export.save(detectors(request.param), folder)
    return folder


def energies(picture: NDArray[np.uint8]) -> tuple[float, float]:
    """How much a picture changes from column to column, and from row to row."""
    grey = picture.astype(np.float64).mean(axis=-1)
    return float((np.diff(grey, axis=1) ** 2).mean()), float((np.diff(grey, axis=0) ** 2).mean())


def test_a_picture_shows_what_its_filter_detects(exported: Path):
    (found,) = maximise.maximise(exported, [Chosen("detectors", [0, 1, 2])], steps=48)
    across, down = energies(found.pictures[0])
    assert across > 3 * down
    across, down = energies(found.pictures[1])
    assert down > 3 * across
    red, green, _ = found.pictures[2].reshape(-1, 3).mean(axis=0)
    assert red > green + 15
    assert found.pictures.shape == (3, SIDE, SIDE, 3)
    assert found.width == 3


def test_what_is_said_of_a_picture_is_what_the_network_answers(exported: Path):
    (found,) = maximise.maximise(exported, [Chosen("detectors", [1, 0])], steps=24)
    network = detectors("relu").model
    answers = keras.Model(network.inputs[0], network.get_layer("detectors").output)(found.pictures).numpy()
    expected = answers.mean(axis=(1, 2))[[0, 1], [1, 0]]
    np.testing.assert_allclose(found.after, expected, rtol=1e-4)
    assert (found.after > 5 * found.before).all()


def test_a_class_s_picture_raises_its_logit_alone(exported: Path):
    (found,) = maximise.maximise(exported, [Chosen("logits", [0, 1], ["upright", "level"])], steps=24)
    assert (found.after > 3 * found.before).all()
    logits = detectors("relu").model(found.pictures).numpy()
    assert logits.argmax(axis=1).tolist() == [0, 1]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(exported: Path):
    def run(seed: int, *channels: int) -> Maximised:
        (found,) = maximise.maximise(exported, [Chosen("detectors", list(channels))], steps=4, seed=seed)
        return found

    first = run(2**32 - 1, 0, 2)
    np.testing.assert_array_equal(run(2**32 - 1, 0, 2).pictures, first.pictures)
    assert not np.array_equal(run(1, 0, 2).pictures, first.pictures)
    # Whatever else is asked for, but for the last bit of a sum in another order.
    assert np.abs(run(2**32 - 1, 2).pictures[0].astype(int) - first.pictures[1].astype(int)).max() <= 1


def test_progress_is_told_of_layers_and_steps(exported: Path):
    heard: list[object] = []
    maximise.maximise(
        exported,
        [Chosen("detectors", [0]), Chosen("logits", [0])],
        steps=2,
        begin=lambda layer, steps: heard.append((layer, steps)),
        done=lambda: heard.append("step"),
    )
    assert heard == [("detectors", 2), "step", "step", ("logits", 2), "step", "step"]


def test_a_layer_that_is_not_there_is_refused_with_those_that_are(exported: Path):
    with pytest.raises(VersionError, match=r"expected some of detectors, logits, scaled, strongest, found 'conv_9'"):
        maximise.maximise(exported, [Chosen("conv_9", [0])])
    layers = export.visible_layers(detectors(None))
    with pytest.raises(VersionError, match=r"expected some of scaled, detectors, strongest, logits, found 'conv_9'"):
        choose(layers, ["upright", "level"], names=["detectors", "conv_9"])


def test_layers_and_channels_are_spread_from_first_to_last():
    manifest = read_manifest(ROOT / "models" / "fruit_vgg16" / "1")
    chosen = choose(manifest.layers, manifest.labels, channels=3)
    assert [one.layer for one in chosen] == [
        "block1_conv1",
        "block2_conv2",
        "block3_conv3",
        "block4_conv3",
        "block5_conv3",
        "logits",
    ]
    assert chosen[-2].channels == [0, 256, 511]
    # The model has a logit for none of its classes, which is none.
    assert chosen[-1].labels == manifest.labels
    assert chosen[-1].channels == list(range(16))
    (named,) = choose(manifest.layers, manifest.labels, names=["average"], channels=2)
    assert (named.layer, named.channels, named.labels) == ("average", [0, 511], None)


def test_a_glance_costs_no_more_than_its_budget():
    small = [Layer(name=f"conv_{i}", type="Conv2D", shape=[8, 8, 4], parameters=100) for i in range(3)]
    head = Layer(name="logits", type="Dense", shape=[20], parameters=100)
    assert [len(one.channels) for one in glance([*small, head], [str(n) for n in range(20)])] == [4, 4, 4, 16]
    large = [layer.model_copy(update={"shape": [800, 800, 64], "parameters": 100_000}) for layer in small]
    chosen = glance([*large, head], [str(n) for n in range(20)])
    assert [len(one.channels) for one in chosen] == [1, 1, 1, 1]
    assert chosen[-1].labels == ["0"]
