from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import structlog
import tensorflow as tf
from openvino import opset13 as ops

from service.engines import choose_engine, open_engine
from service.engines.base import probe, warm_up
from service.engines.openvino import OpenVINOEngine, multiplications
from service.engines.tensorflow import TensorFlowEngine
from service.manifest import InvalidVersion, read_manifest
from tests.conftest import ROOT

ENGINES = ("openvino", "tensorflow")


@pytest.fixture
def folder(shapes_models: Path) -> Path:
    return shapes_models / "shapes" / "1"


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("batch", [1, 5])
def test_an_engine_gives_probabilities_logits_and_recognition(folder: Path, name: str, batch: int) -> None:
    outputs = open_engine(name, folder, threads=0).predict(np.zeros((batch, 16, 12, 3), np.uint8))
    assert [output.shape for output in outputs] == [(batch, 3), (batch, 3), (batch,)]
    assert all(output.dtype == np.float32 for output in outputs)
    assert np.allclose(outputs.probabilities.sum(axis=1), 1)
    assert np.allclose(np.log(np.exp(outputs.logits).sum(axis=1)), outputs.recognition, atol=1e-4)


def test_both_engines_give_the_same_answers_within_1e_5(folder: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (40, 16, 12, 3), dtype=np.uint8)
    openvino, tensorflow = (open_engine(name, folder, threads=0).predict(images) for name in ENGINES)
    assert np.abs(openvino.probabilities - tensorflow.probabilities).max() < 1e-5
    assert np.abs(openvino.logits - tensorflow.logits).max() < 1e-4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"threads": 0, "few": True}, 1, id="few-pictures"),
        pytest.param({"threads": 0}, len(os.sched_getaffinity(0)), id="many-pictures"),
        pytest.param({"threads": 2, "few": True}, 2, id="as-is-said"),
    ],
)
def test_a_small_network_takes_one_thread_for_few_pictures(options: dict[str, Any], expected: int) -> None:
    engine = OpenVINOEngine(ROOT / "models" / "fruit_cnn" / "1", **options)
    assert engine.threads == expected


def test_a_networks_multiplications_are_counted() -> None:
    model = ov.Core().read_model(ROOT / "models" / "fruit_cnn" / "1")
    convolutions = 20 * 20 * 3 * 3 * (3 * 32 + 32 * 16)
    assert multiplications(model) == convolutions + 1600 * 512 + 512 * 16


def test_what_a_graph_does_not_tell_counts_as_much() -> None:
    given = ops.parameter(ov.PartialShape.dynamic(), np.float32)
    unknown = ops.matmul(given, ops.constant(np.ones((4, 4), np.float32)), False, False)
    assert multiplications(ov.Model([unknown], [given])) == math.inf
    picture = ops.parameter([1, 3, 8, 8], np.float32)
    grown = ops.convolution_backprop_data(picture, ops.constant(np.ones((3, 2, 4, 4), np.float32)), [2, 2])
    assert multiplications(ov.Model([grown], [picture])) == math.inf


def test_weights_that_are_shared_are_one_file_and_give_the_same_answers(folder: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(2).integers(0, 256, (8, 16, 12, 3), dtype=np.uint8)
    expected = open_engine("openvino", folder, threads=1).predict(images)
    place = tmp_path / "weights"
    engines = [open_engine("openvino", folder, threads=1, shared=place) for _ in range(2)]
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(place) in line]
    assert mapped
    assert list(tmp_path.iterdir()) == [place]
    # Who has them mapped keeps them.
    shutil.rmtree(place)
    for engine in engines:
        for output, other in zip(engine.predict(images), expected, strict=True):
            assert (output == other).all()


