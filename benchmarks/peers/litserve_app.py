"""LitServe: an API server and one process with the model, which decodes what it takes in batches of up to 32.

`PEER_MODEL=models/fruit_cnn/1 PEER_PORT=8001 python -m benchmarks.peers.litserve_app`
"""

import os
from typing import Any

import litserve as ls
import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from benchmarks.peers.saved_model import SavedModel

# A batch is what comes within so many seconds of its first picture.
BATCH_SECONDS = 0.005


class Classifier(ls.LitAPI):
    """The hooks in the order in which a picture meets them."""

    def setup(self, device: str) -> None:
        """Load the model, in the process that will call it."""
        self.model = SavedModel(os.environ["PEER_MODEL"])

    def decode_request(self, request: Request) -> NDArray[np.uint8]:
        """Take the picture out of the form."""
        return self.model.pixels(request["file"].file)

    def batch(self, inputs: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Stack the pictures."""
        return np.stack(inputs)

    def predict(self, x: NDArray[np.uint8]) -> list[list[dict[str, Any]]]:
        """Classify them together."""
        return self.model.classify(x)

    def unbatch(self, output: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """One answer each."""
        return output

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        """Name it."""
        return {"predictions": output}


if __name__ == "__main__":
    api = Classifier(max_batch_size=32, batch_timeout=BATCH_SECONDS)
    server = ls.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False)
