"""A multipart handler that reads the file and answers a constant: what HTTP alone costs, with no model at all.

`PEER_ANSWER='{"as long": "as an answer of ours"}' uvicorn benchmarks.peers.empty_app:app`
"""

from __future__ import annotations

import os

from fastapi import FastAPI, Response, UploadFile

ANSWER = os.environ["PEER_ANSWER"].encode()

app = FastAPI()


@app.post("/predict")
async def predict(file: UploadFile) -> Response:
    """Read the picture, and look away."""
    await file.read()
    return Response(ANSWER, media_type="application/json")
