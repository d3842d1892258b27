"""`python -m training publish-pretrained`: ImageNet classifiers as versions that the service loads."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import keras
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from rich.console import Console
from typer.testing import CliRunner, Result

from service.app import create_app
from service.decode import decode, fit
from service.manifest import Input, read_manifest, verify_files
from service.settings import Settings
from tests.conftest import ROOT, draw, encode
from training.__main__ import app
from training.bars import Bars
from training.errors import DataError, WeightsError
from training.networks.applications import APPLICATIONS
from training.pretrained import Class, label_classes, publish_pretrained, read_class_index

SMALL = "mobilenet_v3_small"
INDEX = {str(number): [f"n{number:08}", f"thing_{number}"] for number in range(1000)}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["publish-pretrained", *map(str, arguments)])


def quiet() -> Bars:
    return Bars(Console(file=io.StringIO()))


def write_index(path: Path, changes: dict[str, object] | None = None) -> Path:
    path.write_text(json.dumps(INDEX | (changes or {})))
    return path


# One that knows nothing


@pytest.fixture(scope="module")
def random_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A models folder with a network of random weights, and what the command said."""
    models = tmp_path_factory.mktemp("models")
    return models, run(SMALL, "--random", "--models", models, "--name", "nothing", "--version", "7", "--json")


def test_json_is_one_object_and_all_else_is_on_stderr(random_run: tuple[Path, Result]):
    models, result = random_run
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "folder": str(models / "nothing" / "7"),
        "name": "nothing",
        "version": 7,
        "parameters": 2_554_968,
        "layers": len(read_manifest(models / "nothing" / "7").layers),
    }
    assert "random weights: this version knows nothing" in result.stderr


def test_what_is_published_is_a_version_that_was_never_measured(random_run: tuple[Path, Result]):
    folder = random_run[0] / "nothing" / "7"
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    assert manifest.labels == [f"class {number}" for number in range(1000)]
    assert manifest.input == Input(height=224, width=224, resize="crop", crop_share=0.875)
    assert (manifest.metrics, manifest.data, manifest.recognition_threshold) == (None, None, None)
    assert manifest.recipe == {"pretrained": SMALL, "weights": "random"}
    assert "knows nothing" in manifest.description
    assert len(manifest.layers) > 100
    assert manifest.layers[-1].shape == [1000]


@pytest.mark.parametrize("engine", ["openvino", "tensorflow"])
def test_the_service_answers_with_it_and_recognises_nothing(
    random_run: tuple[Path, Result], engine: str, serve: Callable[[FastAPI], httpx.Client]
):
    client = serve(create_app(Settings(models=random_run[0], engine=engine, max_batch=2)))
    answer = client.post("/predict", params={"top_k": 1000}, files={"file": encode(draw("circle", 3))}, timeout=60)
    (image,) = answer.json()["images"]
    assert image["recognised"] is None
    assert sum(prediction["probability"] for prediction in image["predictions"]) == pytest.approx(1, abs=1e-3)


# Labels


def test_two_classes_of_one_name_get_their_wordnet_ids_and_underscores_are_spaces():
    names = [("n01", "crane"), ("n02", "great_white_shark"), ("n03", "crane"), ("n04", "Cardigan"), ("n05", "cardigan")]
    assert label_classes([Class(*pair) for pair in names]) == [
        "crane (n01)",
        "great white shark",
        "crane (n03)",
        "Cardigan",
        "cardigan",
    ]


def test_a_class_index_is_read_in_the_order_of_its_numbers(tmp_path: Path):
    path = tmp_path / "index.json"
    path.write_text(json.dumps(dict(reversed(INDEX.items()))))
    classes = read_class_index(path)
    assert len(classes) == 1000
    assert classes[12] == ("n00000012", "thing_12")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(None, "expected a class index as JSON: No such file", id="missing"),
        pytest.param("[1", "found at its start: Invalid JSON", id="no-json"),
        pytest.param('["tench"]', "found at its start: Input should be an object", id="list"),
        pytest.param('{"0": "tench"}', "found at 0: ", id="no-pair"),
        pytest.param('{"zero": ["n0", "tench"]}', "found at zero", id="no-number"),
        pytest.param('{"0": ["n0", "tench"]}', "expected the classes 0 to 999, found 1 classes", id="few"),
        pytest.param(json.dumps(INDEX | {"1000": ["n", "x"]}), "0 to 999, found 1001 classes", id="many"),
    ],
)
def test_what_is_no_class_index_is_refused(text: str | None, said: str, tmp_path: Path):
    if text is not None:
        (tmp_path / "index.json").write_text(text)
    with pytest.raises(WeightsError, match=said):
        read_class_index(tmp_path / "index.json")


# Refusals


def test_help_names_every_application():
    # As wide as the longest line.
    result = CliRunner().invoke(app, ["publish-pretrained", "--help"], env={"COLUMNS": "300", "TERM": "dumb"})
    assert all(name in result.stdout for name in APPLICATIONS)


