"""A picture file in, labels and probabilities out, by Pillow and TensorFlow: what all peers have in common.

Runs in the peers' own environments: it takes nothing from the service.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageOps

TOP_K = 5


class SavedModel:
    """A version's folder, loaded."""

    def __init__(self, folder: str) -> None:
        manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
        self._labels: list[str] = manifest["labels"]
        self._input = manifest["input"]
        self._loaded = tf.saved_model.load(folder)
        self._predict = self._loaded.signatures["serving_default"]

    def pixels(self, file: IO[bytes] | Image.Image) -> NDArray[np.uint8]:
        """Decode a picture and bring it to the model's size, as the manifest says."""
        image = (file if isinstance(file, Image.Image) else Image.open(file)).convert("RGB")
        size = (self._input["width"], self._input["height"])
        if self._input["resize"] == "crop":
            border = (1 - self._input.get("crop_share", 1)) / 2
            image = ImageOps.fit(image, size, Image.Resampling.BILINEAR, bleed=border)
        elif self._input["resize"] == "pad":
            image = ImageOps.pad(image, size, Image.Resampling.BILINEAR, color="white")
        else:
            image = image.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(image)

    def classify(self, images: NDArray[np.uint8]) -> list[list[dict[str, Any]]]:
        """For each of N pictures, uint8 [N, height, width, 3], the most probable classes."""
        probabilities = self._predict(images=tf.constant(images))["probabilities"].numpy()
        return [self._best(row) for row in probabilities]

    def _best(self, row: NDArray[np.float32]) -> list[dict[str, Any]]:
        best = np.argsort(row)[::-1][:TOP_K]
        return [{"label": self._labels[i], "probability": float(row[i])} for i in best]
