"""A version's folder in, what explanations ask of it out: answers, heat maps, feature maps, weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from service.choices import EngineName
from service.engines import open_engine
from service.engines.base import Engine, Outputs
from service.errors import ModelUnavailable
from service.manifest import InvalidVersion, Manifest, read_manifest, verify_files

if TYPE_CHECKING:
    from service.engines.tensorflow import TensorFlowInspector


class Model:
    """A version that was verified already. What is costly to load is loaded when it is first asked for."""

    def __init__(self, folder: Path, engine: EngineName, *, threads: int, digest: str | None = None) -> None:
        """Of the version whose manifest has the digest; unless given, of the one that is there.

        Raises:
            ModelUnavailable: the folder's files are gone, or others.
        """
        self.folder = folder
        self._digest = digest
        self.manifest = self._promised()
        self._engine_name = engine
        self._threads = threads
        self._loading = threading.Lock()
        self._predicting = threading.Lock()
        self._opened: TensorFlowInspector | None = None

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        """Classify uint8 [N, H, W, 3]."""
        with self._predicting:
            return self._engine.predict(images)

    def predict_quickly(self, images: NDArray[np.uint8]) -> Outputs:
        """Classify uint8 [N, H, W, 3] in bfloat16 where the processor has it: for averages over many pictures."""
        with self._predicting:
            return self._quick_engine.predict(images)

    def gradcam(
        self, images: NDArray[np.uint8], class_index: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `TensorFlowInspector.gradcam`."""
        return self._inspector.gradcam(images, class_index)

    def activations(self, images: NDArray[np.uint8], layers: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `TensorFlowInspector.activations`."""
        return self._inspector.activations(images, layers)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """See `TensorFlowInspector.weights`."""
        return self._inspector.weights()

    @cached_property
    def _engine(self) -> Engine:
        self._promised()
        return open_engine(self._engine_name, self.folder, threads=self._threads)

    @cached_property
    def _quick_engine(self) -> Engine:
        self._promised()
        return open_engine(self._engine_name, self.folder, threads=self._threads, exact=False)

    @property
    def _inspector(self) -> TensorFlowInspector:
        from service.engines.tensorflow import TensorFlowInspector

        # Both lanes may ask first; the engines above are asked under a lock.
        with self._loading:
            if self._opened is None:
                self._promised()
                self._opened = TensorFlowInspector(self.folder, threads=self._threads)
            return self._opened

    def _promised(self) -> Manifest:
        """The manifest, once its files are found to be there: they may have been replaced since they were verified."""
        try:
            manifest = read_manifest(self.folder)
            if self._digest is None or manifest.digest == self._digest:
                verify_files(self.folder, manifest)
                return manifest
        except InvalidVersion:
            pass
        raise ModelUnavailable(f"the files of {self.folder.parent.name}/{self.folder.name} have changed; ask again")
