"""An exported folder in, functions over pictures out: TensorFlow runs the SavedModel itself, no Keras, no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.manifest import InvalidVersion, Manifest, read_manifest, verify_files
from training.errors import VersionError
from training.evaluate import Serve

Gradcam = Callable[[NDArray[np.uint8], NDArray[np.int32]], NDArray[np.float32]]
"""Pictures uint8 [N, H, W, 3] and a class each, int32 [N], to heat maps float32 [N, h, w], >= 0."""


@dataclass(frozen=True)
class Graph:
    """The signatures of a SavedModel as functions of arrays."""

    serve: Serve
    gradcam: Gradcam


@dataclass(frozen=True)
class Version(Graph):
    """A published version that can be asked."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """Such as `fruit_cnn/1`."""
        return f"{self.manifest.name}/{self.manifest.version}"


def load_graph(folder: Path) -> Graph:
    """The signatures of the SavedModel in `folder`, which may not be published yet."""
    return graph_of(tf.saved_model.load(str(folder)).signatures)


def graph_of(signatures: Mapping[str, Any]) -> Graph:
    """Signatures of tensors, loaded or of a network that is not exported, as functions of arrays."""

    def serve(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return {name: t.numpy() for name, t in signatures["serving_default"](images=tf.constant(images)).items()}

    def gradcam(images: NDArray[np.uint8], class_index: NDArray[np.int32]) -> NDArray[np.float32]:
        answer = signatures["gradcam"](images=tf.constant(images), class_index=tf.constant(class_index))
        return np.asarray(answer["heatmap"])

    return Graph(serve, gradcam)


def load_version(folder: Path) -> Version:
    """The version in `models/<name>/<version>`, once its files are those that its manifest promises.

    Raises:
        VersionError: they are not, or there is no manifest.
    """
    # `.` has no name to compare with the manifest's.
    folder = folder.absolute()
    try:
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
    except InvalidVersion as invalid:
        raise VersionError(f"{folder}: expected a published version, models/<name>/<version>: {invalid}") from None
    graph = load_graph(folder)
    return Version(graph.serve, graph.gradcam, folder, manifest)
