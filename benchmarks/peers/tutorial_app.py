"""FastAPI and TensorFlow as a tutorial joins them: the model loaded at start, called for each picture by itself.

`PEER_MODEL=models/fruit_cnn/1 uvicorn benchmarks.peers.tutorial_app:app`
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, UploadFile

from benchmarks.peers.saved_model import SavedModel

ml: dict[str, SavedModel] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model once, at start."""
    ml["model"] = SavedModel(os.environ["PEER_MODEL"])
    yield
    ml.clear()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, Any]:
    """Classify one picture; FastAPI runs this on a thread of its pool."""
    model = ml["model"]
    return {"predictions": model.classify(np.expand_dims(model.pixels(file.file), 0))[0]}
