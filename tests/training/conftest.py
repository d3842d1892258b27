"""Pictures that the bundled model knows, and a second version beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from service.manifest import Input, Probe, hash_files, probe_images, read_manifest
from tests.conftest import ROOT
from training import export
from training.networks import build_network
from training.recipe import read_recipe

FRUITS = {path.stem.capitalize(): path for path in sorted((ROOT / "examples").glob("*.png"))}


@pytest.fixture(scope="session")
def fruit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of six pictures each: an example as it is, then turned and darkened ever more."""
    folder = tmp_path_factory.mktemp("fruits")
    for label, path in FRUITS.items():
        (folder / label).mkdir()
        with Image.open(path) as image:
            for step in range(6):
                turned = image.convert("RGB").rotate(30 * step, fillcolor="white")
                ImageEnhance.Brightness(turned).enhance(1 - 0.12 * step).save(folder / label / f"{step}.png")
    return folder


@pytest.fixture(scope="session")
def fruit_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the bundled `fruit_cnn/1`, and `fruit_cnn/2`: larger input, untrained. Copy it to write."""
    models = tmp_path_factory.mktemp("fruit-models")
    first = shutil.copytree(ROOT / "models" / "fruit_cnn" / "1", models / "fruit_cnn" / "1")
    second = models / "fruit_cnn" / "2"
    bundled = read_manifest(first)
    target = Input(height=28, width=24, resize="crop")
    keras.utils.set_random_seed(5)
    network = build_network(read_recipe("fruit_cnn").model_copy(update={"input": target}), len(bundled.labels))
    export.save(network, second)
    serve = tf.saved_model.load(str(second)).signatures["serving_default"]
    probe = np.asarray(serve(images=tf.constant(probe_images(28, 24)))["probabilities"])
    manifest = bundled.model_copy(
        update={
            "version": 2,
            # In another order: an index means another class.
            "labels": bundled.labels[::-1],
            "input": target,
            "layers": export.visible_layers(network),
            "parameters": network.model.count_params(),
            "probe": Probe(probabilities=probe.tolist()),
            "metrics": None,
            "files": hash_files(second),
        }
    )
    (second / "manifest.json").write_text(manifest.model_dump_json())
    return models
