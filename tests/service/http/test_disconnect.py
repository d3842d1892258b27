"""A client that left costs no inference, on a real socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from service.app import create_app
from service.settings import Settings
from tests.conftest import draw, encode
from tests.service.http.explaining import metric, until
from tests.service.http.test_openinference import request_body

PICTURE = encode(draw("circle", 1))
PIXELS = {"instances": np.zeros((1, 16, 12, 3), int).tolist()}


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        pytest.param("/predict", "image/png", PICTURE, id="native"),
        pytest.param("/v1/models/shapes:predict", "application/json", json.dumps(PIXELS).encode(), id="v1"),
        pytest.param("/v2/models/shapes/infer", "application/json", json.dumps(request_body()).encode(), id="v2"),
    ],
)
def test_a_client_that_leaves_the_queue_costs_no_inference(
    shapes_models: object,
    serve: Callable[[FastAPI], httpx.Client],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    kind: str,
    body: bytes,
) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino", max_batch=1))
    client = serve(app)
    batcher = app.state.classifier.repository.find("shapes", 1).batcher
    gate, run, ran = threading.Event(), batcher._run, []

    def held(images: list[object]) -> object:
        ran.append(len(images))
        assert gate.wait(20)
        return run(images)

    monkeypatch.setattr(batcher, "_run", held)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    address = (client.base_url.host, client.base_url.port or 80)
    with capture_logs() as logs, socket.create_connection(address, timeout=20) as first:
        first.sendall(head.encode() + body)
        until(lambda: ran)
        with socket.create_connection(address, timeout=20) as second:
            second.sendall(head.encode() + body)
            until(lambda: batcher.waiting)
        until(lambda: not batcher.waiting)
        gate.set()
        assert first.recv(12) == b"HTTP/1.1 200"
        until(lambda: [line for line in logs if line.get("path") == path and line["status"] == 200])
    assert ran == [1]
    assert [line["status"] for line in logs if line.get("path") == path] == [499, 200]
    assert metric(client, "sichtbar_model_requests_total", outcome="abandoned") == 1
