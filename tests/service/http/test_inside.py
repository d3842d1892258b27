"""Looking inside over HTTP: feature maps, kernels, layers, the walk, the diagram; of real networks on a real server."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import httpx
import numpy as np
import pytest
from fastapi import Response
from PIL import Image

from service import classifier, render
from service.activations import find_layer, map_grid, over
from service.app import create_app
from service.decode import decode, fit
from service.engines.openvino import OpenVINOEngine
from service.errors import UnknownLayer
from service.explain.model import Model
from service.http import inside
from service.http.schemas import NoQuery
from service.manifest import Input, hash_files, probe_images, read_manifest
from service.repository import Version
from service.settings import Settings
from tests.conftest import ROOT, LiveServer, draw, encode

SVG = "{http://www.w3.org/2000/svg}"
LEMON = (ROOT / "examples" / "lemon.png").read_bytes()
LABELS = ["a", "b"]
# The most that the number in a cell's corner takes of it: rows and columns.
NUMBER = (20, 24)
# Kernels that are known: [rows, columns, inputs, channels].
EDGES = np.zeros((3, 3, 3, 4), np.float32)
EDGES[:, 0, :, 0], EDGES[:, 2, :, 0] = -1, 1
EDGES[1, 1, 0, 1] = 0.5
EDGES[..., 2] = -1
EDGES[1, 1, 2, 3] = 2
DEPTHWISE = np.arange(1, 3 * 3 * 4 * 2 + 1, dtype=np.float32).reshape(3, 3, 4, 2)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with known kernels, branches, a residual connection, colours turned round on the way in, and a logit
    for pictures of neither class.
    """
    import keras
    from keras import layers

    from training.export import save, visible_layers
    from training.networks import Network

    images = keras.Input((12, 16, 3), dtype="uint8", name="images")
    turned = keras.ops.flip(images, axis=-1)
    x = layers.Rescaling(1 / 255, name="preprocessing")(turned)
    edges = layers.Conv2D(4, 3, padding="same", name="edges")(x)
    relu = layers.ReLU(name="edges_relu")(edges)
    depthwise = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(relu)
    separable = layers.SeparableConv2D(8, 3, padding="same", name="separable")(relu)
    added = layers.Add(name="added")([depthwise, separable])
    pointwise = layers.Conv2D(8, 1, name="pointwise")(added)
    residual = layers.Add(name="residual")([added, pointwise])
    average = layers.GlobalAveragePooling2D(name="average")(residual)
    model = keras.Model(images, layers.Dense(3, name="logits")(average), name="known")
    model.get_layer("edges").set_weights([EDGES, np.zeros(4, np.float32)])
    model.get_layer("depthwise").set_weights([DEPTHWISE, np.zeros(8, np.float32)])
    network = Network(model, "residual", none_logit=True)

    models = tmp_path_factory.mktemp("inside")
    folder = models / "known" / "1"
    save(network, folder)
    inputs = {
        "preprocessing": [],
        "edges": ["preprocessing"],
        "edges_relu": ["edges"],
        "depthwise": ["edges_relu"],
        "separable": ["edges_relu"],
        "added": ["depthwise", "separable"],
        "pointwise": ["added"],
        "residual": ["added", "pointwise"],
        "average": ["residual"],
        "logits": ["average"],
    }
    probabilities = OpenVINOEngine(folder, threads=1).predict(probe_images(12, 16)).probabilities
    manifest = json.loads((ROOT / "models" / "fruit_cnn" / "1" / "manifest.json").read_bytes()) | {
        "name": "known",
        "version": 1,
        "labels": LABELS,
        "input": {"height": 12, "width": 16, "resize": "pad"},
        "layers": [{**layer.model_dump(), "inputs": inputs[layer.name]} for layer in visible_layers(network)],
        "gradcam_layer": "residual",
        "probe": {"probabilities": probabilities.tolist()},
        "metrics": None,
        "files": hash_files(folder),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return models


@pytest.fixture(scope="module")
def models(known: Path) -> Path:
    shutil.copytree(ROOT / "models" / "fruit_cnn", known / "fruit_cnn")
    return known


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[httpx.Client]:
    with (
        LiveServer(create_app(Settings(models=models, engine="openvino", default_model="fruit_cnn"))) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def lemon(client: httpx.Client) -> str:
    answer = client.post("/predict", params={"model": "fruit_cnn"}, files={"file": LEMON}).json()
    return str(answer["images"][0]["image_id"])


@pytest.fixture(scope="module")
def drawn(client: httpx.Client) -> str:
    """A wide picture in colours."""
    image = draw("square", 3, (64, 24))
    return str(client.post("/predict", files={"file": encode(image)}).json()["images"][0]["image_id"])


def ask(client: httpx.Client, path: str, **params: Any) -> httpx.Response:
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer


def numbers(client: httpx.Client, path: str = "/activations", **params: Any) -> np.ndarray:
    return np.load(io.BytesIO(ask(client, path, format="npy", **params).content), allow_pickle=False)


def picture(client: httpx.Client, path: str = "/activations", **params: Any) -> np.ndarray:
    answer = ask(client, path, **params)
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))