def test_random_weights_and_a_file_are_wrong_usage(tmp_path: Path):
    result = run("vgg16", "--random", "--weights", tmp_path / "x.h5")
    assert result.exit_code == 2
    assert "expected --random or --weights, found both" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["vgg17", "--random"], "expected one of vgg16, resnet50, ", id="application"),
        pytest.param(["vgg16", "--random", "--name", "../up"], "name: expected ^[A-Za-z0-9]", id="name"),
        pytest.param(
            ["vgg16", "--random", "--labels", "no.json"], "no.json: expected a class index as JSON", id="labels"
        ),
        pytest.param(["vgg16", "--random", "--version", "1"], "expected a free version number", id="taken"),
        pytest.param(
            ["mobilenet", "--weights", "no.h5", "--labels", "index.json"], "no.h5: expected a file", id="file"
        ),
    ],
)
def test_a_refusal_is_one_line_and_publishes_nothing(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write_index(tmp_path / "index.json")
    (tmp_path / "models" / "vgg16" / "1").mkdir(parents=True)
    result = run(*arguments)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert said in line
    assert "Traceback" not in result.output
    assert [path.name for path in (tmp_path / "models").rglob("*") if not path.name.startswith(".")] == ["vgg16", "1"]


@pytest.mark.parametrize(
    ("with_labels", "what", "instead"),
    [
        pytest.param(True, "the ImageNet weights of mobilenet", "--weights PATH takes a file instead", id="weights"),
        pytest.param(
            False,
            "ImageNet's class index",
            "--labels PATH takes a file instead, as --weights",
            id="labels",
        ),
    ],
)
def test_a_download_that_fails_says_so_and_names_the_way_without(
    with_labels: bool, what: str, instead: str, tmp_path: Path
):
    """All addresses lead to a closed port of this machine."""
    proxies = dict.fromkeys(("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")
    kept = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    labels = ["--labels", str(write_index(tmp_path / "index.json"))] if with_labels else []
    done = subprocess.run(
        [
            *(sys.executable, "-m", "training", "publish-pretrained", "mobilenet", "--json", *labels),
            *("--models", str(tmp_path / "models")),
        ],
        cwd=ROOT,
        env={**kept, **proxies, "KERAS_HOME": str(tmp_path / "keras"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {what} could not be downloaded: URL fetch failure on ")
    assert instead in line
    assert not list((tmp_path / "models").rglob("manifest.json"))


# The real weights


@pytest.fixture(scope="session")
def samples(data_folder: Path) -> list[tuple[Path, int]]:
    """Photographs of ImageNet, each with its class: the last number of the file's name."""
    paths = sorted((data_folder / "imagenet-samples").glob("*.jpg"))
    return [(path, int(path.stem.rpartition("_")[2])) for path in paths]


def answers(client: httpx.Client, path: Path) -> list[dict[str, Any]]:
    answer = client.post("/predict", params={"top_k": 5}, files={"file": path.read_bytes()}, timeout=60)
    (image,) = answer.json()["images"]
    predictions: list[dict[str, Any]] = image["predictions"]
    return predictions


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "weights", "right"),
    [
        pytest.param("mobilenet", "mobilenet_1_0_224_imagenet.weights.h5", 17, id="mobilenet"),
        pytest.param("resnet50", "resnet50_imagenet_f16.weights.h5", 19, id="resnet50"),
    ],
)
def test_the_service_sees_in_photographs_what_keras_own_model_sees(
    name: str,
    weights: str,
    right: int,
    weights_folder: Path,
    samples: list[tuple[Path, int]],
    tmp_path: Path,
    serve: Callable[[FastAPI], httpx.Client],
):
    labels = label_classes(read_class_index(weights_folder / "imagenet_class_index.json"))
    for number, (path, index) in enumerate(samples):
        # By label or by index, as it comes.
        folder = tmp_path / "data" / (labels[index] if number % 2 else str(index))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    models = tmp_path / "models"
    _, manifest = publish_pretrained(name, models, quiet(), weights=weights_folder / weights, data=tmp_path / "data")
    client = serve(create_app(Settings(models=models, engine="openvino", max_batch=2)))
    said = [(answers(client, path), index) for path, index in samples]
    pixels = [fit(decode(path.read_bytes(), max_pixels=10**7), manifest.input) for path, _ in samples]
    expected = keras_probabilities(name, weights_folder / weights, np.stack(pixels))
    for (predictions, _), probabilities in zip(said, expected, strict=True):
        found = [prediction["probability"] for prediction in predictions]
        np.testing.assert_allclose(found, np.sort(probabilities)[:-6:-1], atol=1e-3)
    assert sum(predictions[0]["index"] == index for predictions, index in said) >= right
    assert sum(index in [p["index"] for p in predictions] for predictions, index in said) == len(samples) == 20
    assert manifest.labels == labels
    assert len(set(labels)) == 1000
    assert manifest.metrics.images == 20
    assert manifest.metrics.accuracy >= right / 20
    assert {figures.support for figures in manifest.metrics.classes} <= {1, 2}
    assert np.isfinite(manifest.recognition_threshold)


def keras_probabilities(name: str, weights: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N, 1000], by `keras.applications` alone."""
    constructor, module = {
        "mobilenet": (keras.applications.MobileNet, keras.applications.mobilenet),
        "resnet50": (keras.applications.ResNet50, keras.applications.resnet50),
    }[name]
    pixels = module.preprocess_input(images.astype(np.float32))
    return np.asarray(constructor(weights=weights)(pixels, training=False))


@pytest.mark.realdata
def test_a_folder_of_no_class_and_a_file_that_does_not_fit_are_refused(weights_folder: Path, tmp_path: Path):
    (tmp_path / "data" / "Apfel").mkdir(parents=True)
    draw("circle", 1).save(tmp_path / "data" / "Apfel" / "1.png")
    weights = weights_folder / "mobilenet_1_0_224_imagenet.weights.h5"
    with pytest.raises(DataError, match=r"expected class folders named .*, found Apfel"):
        publish_pretrained("mobilenet", tmp_path / "models", quiet(), weights=weights, data=tmp_path / "data")
    with pytest.raises(WeightsError, match=r"expected the weights of mobilenet_v3_small .*, found .* that do not fit"):
        publish_pretrained(SMALL, tmp_path / "models", quiet(), weights=weights)
    assert not list((tmp_path / "models").rglob("manifest.json"))
