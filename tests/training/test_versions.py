"""A published version as functions: its answers are those that it promises."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.manifest import probe_images, read_manifest
from tests.conftest import ROOT
from training.errors import VersionError
from training.versions import load_version

BUNDLED = ROOT / "models" / "fruit_cnn" / "1"


def test_a_version_answers_its_probe_as_it_did_when_it_was_exported():
    version = load_version(BUNDLED)
    assert version.name == "fruit_cnn/1"
    answer = version.serve(probe_images(20, 20))
    np.testing.assert_allclose(answer["probabilities"], version.manifest.probe.probabilities, rtol=1e-3, atol=1e-5)
    assert {name: array.shape for name, array in answer.items()} == {
        "probabilities": (2, 16),
        "logits": (2, 16),
        "recognition": (2,),
    }


def test_each_picture_gets_the_heat_map_of_its_own_class():
    version = load_version(BUNDLED)
    twice = np.repeat(probe_images(20, 20)[:1], 2, axis=0)
    maps = version.gradcam(twice, np.array([13, 2], np.int32))
    assert maps.shape[0] == 2
    assert (maps >= 0).all()
    assert not np.allclose(maps[0], maps[1])
    np.testing.assert_allclose(version.gradcam(twice[:1], np.array([2], np.int32))[0], maps[1], rtol=1e-4, atol=1e-6)


def test_the_folder_may_be_named_from_inside(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(BUNDLED)
    assert load_version(Path()).manifest == read_manifest(BUNDLED)


def break_weights(folder: Path) -> str:
    path = folder / "variables" / "variables.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return "variables/variables.data-00000-of-00001 differs from the manifest"


def forget_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "no manifest.json"


def rename(folder: Path) -> str:
    folder.rename(folder.with_name("3"))
    return "no manifest.json"


@pytest.mark.parametrize("spoil", [break_weights, forget_manifest, rename])
def test_what_is_no_whole_version_is_refused(fruit_models: Path, tmp_path: Path, spoil: Callable[[Path], str]):
    folder = shutil.copytree(fruit_models / "fruit_cnn" / "1", tmp_path / "fruit_cnn" / "1")
    problem = spoil(folder)
    expected = f"{folder}: expected a published version, models/<name>/<version>: {problem}"
    with pytest.raises(VersionError, match=re.escape(expected)):
        load_version(folder)
