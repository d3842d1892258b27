from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.engines import choose_engine, open_engine
from service.engines.base import probe, warm_up
from service.manifest import InvalidVersion, read_manifest

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


class Nan:
    """An engine whose weights have gone wrong."""

    name = "nan"

    def __init__(self, folder: Path) -> None:
        self._engine = open_engine("openvino", folder, threads=0)

    def predict(self, images: np.ndarray) -> object:
        outputs = self._engine.predict(images)
        return outputs._replace(logits=outputs.logits * np.nan)


def test_the_probe_refuses_answers_that_are_not_finite(folder: Path) -> None:
    with pytest.raises(InvalidVersion, match="logits are not all finite"):
        probe(Nan(folder), read_manifest(folder))
