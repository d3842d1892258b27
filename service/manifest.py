"""What a model version promises: `models/<name>/<version>/manifest.json`, its only link between training and service.

The folder's layout is TensorFlow Serving's: `<name>/<version>/saved_model.pb` and `variables/`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from service.problems import first_problem

MANIFEST = "manifest.json"
SCHEMA_FILE = Path(__file__).with_name("manifest.schema.json")
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
VERSION_NAME = re.compile(r"[1-9][0-9]{0,17}")

ResizeRule = Literal["squash", "crop", "pad"]


class InvalidVersion(ValueError):
    """A folder is not the version that its manifest promises."""


class IncompleteVersion(InvalidVersion):
    """A file is missing as yet."""


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or str(pure) != path:
        raise ValueError(f"expected a plain path below the version's folder, found {path!r}")
    return path


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Part):
    """The pictures that the graph takes: uint8 [N, height, width, 3], RGB."""

    height: int = Field(ge=1, le=4096, description="Rows of pixels.")
    width: int = Field(ge=1, le=4096, description="Columns of pixels.")
    resize: ResizeRule = Field(
        description="How a picture of another shape gets there: squash = ignore the aspect, "
        "crop = the largest centred part of the right aspect, pad = the whole picture on white."
    )
    crop_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Side of what `crop` takes, as a share of the largest: 0.875 is `resize to 256, centre crop 224`.",
    )
    oversampling: float | None = Field(
        default=2.0,
        ge=1,
        description="A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where so many times the input's pixels remain "
        "each way, and 256; null: always in full.",
    )

    @model_validator(mode="after")
    def _crops_where_it_says_so(self) -> Input:
        if self.crop_share != 1 and self.resize != "crop":
            raise ValueError(f"expected crop_share with crop alone, found it with {self.resize}")
        return self


class Layer(_Part):
    """A layer whose output the `activations` signature gives."""

    name: str
    type: str = Field(description="Keras' class name, such as Conv2D.")
    shape: list[int] = Field(description="The output's shape without the batch axis.")
    parameters: int = Field(ge=0)
    inputs: list[str] | None = Field(
        default=None, description="Names of the layers that it takes, of those listed; null: the one before."
    )


class ClassFigures(_Part):
    """What one class reached on the held-out pictures."""

    label: str
    precision: float = Field(ge=0, le=1)
    recall: float = Field(ge=0, le=1)
    f1: float = Field(ge=0, le=1)
    support: int = Field(ge=1, description="Held-out pictures of the class.")


class Metrics(_Part):
    """What training measured on pictures that it did not train on, through the exported graph."""

    images: int = Field(ge=1, description="Held-out pictures.")
    accuracy: float = Field(ge=0, le=1, description="Share whose most probable class is the right one.")
    top3_accuracy: float = Field(ge=0, le=1, description="Share whose right class is among the three most probable.")
    loss: float = Field(ge=0, description="Mean cross-entropy, in nats.")
    classes: list[ClassFigures]
    calibration_error: float | None = Field(
        default=None, ge=0, le=1, description="Expected calibration error of the probabilities (Guo et al., 2017)."
    )
    recognition_auroc: float | None = Field(
        default=None, ge=0, le=1, description="How well `recognition` tells the classes from other pictures; 0.5 = not."
    )


class DataSet(_Part):
    """The pictures that the version was trained and measured on."""

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$", description="Of every picture's path and bytes, both splits.")
    training_images: int = Field(ge=1)
    test_images: int = Field(ge=1)
    skipped_images: int = Field(ge=0, description="Files that could not be read.")
    split: str = Field(description="How held-out pictures were chosen.")


class Probe(_Part):
    """What the graph answered, when it was exported, to `probe_images`: an engine must answer the same."""

    probabilities: list[list[float]] = Field(min_length=1, description="[N, C]")


EXAMPLE: dict[str, JsonValue] = {
    "schema_version": 1,
    "name": "cats_and_dogs",
    "version": 1,
    "created": "2026-11-23T17:54:50Z",
    "description": "Tells cats from dogs.",
    "licence": "Apache-2.0",
    "attribution": "Trained on photographs of our own.",
    "labels": ["cat", "dog"],
    "input": {"height": 20, "width": 20, "resize": "crop"},
    "layers": [{"name": "conv_1", "type": "Conv2D", "shape": [20, 20, 32], "parameters": 896, "inputs": []}],
    "gradcam_layer": "conv_1",
    "recognition_threshold": 3.2,
    "parameters": 26514,
    "recipe": {"name": "cats_and_dogs", "fitting": {"epochs": 3}},
    "software": {"tensorflow": "2.21.0"},
    "data": {
        "digest": "sha256:" + "0" * 64,
        "training_images": 800,
        "test_images": 200,
        "skipped_images": 0,
        "split": "the folders Training and Test",
    },
    "metrics": {
        "images": 200,
        "accuracy": 0.9,
        "top3_accuracy": 1.0,
        "loss": 0.3,
        "classes": [
            {"label": "cat", "precision": 0.9, "recall": 0.9, "f1": 0.9, "support": 100},
            {"label": "dog", "precision": 0.9, "recall": 0.9, "f1": 0.9, "support": 100},
        ],
    },
    "probe": {"probabilities": [[0.7, 0.3], [0.4, 0.6]]},
    "files": {"saved_model.pb": "0" * 64},
}


class Manifest(_Part):
    """The promise of one model version."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    schema_version: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN)
    version: int = Field(ge=1)
    created: datetime
    description: str
    licence: str = Field(description="SPDX expression, or a sentence.")
    attribution: str = Field(description="Whom the licence of the data or of the first weights asks to name.")
    limitations: str = Field(default="", description="Where it fails.")
    labels: list[str] = Field(min_length=2, description="Class names in the order of the outputs.")
    input: Input
    layers: list[Layer] = Field(description="Outputs of the `activations` signature, from picture to answer.")
    gradcam_layer: str = Field(description="The layer whose feature maps the `gradcam` signature weighs.")
    recognition_threshold: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="A picture is recognised where the graph's `recognition` is at least this; null: never measured.",
    )
    temperature: float = Field(
        default=1.0, gt=0, description="What the graph divides logits by before its softmax (Guo et al., 2017)."
    )
    parameters: int = Field(ge=0, description="Weights of the network, trained or not.")
    recipe: dict[str, Any] = Field(description="The training recipe, as it ran.")
    software: dict[str, str] = Field(description="Version by library that trained.")
    data: DataSet | None = Field(default=None, description="Null where it was trained elsewhere.")
    metrics: Metrics | None = Field(default=None, description="Null where nothing was measured here.")
    probe: Probe
    files: dict[Annotated[str, AfterValidator(_inside)], Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        min_length=1, description="sha256 of every other file of the version."
    )

    @cached_property
    def digest(self) -> str:
        """Of all that decides what the version answers: the manifest, which has the sha256 of every file."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @model_validator(mode="after")
    def _is_consistent(self) -> Manifest:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("expected each label once")
        if "saved_model.pb" not in self.files:
            raise ValueError("expected saved_model.pb among the files")
        if self.gradcam_layer not in {layer.name for layer in self.layers}:
            raise ValueError(f"gradcam_layer {self.gradcam_layer!r} is none of the layers")
        before: set[str] = set()
        for layer in self.layers:
            if unknown := [name for name in layer.inputs or () if name not in before]:
                raise ValueError(f"inputs of the layer {layer.name!r}: {unknown[0]!r} is none of the layers before it")
            before.add(layer.name)
        if any(len(row) != len(self.labels) for row in self.probe.probabilities):
            raise ValueError(f"expected a probe of {len(self.labels)} probabilities a picture")
        return self


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a version's folder.

    Raises:
        IncompleteVersion: there is none.
        InvalidVersion: it is not valid, or it is another version's.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise IncompleteVersion(f"no {MANIFEST}") from None
    except OSError as error:
        raise InvalidVersion(f"{MANIFEST} cannot be read: {error.strerror}") from None
    except ValidationError as invalid:
        raise InvalidVersion(f"{MANIFEST}: {first_problem(invalid)}") from None
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise InvalidVersion(
            f"{MANIFEST} is of {manifest.name}/{manifest.version}, the folder is {folder.parent.name}/{folder.name}"
        )
    return manifest


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compare every promised file with its sha256.

    Raises:
        IncompleteVersion: a file is missing.
        InvalidVersion: a file differs, or was not promised.
    """
    for name in manifest.files:
        if not (folder / name).exists():
            raise IncompleteVersion(f"{name} is missing")
    if unlisted := set(_files(folder)) - set(manifest.files):
        raise InvalidVersion(f"{sorted(unlisted)[0]} is not in the manifest")
    for name, promised in manifest.files.items():
        try:
            found = sha256(folder / name)
        except FileNotFoundError:
            raise IncompleteVersion(f"{name} is missing") from None
        except OSError as error:
            raise InvalidVersion(f"{name} cannot be read: {error.strerror}") from None
        if found != promised:
            raise InvalidVersion(f"{name} differs from the manifest: expected sha256 {promised}, found {found}")


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder`, by its path there."""
    return {name: sha256(folder / name) for name in sorted(_files(folder))}


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != MANIFEST:
            yield path.relative_to(folder).as_posix()


def sha256(path: Path) -> str:
    """The hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def probe_images(height: int, width: int) -> NDArray[np.uint8]:
    """Two synthetic pictures, uint8 [2, height, width, 3], the same on every machine: colour ramps, then a check."""
    y, x = np.mgrid[0:height, 0:width]
    ramps = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) * 7 % 256], axis=-1)
    check = np.where(((x * 4 // width + y * 4 // height) % 2 == 0)[..., None], [230, 40, 30], [40, 160, 60])
    return np.stack([ramps, check]).astype(np.uint8)


def json_schema() -> dict[str, Any]:
    """The manifest's JSON Schema, for tools in other languages."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}


if __name__ == "__main__":
    SCHEMA_FILE.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
