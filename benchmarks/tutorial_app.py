"""A picture file in, labels and probabilities out: FastAPI and TensorFlow as a tutorial joins them, to measure against.

`TUTORIAL_MODEL=models/fruit_cnn/1 uvicorn benchmarks.tutorial_app:app`
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from fastapi import FastAPI, UploadFile
from PIL import Image

TOP_K = 5

ml: dict[str, Any] = {}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model once, at start."""
    folder = Path(os.environ["TUTORIAL_MODEL"])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    ml["labels"] = manifest["labels"]
    ml["size"] = (manifest["input"]["width"], manifest["input"]["height"])
    ml["model"] = tf.saved_model.load(str(folder))
    ml["predict"] = ml["model"].signatures["serving_default"]
    yield
    ml.clear()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, Any]:
    """Classify one picture; FastAPI runs this on a thread of its pool."""
    image = Image.open(file.file).convert("RGB").resize(ml["size"])
    batch = np.expand_dims(np.array(image), 0)
    probabilities = ml["predict"](images=tf.constant(batch))["probabilities"].numpy()[0]
    best = np.argsort(probabilities)[::-1][:TOP_K]
    return {"predictions": [{"label": ml["labels"][i], "probability": float(probabilities[i])} for i in best]}