def cell(pixels: np.ndarray, grid: dict[str, int], index: int) -> np.ndarray:
    row, column = divmod(index, grid["columns"])
    top = row * (grid["cell_height"] + grid["gap"]) + grid["gap"]
    left = column * (grid["cell_width"] + grid["gap"]) + grid["gap"]
    return pixels[top : top + grid["cell_height"], left : left + grid["cell_width"]]


def once(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Each block of an enlarged map as one pixel, having checked that it is of one colour."""
    down, across = pixels.shape[0] // height, pixels.shape[1] // width
    small = pixels[down - 1 :: down, across - 1 :: across]
    shows(pixels, small, (0, 0))
    return small


def shows(pixels: np.ndarray, small: np.ndarray, number: tuple[int, int] = NUMBER) -> None:
    """Check that a cell is a map enlarged, but where its number is."""
    down, across = pixels.shape[0] // small.shape[0], pixels.shape[1] // small.shape[1]
    differs = (pixels != small.repeat(down, axis=0).repeat(across, axis=1)).any(axis=-1)
    differs[: number[0], : number[1]] = False
    assert not differs.any()


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


# Feature maps


def test_the_input_is_what_the_model_sees(client: httpx.Client, lemon: str) -> None:
    seen = fit(decode(LEMON, max_pixels=10**7), read_manifest(ROOT / "models" / "fruit_cnn" / "1").input)
    np.testing.assert_array_equal(numbers(client, image_id=lemon, layer="input"), seen)
    np.testing.assert_array_equal(once(picture(client, image_id=lemon, layer="input"), 20, 20), seen)


def test_the_last_layer_s_numbers_are_the_engine_s_logits(client: httpx.Client, lemon: str) -> None:
    seen = fit(decode(LEMON, max_pixels=10**7), read_manifest(ROOT / "models" / "fruit_cnn" / "1").input)
    expected = OpenVINOEngine(ROOT / "models" / "fruit_cnn" / "1", threads=1).predict(seen[None]).logits[0]
    found = numbers(client, image_id=lemon, layer="logits")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_convolution_s_numbers_are_the_convolution(client: httpx.Client, drawn: str) -> None:
    seen = numbers(client, image_id=drawn, model="known", layer="input")
    given = np.pad(seen[..., ::-1] / 255, ((1, 1), (1, 1), (0, 0)))
    expected = np.zeros((12, 16, 4))
    for y in range(3):
        for x in range(3):
            expected += given[y : y + 12, x : x + 16] @ EDGES[y, x]
    np.testing.assert_allclose(
        numbers(client, image_id=drawn, model="known", layer="edges"), expected, rtol=1e-4, atol=1e-5
    )


def test_each_cell_shows_its_channel_scaled_by_itself(client: httpx.Client, drawn: str) -> None:
    asked = {"image_id": drawn, "model": "known", "layer": "edges"}
    maps = numbers(client, **asked)
    grid = ask(client, "/activations", **asked, format="json").json()["grid"]
    pixels = picture(client, **asked)
    for channel in range(4):
        values = maps[..., channel]
        expected = render.sequential(values, values.min(), values.max())
        shows(cell(pixels, grid, channel), expected)
        np.testing.assert_array_equal(once(picture(client, **asked, channel=channel), 12, 16), expected)


def test_a_channel_that_is_all_zero_is_crossed_out_and_said_to_be_dead(client: httpx.Client, drawn: str) -> None:
    asked = {"image_id": drawn, "model": "known", "layer": "edges_relu"}
    told = ask(client, "/activations", **asked, format="json").json()
    assert [channel["dead"] for channel in told["channels"]] == [False, False, True, False]
    assert told["channels"][2] == {"channel": 2, "mean": 0, "max": 0, "min": 0, "sparsity": 1, "dead": True}
    numbered = cell(picture(client, **asked), told["grid"], 2)
    # A cross is the same in a mirror.
    crossed = np.where(np.arange(numbered.shape[1])[:, None] < NUMBER[1], numbered[:, ::-1], numbered)
    assert {tuple(colour) for colour in crossed.reshape(-1, 3)} == {(render.DEAD,) * 3, (render.CROSS,) * 3}
    height, width = crossed.shape[:2]
    assert {int(crossed[y, x, 0]) for y in (0, height - 1) for x in (0, width - 1)} == {render.CROSS}
    assert crossed[height // 2, 2, 0] == render.DEAD


def test_statistics_are_those_of_the_numbers(client: httpx.Client, lemon: str) -> None:
    maps = numbers(client, image_id=lemon, layer="relu_1")
    told = ask(client, "/activations", image_id=lemon, layer="relu_1", format="json").json()
    assert told["shape"] == [20, 20, 32]
    assert told["image_id"] == lemon
    for index, channel in enumerate(told["channels"]):
        values = maps[..., index].astype(float)
        expected = [values.mean(), values.max(), values.min(), (values == 0).mean()]
        found = [channel[name] for name in ("mean", "max", "min", "sparsity")]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    one = ask(client, "/activations", image_id=lemon, layer="relu_1", format="json", channel=7).json()
    assert one["channels"] == [told["channels"][7]]
    np.testing.assert_array_equal(numbers(client, image_id=lemon, layer="relu_1", channel=7), maps[..., 7])


def test_a_dense_layer_is_a_strip_of_cells_in_one_scale(client: httpx.Client, lemon: str) -> None:
    values = numbers(client, image_id=lemon, layer="logits")
    pixels = picture(client, image_id=lemon, layer="logits")
    grid = ask(client, "/activations", image_id=lemon, layer="logits", format="json").json()["grid"]
    assert grid["rows"] == 1
    assert pixels.shape[1] > 10 * pixels.shape[0]
    colours = np.stack([cell(pixels, grid, index)[-1, -1] for index in range(16)])
    np.testing.assert_array_equal(colours, render.sequential(values, values.min(), values.max()))


@pytest.mark.parametrize(
    ("resize", "size", "covered"),
    [
        pytest.param("squash", (600, 300), (0, 600, 0, 300), id="squash"),
        pytest.param("crop", (600, 300), (150, 450, 0, 300), id="crop"),
        pytest.param("pad", (600, 300), (0, 600, 0, 300), id="pad"),
    ],
)
def test_the_picture_shows_where_a_map_of_it_is_strong(
    resize: str, size: tuple[int, int], covered: tuple[int, int, int, int]
) -> None:
    left, right, top, bottom = covered
    values = np.zeros((8, 8), np.float32)
    # The fourth and fifth rows: the middle of the picture whichever way it got there.
    values[3:5] = 1
    image = Image.new("RGB", size, (200, 60, 120))
    pixels = over(image, values, Input(height=80, width=80, resize=resize))
    assert pixels.shape == (size[1], size[0], 3)
    beside = np.ones(pixels.shape[:2], bool)
    beside[top:bottom, left:right] = False
    assert (np.ptp(pixels[beside], axis=-1) == 0).all()
    middle = (left + right) // 2
    np.testing.assert_allclose(pixels[size[1] // 2, middle], (200, 60, 120), atol=1)
    # Padded, the rows above and below the picture are the white around it.
    weak = pixels[top + 2, middle].astype(int)
    assert 0 < np.ptp(weak) < 40
    assert (pixels[beside].max(initial=0)) < weak.min() < weak.max() < 120


def test_a_channel_over_the_picture_keeps_its_aspect(client: httpx.Client, drawn: str) -> None:
    pixels = picture(client, image_id=drawn, model="known", layer="edges", channel=0, over="true")
    assert pixels.shape == (192, 512, 3)


def test_of_a_picture_that_is_nearly_a_line_something_is_to_be_seen(client: httpx.Client) -> None:
    sent = {"files": {"file": encode(draw("square", 7, (3000, 20)))}}
    for path, params in (
        ("/activations", {"model": "known", "layer": "edges", "channel": 0, "over": "true"}),
        ("/explain", {"model": "known", "method": "gradcam"}),
    ):
        answer = client.post(path, params=params, **sent)
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.size == (1024, 64)


def test_a_picture_in_the_body_is_looked_at_the_same(client: httpx.Client, lemon: str) -> None:
    kept = ask(client, "/activations", image_id=lemon, layer="conv_1")
    for sent in ({"files": {"file": LEMON}}, {"content": LEMON, "headers": {"content-type": "image/png"}}):
        assert client.post("/activations", params={"layer": "conv_1"}, **sent).content == kept.content
    told = client.post("/activations", params={"layer": "conv_1", "format": "json"}, files={"file": LEMON}).json()
    assert told["image_id"] == lemon


def test_what_the_client_has_is_not_made_again(client: httpx.Client, lemon: str) -> None:
    calls = {
        "/activations": {"image_id": lemon, "layer": "conv_1"},
        "/walk": {"image_id": lemon},
        "/models/fruit_cnn/filters": {"layer": "conv_1"},
        "/models/fruit_cnn/graph": {},
    }
    tags = set()
    for path, params in calls.items():
        first = ask(client, path, **params)
        assert "no-cache" in first.headers["cache-control"]
        head = client.head(path, params=params)
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", first.headers["etag"])
        assert head.headers["content-length"] == first.headers["content-length"]
        for held in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
            again = client.get(path, params=params, headers={"if-none-match": held})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert client.get(path, params=params, headers={"if-none-match": '"other"'}).content == first.content
        tags.add(first.headers["etag"])
    tags.add(ask(client, "/activations", image_id=lemon, layer="conv_1", channel=1).headers["etag"])
    assert len(tags) == 5


# Kernels


def test_kernels_over_colours_are_pictures_in_these_colours(client: httpx.Client) -> None:
    path = "/models/known/filters"
    np.testing.assert_array_equal(numbers(client, path, layer="edges"), EDGES)
    grid = ask(client, path, layer="edges", format="json").json()["grid"]
    pixels = picture(client, path, layer="edges")
    # The graph turns colours round: the layer's first input is blue.
    expected = np.full((4, 3, 3, 3), 128)
    expected[0, :, 0], expected[0, :, 2] = 0, 255
    expected[1, 1, 1, 2] = 255
    expected[2] = 0
    expected[3, 1, 1, 0] = 255
    for channel in range(4):
        shows(cell(pixels, grid, channel), expected[channel])


def test_one_channel_s_kernel_shows_each_of_its_inputs(client: httpx.Client) -> None:
    pixels = picture(client, "/models/known/filters", layer="edges", channel=3)
    grid = render.layout(3, 3, 3)._asdict()
    for index in range(3):
        shown = cell(pixels, grid, index)
        if index == 2:
            shows(shown, render.diverging(EDGES[:, :, 2, 3], 2))
        else:
            assert (shown == render.DEAD).any()


def test_deeper_kernels_show_their_length_and_the_sign_of_their_sum(client: httpx.Client) -> None:
    path = "/models/fruit_cnn/filters"
    kernels = numbers(client, path, layer="conv_2")
    assert kernels.shape == (3, 3, 32, 16)
    grid = ask(client, path, layer="conv_2", format="json").json()["grid"]
    pixels = picture(client, path, layer="conv_2")
    for channel in range(16):
        side = grid["cell_height"] // 3
        shown = cell(pixels, grid, channel)[side - 1 :: side, side - 1 :: side]
        shows(cell(pixels, grid, channel), shown)
        shown = shown.astype(int)
        sums = kernels[..., channel].sum(axis=-1)
        assert ((shown[..., 0] >= shown[..., 2]) == (sums > 0)).all()
        strongest = np.linalg.norm(kernels[..., channel], axis=-1).argmax()
        extreme = render.diverging(np.array([1.0, -1.0], np.float32), 1)[int(sums.ravel()[strongest] < 0)]
        np.testing.assert_array_equal(shown.reshape(9, 3)[strongest], extreme)


def test_depthwise_kernels_have_one_input_each(client: httpx.Client) -> None:
    path = "/models/known/filters"
    found = numbers(client, path, layer="depthwise")
    np.testing.assert_array_equal(found, DEPTHWISE.reshape(3, 3, 1, 8))
    alone = once(picture(client, path, layer="depthwise", channel=5), 3, 3)
    expected = DEPTHWISE[:, :, 2, 1]
    np.testing.assert_array_equal(alone, render.diverging(expected, expected.max()))
    assert numbers(client, path, layer="separable").shape == (3, 3, 1, 4)
    assert numbers(client, path, layer="pointwise").shape == (1, 1, 8, 8)
    assert picture(client, path, layer="pointwise").shape[1] > 100


# Layers, the walk, the diagram


def test_layers_say_what_they_are_and_what_they_take(client: httpx.Client) -> None:
    told = ask(client, "/models/known/layers").json()
    assert told == ask(client, "/models/known/versions/1/layers").json()
    layers = {layer["name"]: layer for layer in told["layers"]}
    assert layers["preprocessing"]["inputs"] == []
    assert layers["added"]["inputs"] == ["depthwise", "separable"]
    assert {name for name in layers if layers[name]["filters"]} == {"edges", "depthwise", "separable", "pointwise"}
    assert layers["edges"]["parameters"] == 112
    chain = ask(client, "/models/fruit_cnn/layers").json()["layers"]
    assert [layer["inputs"] for layer in chain] == [[], *([layer["name"]] for layer in chain[:-1])]


def test_the_channel_that_stands_for_none_of_the_classes_is_named(client: httpx.Client, drawn: str) -> None:
    *before, last = ask(client, "/models/known/layers").json()["layers"]
    assert (last["shape"], last["none_channel"]) == ([3], 2)
    assert {layer["none_channel"] for layer in before} == {None}
    assert ask(client, "/models/fruit_cnn/layers").json()["layers"][-1]["none_channel"] is None
    logits = ask(client, "/walk", image_id=drawn, model="known").json()["logits"]
    given = numbers(client, image_id=drawn, model="known", layer="logits")
    np.testing.assert_allclose(logits, given[:2], rtol=1e-3, atol=1e-4)


def test_a_walk_leads_from_the_picture_to_the_answer(client: httpx.Client, lemon: str) -> None:
    walk = ask(client, "/walk", image_id=lemon, model="fruit_cnn").json()
    predicted = client.post("/predict", params={"top_k": 10}, files={"file": LEMON}).json()["images"][0]
    said = [(p["label"], p["index"], round(p["probability"], 4)) for p in walk["predictions"]]
    assert said == [(p["label"], p["index"], round(p["probability"], 4)) for p in predicted["predictions"]]
    assert walk["recognised"] == predicted["recognised"]
    np.testing.assert_allclose(walk["logits"], numbers(client, image_id=lemon, layer="logits"), rtol=1e-3, atol=1e-4)
    assert walk["predictions"][0]["logit"] == max(walk["logits"])
    assert [layer["name"] for layer in walk["layers"]] == [
        layer["name"] for layer in ask(client, "/models/fruit_cnn/layers").json()["layers"]
    ]
    for link in (walk["input"]["picture"], walk["layers"][1]["picture"], walk["layers"][1]["filter_picture"]):
        assert link.startswith("/")
        assert client.get(link).headers["content-type"] == "image/png"
    maps = numbers(client, image_id=lemon, layer="relu_1")
    relu = next(layer for layer in walk["layers"] if layer["name"] == "relu_1")
    assert relu["dead_channels"] == int((~maps.any(axis=(0, 1))).sum())
    np.testing.assert_allclose(
        [relu["mean"], relu["max"], relu["sparsity"]], [maps.mean(), maps.max(), (maps == 0).mean()], rtol=1e-4
    )


def test_the_diagram_has_a_box_for_each_layer_and_an_arrow_for_each_that_it_takes(client: httpx.Client) -> None:
    answer = ask(client, "/models/known/graph")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    root = ET.fromstring(answer.text)
    assert "known" in root.findtext(f"{SVG}title")
    assert not root.findall(f".//{SVG}script")
    boxes = [g for g in root.iter(f"{SVG}g") if g.get("class", "").split()[0] == "layer"]
    layers = ask(client, "/models/known/layers").json()["layers"]
    assert [box.get("data-name") for box in boxes] == [layer["name"] for layer in layers]
    arrows = {(p.get("data-from"), p.get("data-to")) for p in root.iter(f"{SVG}path") if p.get("class") == "arrow"}
    assert arrows == {(name, layer["name"]) for layer in layers for name in layer["inputs"] or ["input"]}
    text = "".join(boxes[1].itertext())
    for part in ("edges", "Conv2D", "12 \u00d7 16 \u00d7 4", "112"):
        assert part in text


# Refusals


@pytest.mark.parametrize(
    ("params", "status", "code", "says"),
    [
        pytest.param({"layer": "conv1"}, 404, "unknown_layer", ", conv_1, relu_1, conv_2,", id="layer"),
        pytest.param({"layer": "conv_1", "channel": 32}, 422, "invalid_request", "channel 0 to 31", id="channel"),
        pytest.param({"layer": "conv_1", "channel": -1}, 422, "invalid_request", "channel", id="negative"),
        pytest.param({"layer": "input", "channel": 3}, 422, "invalid_request", "channel 0 to 2", id="input-channel"),
        pytest.param({}, 422, "invalid_request", "layer", id="no-layer"),
        pytest.param(
            {"layer": "conv_1", "format": "gif"}, 422, "invalid_request", "'png', 'json' or 'npy'", id="format"
        ),
        pytest.param({"layer": "conv_1", "over": "true"}, 422, "invalid_request", "`channel`", id="over-all"),
        pytest.param(
            {"layer": "conv_1", "channel": 1, "over": "true", "format": "npy"},
            422,
            "invalid_request",
            "format=png, got format=npy",
            id="over-npy",
        ),
        pytest.param(
            {"layer": "dense", "channel": 1, "over": "true"},
            422,
            "invalid_request",
            "rows and columns",
            id="over-dense",
        ),
        pytest.param({"layer": "conv_1", "size": 3}, 422, "invalid_request", "size", id="unknown-parameter"),
        pytest.param({"layer": "conv_1", "model": "cats"}, 404, "unknown_model", "cats", id="model"),
        pytest.param({"layer": "conv_1", "version": 9}, 404, "unknown_version", "9", id="version"),
    ],
)
def test_a_look_that_cannot_be_had_is_refused(
    client: httpx.Client, lemon: str, params: dict[str, Any], status: int, code: str, says: str
) -> None:
    assert says in refused(client.get("/activations", params={"image_id": lemon, **params}), status, code)
    assert says in refused(client.post("/activations", params=params, files={"file": LEMON}), status, code)


def test_a_picture_that_is_not_kept_or_has_no_id_is_refused(client: httpx.Client) -> None:
    for path, params in (("/activations", {"layer": "conv_1"}), ("/walk", {})):
        refused(client.get(path, params={**params, "image_id": "0" * 64}), 404, "unknown_image")
        refused(client.get(path, params={**params, "image_id": "../etc"}), 422, "invalid_request")
        refused(client.get(path, params=params), 422, "invalid_request")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        pytest.param({"files": {"file": b"x"}}, 415, "unsupported_image", id="no-picture"),
        pytest.param({"files": {"file": LEMON[:500]}}, 422, "broken_image", id="truncated"),
        pytest.param({"files": [("file", LEMON), ("file", LEMON)]}, 422, "too_many_images", id="two"),
        pytest.param(
            {"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type", id="text"
        ),
    ],
)
def test_a_body_that_is_no_picture_is_refused(
    client: httpx.Client, sent: dict[str, Any], status: int, code: str
) -> None:
    refused(client.post("/activations", params={"layer": "conv_1"}, **sent), status, code)


def test_a_layer_without_a_kernel_is_refused_with_those_that_have_one(client: httpx.Client) -> None:
    path = "/models/fruit_cnn/filters"
    dense = "'dense', a Dense without a convolution's kernel"
    for layer, says in (("dense", dense), ("conv", "got 'conv'"), ("input", "'input'")):
        detail = refused(client.get(path, params={"layer": layer}), 404, "unknown_layer")
        assert "expected one of conv_" in detail
        assert says in detail
    assert "0 to 31" in refused(client.get(path, params={"layer": "conv_1", "channel": 32}), 422, "invalid_request")
    refused(client.get(path), 422, "invalid_request")
    refused(client.get(path, params={"layer": "conv_1", "version": 5}), 404, "unknown_version")


@pytest.mark.parametrize("path", ["layers", "graph", "filters?layer=conv_1"])
def test_models_and_versions_that_are_not_there_are_refused(client: httpx.Client, path: str) -> None:
    refused(client.get(f"/models/cats/{path}"), 404, "unknown_model")
    together = "&" if "?" in path else "?"
    refused(client.get(f"/models/known/{path}{together}bogus=1"), 422, "invalid_request")
    if path == "graph":
        refused(client.get("/models/known/graph?version=7"), 404, "unknown_version")
    refused(client.get("/models/known/versions/7/layers"), 404, "unknown_version")


def test_many_layers_are_named_by_the_nearest_few() -> None:
    manifest = read_manifest(ROOT / "models" / "fruit_vgg16" / "1")
    with pytest.raises(UnknownLayer) as refusal:
        find_layer(manifest, "block5_conf3")
    named = str(refusal.value).removeprefix("expected one of ").partition(" or ")[0].split(", ")
    assert {"block5_conv1", "block5_conv2", "block5_conv3"} < set(named)
    order = ["input", *(layer.name for layer in manifest.layers)]
    assert named == sorted(named, key=order.index)
    assert "15 others" in str(refusal.value)


def test_input_is_the_picture_also_where_a_layer_is_called_so() -> None:
    manifest = read_manifest(ROOT / "models" / "fruit_cnn" / "1")
    layers = [manifest.layers[0].model_copy(update={"name": "input"}), *manifest.layers[1:]]
    found = find_layer(manifest.model_copy(update={"layers": layers}), "input")
    assert (found.type, found.shape[-1]) == ("Input", 3)


# The service itself


def test_more_looks_than_may_wait_are_refused_at_once(
    client: httpx.Client, lemon: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "MOST_LOOKING", 0)
    answer = client.get("/activations", params={"image_id": lemon, "layer": "conv_1"})
    refused(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == "1"


def test_more_kept_pictures_than_may_be_in_hand_are_refused_at_once(
    client: httpx.Client, lemon: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "MOST_IN_HAND", 0)
    for call in ("activations", "walk", "explain"):
        params = {"image_id": lemon} | ({"layer": "conv_1"} if call == "activations" else {})
        refused(client.get(f"/{call}", params=params), 503, "overloaded")
    refused(client.get(f"/images/{lemon}"), 503, "overloaded")
    refused(client.post("/explanations", params={"image_id": lemon}), 503, "overloaded")
    monkeypatch.setattr(classifier, "MOST_IN_HAND", 1)
    for _ in range(2):
        ask(client, "/walk", image_id=lemon)


def test_a_client_that_goes_ends_its_look(client: httpx.Client, lemon: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    async def look(*arguments: object) -> None:
        try:
            await anyio.sleep(60)
        finally:
            ended.set()

    monkeypatch.setattr(classifier.Classifier, "look", look)
    for path in ("/walk", "/activations", "/models/fruit_cnn/filters"):
        params = {"layer": "conv_1"} if "filters" in path else {"image_id": lemon, "layer": "conv_1"}
        params = {"image_id": lemon} if path == "/walk" else params
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(client.base_url.join(path), params=params, timeout=0.3)
        assert ended.wait(10)
        ended.clear()


def test_a_look_that_takes_too_long_is_given_up(
    client: httpx.Client, lemon: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "LOOK_SECONDS", 0)
    refused(client.get("/walk", params={"image_id": lemon}), 504, "deadline_exceeded")
    monkeypatch.undo()
    ask(client, "/walk", image_id=lemon)


SERVED = """
import sys, httpx
from pathlib import Path
from service.app import create_app
from service.settings import Settings
from tests.conftest import LiveServer
with LiveServer(create_app(Settings(models=Path(sys.argv[1]), engine="openvino"))) as server:
    client = httpx.Client(base_url=server.url, timeout=60, params={"model": "fruit_cnn", "layer": "conv_1"})
    assert client.post("/activations", files={"file": Path(sys.argv[2]).read_bytes()}).is_success
    assert httpx.get(server.url + "/models/fruit_cnn/graph").is_success
print(*{name.split(".")[0] for name in sys.modules})
"""


def test_the_service_s_own_process_loads_nothing_that_only_explaining_needs(models: Path) -> None:
    command = [sys.executable, "-c", SERVED, str(models), str(ROOT / "examples" / "lemon.png")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stdout.splitlines()[-1].split())
    assert {"openvino", "service"} <= loaded
    assert not {"tensorflow", "matplotlib", "keras", "scipy", "skimage", "lime"} & loaded


def test_another_engine_s_answer_is_another() -> None:
    manifest = read_manifest(ROOT / "models" / "fruit_cnn" / "1")

    async def tag(engine: str) -> str:
        version = cast(Version, SimpleNamespace(manifest=manifest, digest=manifest.digest, engine=engine))

        async def make() -> Response:
            return Response()

        return (await inside._kept(None, version, NoQuery(), make)).headers["etag"]

    assert len({anyio.run(tag, engine) for engine in ("openvino", "openvino", "tensorflow")}) == 2


def test_more_channels_than_fit_on_a_picture_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "MOST_CELLS", 4)
    manifest = read_manifest(ROOT / "models" / "fruit_cnn" / "1")

    def drawn(channels: int) -> bytes:
        maps = {"conv_1": np.ones((1, 2, 2, channels), np.float32)}
        model = cast(Model, SimpleNamespace(manifest=manifest, activations=lambda batch, names: maps))
        return map_grid(model, lambda progress: None, LEMON, "conv_1", 10**7)

    assert drawn(9) == drawn(4) != drawn(3)