def test_of_several_that_share_weights_one_writes_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, save = [], ov.save_model

    def note(model: ov.Model, path: Path, **options: bool) -> None:
        written.append(path)
        save(model, path, **options)

    monkeypatch.setattr(ov, "save_model", note)
    together = threading.Barrier(4)

    def open_together() -> None:
        together.wait(60)
        open_engine("openvino", folder, threads=1, shared=tmp_path / "weights")

    with ThreadPoolExecutor(4) as threads:
        for opened in [threads.submit(open_together) for _ in range(4)]:
            opened.result()
    assert len(written) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_where_weights_cannot_be_shared_each_has_its_own(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with structlog.testing.capture_logs() as logged:
        engine = open_engine("openvino", folder, threads=1, shared=tmp_path / "file" / "weights")
    assert [line["event"] for line in logged] == ["weights_not_shared"]
    assert engine.predict(np.zeros((1, 16, 12, 3), np.uint8)).probabilities.shape == (1, 3)


TWO_VERSIONS_GO = """
import os, signal, sys
from pathlib import Path
from service.engines import open_engine

engines = [open_engine("openvino", Path(sys.argv[1]), threads=1) for _ in range(2)]
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
while engines:
    del engines[0]
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_thread_that_has_opened_versions_which_are_gone_takes_a_signal(folder: Path) -> None:
    # Its own process: it would end.
    code = [sys.executable, "-c", TWO_VERSIONS_GO, str(folder)]
    ended = subprocess.run(code, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "heard\n"), ended.stderr


def test_an_answer_does_not_change_with_the_next_inference(folder: Path) -> None:
    engine = open_engine("openvino", folder, threads=1)
    first = engine.predict(np.zeros((1, 16, 12, 3), np.uint8))
    kept = first.probabilities.copy()
    engine.predict(np.full((1, 16, 12, 3), 255, np.uint8))
    assert (first.probabilities == kept).all()


def test_without_a_gpu_auto_is_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_engine("auto") == "openvino"
    assert choose_engine("tensorflow") == "tensorflow"


def test_the_probe_passes_what_training_exported(folder: Path) -> None:
    manifest = read_manifest(folder)
    engine = open_engine("openvino", folder, threads=0)
    warm_up(engine, manifest, 4)
    probe(engine, manifest)


def test_the_probe_refuses_answers_that_differ_from_the_manifest(folder: Path) -> None:
    manifest = read_manifest(folder)
    wrong = [list(reversed(row)) for row in manifest.probe.probabilities]
    other = manifest.model_copy(update={"probe": manifest.probe.model_copy(update={"probabilities": wrong})})
    with pytest.raises(InvalidVersion, match="probabilities differ"):
        probe(open_engine("openvino", folder, threads=0), other)


def test_the_probe_refuses_another_number_of_classes(folder: Path) -> None:
    manifest = read_manifest(folder)
    short = [row[:2] for row in manifest.probe.probabilities]
    other = manifest.model_copy(update={"probe": manifest.probe.model_copy(update={"probabilities": short})})
    with pytest.raises(InvalidVersion, match=r"expected probabilities of shape \(2, 2\), got \(2, 3\)"):
        probe(open_engine("openvino", folder, threads=0), other)


def compiled(folder: Path) -> TensorFlowEngine:
    """As on a GPU; XLA compiles for processors as well."""
    return TensorFlowEngine(folder, threads=0, compiles=True)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_what_is_compiled_gives_the_same_answers_at_any_number_of_pictures(folder: Path, batch: int) -> None:
    images = np.random.default_rng(batch).integers(0, 256, (batch, 16, 12, 3), dtype=np.uint8)
    engine = compiled(folder)
    assert engine.compiles
    for one, other in zip(
        engine.predict(images), open_engine("openvino", folder, threads=0).predict(images), strict=True
    ):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 1e-4


def test_no_batch_after_the_warm_up_is_compiled(folder: Path) -> None:
    engine = compiled(folder)
    warm_up(engine, read_manifest(folder), 6)
    sizes = engine._serve.experimental_get_tracing_count()
    for count in range(1, 7):
        engine.predict(np.zeros((count, 16, 12, 3), np.uint8))
    assert engine._serve.experimental_get_tracing_count() == sizes == len([1, 2, 4, 8])


def test_what_xla_cannot_compile_runs_as_it_is(tmp_path: Path) -> None:
    class Printing(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 2, 2, 3), tf.uint8, name="images")])
        def serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
            lengths = tf.strings.length(tf.strings.as_string(tf.cast(images[:, 0, 0, :], tf.int32)))
            logits = tf.cast(lengths, tf.float32)
            return {"probabilities": tf.nn.softmax(logits), "logits": logits, "recognition": logits[:, 0]}

    module = Printing()
    tf.saved_model.save(module, tmp_path, signatures={"serving_default": module.serve})
    with structlog.testing.capture_logs() as logs:
        engine = compiled(tmp_path)
    assert not engine.compiles
    assert [line["event"] for line in logs] == ["not_compiled"]
    assert engine.predict(np.full((3, 2, 2, 3), 100, np.uint8)).logits.tolist() == [[3, 3, 3]] * 3


class Nan:
    """An engine whose weights have gone wrong."""

    name = "nan"
    compiles = False

    def __init__(self, folder: Path) -> None:
        self._engine = open_engine("openvino", folder, threads=0)

    def predict(self, images: np.ndarray) -> object:
        outputs = self._engine.predict(images)
        return outputs._replace(logits=outputs.logits * np.nan)


def test_the_probe_refuses_answers_that_are_not_finite(folder: Path) -> None:
    with pytest.raises(InvalidVersion, match="logits are not all finite"):
        probe(Nan(folder), read_manifest(folder))
