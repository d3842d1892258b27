"""MLServer: a custom runtime behind adaptive batching, in one worker process.

Settings come from the environment, as `servers.py` gives them: `python -m mlserver start FOLDER`
"""

from __future__ import annotations

import asyncio
import io
import json

import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.saved_model import SavedModel


class Classifier(MLModel):
    """Pictures as base64 in, the most probable classes of each as JSON out."""

    async def load(self) -> bool:
        """Load the model, in the process that will call it."""
        self.model = SavedModel(str(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Classify the pictures of several requests, which MLServer has joined."""
        pictures = Base64Codec.decode_input(payload.inputs[0])
        answers = await asyncio.to_thread(self._classify, pictures)
        return InferenceResponse(
            model_name=self.name, outputs=[StringCodec.encode_output("predictions", answers, use_bytes=False)]
        )

    def _classify(self, pictures: list[bytes]) -> list[str]:
        images = np.stack([self.model.pixels(io.BytesIO(picture)) for picture in pictures])
        return [json.dumps(best) for best in self.model.classify(images)]
