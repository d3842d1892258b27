"""BentoML: one worker with an adaptively batched endpoint, whose pictures BentoML itself opens.

`PEER_MODEL=models/fruit_cnn/1 python -m bentoml serve benchmarks.peers.bentoml_app:Classifier`
"""

import os
from typing import Any

import bentoml
import numpy as np
from PIL.Image import Image

from benchmarks.peers.saved_model import SavedModel


@bentoml.service(workers=1, traffic={"timeout": 60})
class Classifier:
    """The model and its endpoint."""

    def __init__(self) -> None:
        self.model = SavedModel(os.environ["PEER_MODEL"])

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def predict(self, images: list[Image]) -> list[list[dict[str, Any]]]:
        """Classify the pictures of several requests together."""
        return self.model.classify(np.stack([self.model.pixels(image) for image in images]))
