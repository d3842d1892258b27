"""Several devices train the model that one trains; what is published computes in float32, whatever trained it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from service.manifest import read_manifest, verify_files
from tests.conftest import ROOT, SHAPES, draw
from training.devices import devices, strategy
from training.errors import TrainingError
from training.fit import fit
from training.recipe import read_recipe

# One processor as two devices, which only a fresh process can be told. Nine held-out pictures are no even number.
TWO_DEVICES = """
import json, sys
from pathlib import Path
import numpy as np
import tensorflow as tf

half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [half, half])

from tests.training import tiny
from tests.training.test_train import without_dropout
from training import export
from training.cache import Cache
from training.checkpoint import Checkpoint
from training.devices import strategy
from training.train import Examples, train

folder, head, base = Path(sys.argv[1]), tiny.stage(1, 0), tiny.stage(1, 2)
every, held_out = tiny.examples(0, 7), tiny.examples(100, 3)
found = []
two = ["CPU:0", "CPU:1"]
for names, rows, stages in (([], 20, [head, base]), (two, 20, [head, base]), (two, 21, [base])):
    with strategy(names).scope():
        network = without_dropout()
        examples = Examples(every.images, every.classes, np.arange(rows))
        checkpoint = Checkpoint(folder / "checkpoint.npz")
        fitting = tiny.fitting(*stages)
        history = train(network, examples, held_out, fitting, cache=Cache(folder), checkpoint=checkpoint)
    if names and rows == 20:
        export.save(network, folder / "exported")
        export.verify(network, folder / "exported", every.images)
    weights = np.concatenate([weight.numpy().ravel() for weight in network.model.weights])
    found.append([[epoch.loss for epoch in history], weights.tolist()])
print(json.dumps(found))
"""


def test_two_devices_train_the_model_that_one_trains(tmp_path: Path):
    command = [sys.executable, "-c", TWO_DEVICES, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (losses, weights), (shared_losses, shared_weights), (odd_losses, _) = json.loads(done.stdout)
    np.testing.assert_allclose(shared_losses, losses, rtol=1e-4)
    np.testing.assert_allclose(shared_weights, weights, atol=1e-4)
    # The picture that had no partner is in neither half.
    assert np.isfinite(odd_losses).all()


def test_one_device_needs_no_strategy():
    assert strategy([]) is strategy(["GPU:0"]) is tf.distribute.get_strategy()


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_the_precision_ends_with_the_run(precision: str):
    with devices(1, precision):
        assert keras.layers.Dense(1).compute_dtype == precision.removeprefix("mixed_")
    assert keras.config.dtype_policy().name == "float32"

    def fail() -> None:
        with devices(1, precision):
            raise TrainingError

    with pytest.raises(TrainingError):
        fail()
    assert keras.config.dtype_policy().name == "float32"


def test_what_bfloat16_trained_is_published_in_float32(tmp_path: Path, recipe_file: Path):
    for shape in SHAPES[:2]:
        (tmp_path / "pictures" / shape).mkdir(parents=True)
        for number in range(4):
            draw(shape, number).save(tmp_path / "pictures" / shape / f"{number}.png")
    recipe = read_recipe(str(recipe_file)).with_fitting(epochs=1)
    published = fit(
        recipe,
        tmp_path / "pictures",
        tmp_path / "models",
        runs=tmp_path / "runs",
        precision="mixed_bfloat16",
        filters=False,
    )
    verify_files(published.folder, read_manifest(published.folder))
    saved = SavedModel.FromString((published.folder / "saved_model.pb").read_bytes())
    graph = str(saved.meta_graphs[0].graph_def)
    assert "DT_FLOAT" in graph
    assert "DT_BFLOAT16" not in graph
    assert keras.config.dtype_policy().name == "float32"
