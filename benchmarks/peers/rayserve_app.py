"""Ray Serve: its proxy, and one replica with a FastAPI handler before `@serve.batch`.

`PEER_MODEL=models/fruit_cnn/1 PEER_PORT=8001 python -m benchmarks.peers.rayserve_app`
"""

import os
import signal
from typing import Any

import numpy as np
import ray
from fastapi import FastAPI, UploadFile
from numpy.typing import NDArray
from ray import serve
from ray.serve.config import HTTPOptions

from benchmarks.peers.saved_model import SavedModel

# A batch is what comes within so many seconds of its first picture.
BATCH_SECONDS = 0.005

app = FastAPI()


@serve.deployment(num_replicas=1, max_ongoing_requests=64)
@serve.ingress(app)
class Classifier:
    """The replica."""

    def __init__(self, folder: str) -> None:
        self.model = SavedModel(folder)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=BATCH_SECONDS)
    async def classify(self, images: list[NDArray[np.uint8]]) -> list[list[dict[str, Any]]]:
        """Classify the pictures of several requests together."""
        return self.model.classify(np.stack(images))

    @app.post("/predict")
    async def predict(self, file: UploadFile) -> dict[str, Any]:
        """Decode one picture and wait for its batch."""
        return {"predictions": await self.classify(self.model.pixels(file.file))}


def main() -> None:
    """Serve until SIGTERM."""
    ray.init(include_dashboard=False)
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=int(os.environ["PEER_PORT"])))
    # mypy takes a decorated class for the class.
    serve.run(Classifier.bind(os.environ["PEER_MODEL"]))  # type: ignore[attr-defined]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
