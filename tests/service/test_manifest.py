from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from service.manifest import (
    MANIFEST,
    SCHEMA_FILE,
    InvalidVersion,
    hash_files,
    json_schema,
    probe_images,
    read_manifest,
    verify_files,
)

LAYER = {"name": "batch_norm_2", "type": "BatchNormalization", "shape": [16, 12, 16], "parameters": 64}


@pytest.fixture
def folder(own_models: Path) -> Path:
    return own_models / "shapes" / "1"


def change(folder: Path, **values: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_published_version_keeps_its_promise(folder: Path) -> None:
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    assert manifest.files == hash_files(folder)
    assert set(manifest.files) >= {"saved_model.pb", "variables/variables.index"}


def test_the_schema_in_the_repository_is_the_code_s() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema(), "run: python -m service.manifest"


def test_a_manifest_is_valid_by_the_schema_in_the_repository(folder: Path) -> None:
    Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(json.loads((folder / MANIFEST).read_text()))


def test_a_folder_without_a_manifest_is_no_version(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(InvalidVersion, match=r"no manifest\.json"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"labels": ["one"]}, "labels", id="one-label"),
        pytest.param({"labels": ["circle", "circle", "stripes"]}, "each label once", id="labels-twice"),
        pytest.param({"labels": ["circle", "square"]}, "probe of 2 probabilities", id="fewer-labels-than-outputs"),
        pytest.param({"surprise": 1}, "surprise", id="unknown-key"),
        pytest.param({"gradcam_layer": "nowhere"}, "none of the layers", id="unknown-layer"),
        pytest.param(
            {"layers": [LAYER | {"inputs": ["later"]}]}, "'later' is none of the layers before it", id="inputs"
        ),
        pytest.param({"files": {"../../etc/passwd": "0" * 64}}, "below the version's folder", id="path-outside"),
        pytest.param({"name": "other"}, "is of other/1, the folder is shapes/1", id="another-model"),
        pytest.param({"version": 2}, "is of shapes/2, the folder is shapes/1", id="another-version"),
    ],
)
def test_an_invalid_manifest_says_where_and_why(folder: Path, values: dict[str, object], message: str) -> None:
    change(folder, **values)
    with pytest.raises(InvalidVersion, match=message):
        read_manifest(folder)


def test_half_a_manifest_is_invalid(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_text(path.read_text()[:500])
    with pytest.raises(InvalidVersion, match="Invalid JSON"):
        read_manifest(folder)


def test_a_changed_byte_is_found(folder: Path) -> None:
    path = folder / "saved_model.pb"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidVersion, match=r"saved_model\.pb differs .* expected sha256 \w{64}, found \w{64}"):
        verify_files(folder, read_manifest(folder))


def test_a_file_that_was_not_promised_is_found(folder: Path) -> None:
    (folder / "variables" / "more").write_bytes(b"x")
    with pytest.raises(InvalidVersion, match="variables/more is not in the manifest"):
        verify_files(folder, read_manifest(folder))


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "variables" / "variables.index").unlink()
    with pytest.raises(InvalidVersion, match=r"variables/variables\.index is missing"):
        verify_files(folder, read_manifest(folder))


@pytest.mark.parametrize("size", [(20, 20), (1, 1), (224, 299)], ids=str)
def test_probe_images_are_two_different_pictures_of_the_asked_size(size: tuple[int, int]) -> None:
    images = probe_images(*size)
    assert images.shape == (2, *size, 3)
    assert images.dtype == np.uint8
    assert (images[0] != images[1]).any()
