"""Asked by Triton's own client, and by plain calls where it would not make the mistake."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from fastapi import FastAPI
from structlog.testing import capture_logs
from tritonclient.utils import InferenceServerException

from service import __version__
from service.app import create_app
from service.decode import decode, fit
from service.manifest import Input
from service.settings import Settings
from tests.conftest import SHAPES, draw, encode
from tests.service.http.test_tfserving import error, probabilities

PICTURE = encode(draw("circle", 5000))
OTHER = encode(draw("square", 5001), "JPEG")
INFER = "/v2/models/shapes/infer"


def pixels(*files: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    target = Input(height=16, width=12, resize="crop")
    return np.stack([fit(decode(data, max_pixels=10**6), target) for data in files])


def connect(client: httpx.Client) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(f"{client.base_url.host}:{client.base_url.port}")


@pytest.fixture(scope="module")
def client(live: httpx.Client) -> Iterator[triton.InferenceServerClient]:
    client = connect(live)
    yield client
    client.close()


def tensor(*files: bytes, binary: bool = True) -> list[triton.InferInput]:
    values = pixels(*files)
    sent = triton.InferInput("images", list(values.shape), "UINT8")
    sent.set_data_from_numpy(values, binary_data=binary)
    return [sent]


def pictures(*files: bytes, column: bool = False, binary: bool = True) -> list[triton.InferInput]:
    values = np.array(files, dtype=np.object_)
    values = values.reshape(-1, 1) if column else values
    sent = triton.InferInput("images", list(values.shape), "BYTES")
    sent.set_data_from_numpy(values, binary_data=binary)
    return [sent]


def wanted(name: str, binary: bool = True, classes: int = 0) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput(name, binary_data=binary, class_count=classes)


def test_the_server_says_what_it_is_and_which_extensions_work(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata() == {
        "name": "sichtbar",
        "version": __version__,
        "extensions": ["binary_tensor_data", "classification", "model_repository", "statistics"],
    }


@pytest.mark.parametrize("version", ["", "1"])
def test_a_model_says_what_it_takes_and_gives(client: triton.InferenceServerClient, version: str) -> None:
    assert client.is_model_ready("shapes", version)
    assert client.get_model_metadata("shapes", version) == {
        "name": "shapes",
        "versions": ["1"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 16, 12, 3]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "recognition", "datatype": "FP32", "shape": [-1]},
        ],
    }


@pytest.mark.parametrize("outputs_binary", [True, False], ids=["binary-out", "json-out"])
@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param(lambda: tensor(PICTURE), id="binary-tensor"),
        pytest.param(lambda: tensor(PICTURE, binary=False), id="json-tensor"),
        pytest.param(lambda: pictures(PICTURE), id="picture"),
        pytest.param(lambda: pictures(PICTURE, column=True), id="picture-in-a-column"),
        pytest.param(lambda: pictures(base64.b64encode(PICTURE), binary=False), id="picture-in-json"),
    ],
)
def test_each_form_gets_probabilities_that_are_predict_s_to_the_bit(
    live: httpx.Client,
    client: triton.InferenceServerClient,
    inputs: Callable[[], list[triton.InferInput]],
    outputs_binary: bool,
) -> None:
    names = ("probabilities", "logits", "recognition")
    result = client.infer("shapes", inputs(), outputs=[wanted(name, outputs_binary) for name in names])
    assert result.as_numpy("probabilities").tolist() == [probabilities(live, PICTURE)]
    assert result.as_numpy("logits").shape == (1, 3)
    assert result.as_numpy("recognition").shape == (1,)
    assert result.get_response()["model_name"] == "shapes"
    assert result.get_response()["model_version"] == "1"


def test_several_pictures_are_answered_in_their_order(client: triton.InferenceServerClient) -> None:
    # No outputs named: all of them, binary.
    result = client.infer("shapes", pictures(PICTURE, OTHER, PICTURE), model_version="1")
    assert result.as_numpy("probabilities").argmax(axis=1).tolist() == [0, 1, 0]
    assert [output["name"] for output in result.get_response()["outputs"]] == ["probabilities", "logits", "recognition"]


def test_the_id_comes_back_and_outputs_as_they_were_asked_for(client: triton.InferenceServerClient) -> None:
    outputs = [wanted("recognition"), wanted("probabilities", binary=False)]
    result = client.infer("shapes", tensor(PICTURE), outputs=outputs, request_id="mine-7", parameters={"own": 1})
    answer = result.get_response()
    assert answer["id"] == "mine-7"
    assert [(output["name"], "data" in output) for output in answer["outputs"]] == [
        ("recognition", False),
        ("probabilities", True),
    ]
    assert result.as_numpy("recognition").shape == (1,)
    assert result.as_numpy("logits") is None
    assert "id" not in client.infer("shapes", tensor(PICTURE)).get_response()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("classes", "given"), [(1, 1), (2, 2), (9, 3)])
def test_classification_gives_value_index_and_label(
    client: triton.InferenceServerClient, binary: bool, classes: int, given: int
) -> None:
    outputs = [wanted("probabilities", binary, classes), wanted("logits", binary, classes)]
    result = client.infer("shapes", pictures(PICTURE, OTHER), outputs=outputs)
    raw = client.infer("shapes", pictures(PICTURE, OTHER))
    for name in ("probabilities", "logits"):
        classified = result.as_numpy(name)
        assert classified.shape == (2, given)
        for row, values, label in zip(classified, raw.as_numpy(name), ("circle", "square"), strict=True):
            parts = [(text.decode() if binary else text).split(":") for text in row]
            assert parts[0][2] == label
            assert all(SHAPES[int(index)] == label for _, index, label in parts)
            assert [np.float32(value) for value, _, _ in parts] == sorted(values, reverse=True)[:given]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_may_be_compressed(live: httpx.Client, client: triton.InferenceServerClient, algorithm: str) -> None:
    result = client.infer(
        "shapes",
        pictures(PICTURE),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert result.as_numpy("probabilities").tolist() == [probabilities(live, PICTURE)]


def test_a_large_answer_is_compressed_for_who_asks(live: httpx.Client, client: triton.InferenceServerClient) -> None:
    files = [PICTURE] * 32
    outputs = [wanted(name, binary=False) for name in ("probabilities", "logits", "recognition")]
    result = client.infer("shapes", tensor(*files), outputs=outputs, response_compression_algorithm="gzip")
    assert result.as_numpy("probabilities").shape == (32, 3)
    body = {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [32], "data": [b64(PICTURE)] * 32}]}
    assert live.post(INFER, json=body).headers["content-encoding"] == "gzip"
    assert "content-encoding" not in live.post(INFER, json=body, headers={"accept-encoding": "identity"}).headers


def test_the_asynchronous_client_is_answered_too(live: httpx.Client) -> None:
    from tritonclient.http import aio

    async def ask() -> Any:
        async with aio.InferenceServerClient(f"{live.base_url.host}:{live.base_url.port}") as client:
            assert await client.is_server_ready()
            return await client.infer("shapes", [*pictures(PICTURE)])

    assert asyncio.run(ask()).as_numpy("probabilities").tolist() == [probabilities(live, PICTURE)]


def test_the_repository_is_listed(own_models: Path, serve: Callable[[FastAPI], httpx.Client]) -> None:
    (own_models / "shapes" / "2").mkdir()
    (own_models / "other" / "1").mkdir(parents=True)
    http = serve(create_app(Settings(models=own_models, engine="openvino")))
    client = connect(http)
    ready = {"name": "shapes", "version": "1", "state": "READY", "reason": ""}
    failed = {"name": "shapes", "version": "2", "state": "UNAVAILABLE", "reason": "no manifest.json"}
    lost = {"name": "other", "version": "1", "state": "UNAVAILABLE", "reason": "no manifest.json"}
    assert client.get_model_repository_index() == [lost, ready, failed]
    assert http.post("/v2/repository/index", json={"ready": True}).json() == [ready]
    assert not client.is_model_ready("shapes", "2")
    for path in ("shapes/versions/2", "other"):
        assert http.get(f"/v2/models/{path}/ready").status_code == 400
    assert client.get_model_metadata("shapes")["versions"] == ["1"]
    client.close()


@pytest.mark.parametrize("call", ["load_model", "unload_model"])
def test_no_request_loads_or_unloads_a_model(client: triton.InferenceServerClient, call: str) -> None:
    with pytest.raises(InferenceServerException, match="no request loads or unloads one") as raised:
        getattr(client, call)("shapes")
    assert raised.value.status() == "400"


def test_statistics_count_what_happened(shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]) -> None:
    http = serve(create_app(Settings(models=shapes_models, engine="openvino", max_batch=4)))
    client = connect(http)

    def statistics() -> Any:
        (stats,) = client.get_inference_statistics("shapes")["model_stats"]
        return stats

    before = statistics()
    assert (before["inference_count"], before["execution_count"], before["last_inference"]) == (0, 0, 0)
    assert all(duration == {"count": 0, "ns": 0} for duration in before["inference_stats"].values())
    assert before["batch_stats"] == []

    # All six are in the queue before the model takes the first four.
    client.infer("shapes", tensor(*[PICTURE] * 6))
    http.post("/predict", files={"file": OTHER})
    with pytest.raises(InferenceServerException):
        client.infer("shapes", pictures(b"no picture"))

    stats = statistics()
    assert (stats["name"], stats["version"]) == ("shapes", "1")
    assert stats["inference_count"] == 7
    assert {batch["batch_size"]: batch["compute_infer"]["count"] for batch in stats["batch_stats"]} == {
        1: 1,
        2: 1,
        4: 1,
    }
    assert stats["execution_count"] == 3
    assert stats["last_inference"] > 1.7e12
    inference = stats["inference_stats"]
    counts = {stage: duration["count"] for stage, duration in inference.items() if duration["count"]}
    # The tensor was not decoded; what is no picture never came to the queue.
    assert counts == {"success": 2, "fail": 1, "queue": 2, "compute_input": 1, "compute_infer": 2}
    spent = sum(inference[stage]["ns"] for stage in ("queue", "compute_input", "compute_infer"))
    assert 0 < spent <= inference["success"]["ns"]
    assert inference["fail"]["ns"] > 0
    assert client.get_inference_statistics()["model_stats"] == [stats]
    assert client.get_inference_statistics("shapes", "1")["model_stats"] == [stats]
    client.close()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def request_body(**changes: object) -> dict[str, Any]:
    return {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [b64(PICTURE)]} | changes]}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="base64"),
        pytest.param({"shape": [1, 1], "data": [[b64(PICTURE)]]}, id="base64-nested"),
        pytest.param({"datatype": "UINT8", "shape": [1, 16, 12, 3], "data": pixels(PICTURE).tolist()}, id="nested"),
        pytest.param(
            {"datatype": "UINT8", "shape": [1, 16, 12, 3], "data": pixels(PICTURE).ravel().tolist()}, id="flat"
        ),
    ],
)
def test_plain_json_is_enough(live: httpx.Client, changes: dict[str, object]) -> None:
    body = request_body(**changes) | {"model_name": "shapes", "outputs": [{"name": "probabilities"}]}
    answer = live.post(INFER, json=body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "model_name": "shapes",
        "model_version": "1",
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [1, 3], "data": probabilities(live, PICTURE)}
        ],
    }


UINT8 = {"datatype": "UINT8", "shape": [1, 16, 12, 3], "data": pixels(PICTURE).ravel().tolist()}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param([], "should be an object, got []", id="list"),
        pytest.param({}, "inputs: Field required", id="no-inputs"),
        pytest.param({"inputs": []}, "the one input images, got []", id="empty-inputs"),
        pytest.param({"inputs": request_body()["inputs"] * 2}, "the one input images", id="twice"),
        pytest.param(request_body(name="pictures"), "the one input images, got ['pictures']", id="other-name"),
        pytest.param(request_body(datatype="FP32"), "UINT8 or BYTES, got FP32", id="other-type"),
        pytest.param(request_body(shape=[2]), "expected 2 pictures in base64 as data of images", id="another-number"),
        pytest.param(request_body(shape=[1, 2]), "BYTES of shape [N] or [N, 1], got [1, 2]", id="bytes-shape"),
        pytest.param(request_body(shape=["1"]), "inputs.0.shape.0", id="shape-of-text"),
        pytest.param(request_body(data=[7]), "`images[0]` in base64, got 7", id="number-for-base64"),
        pytest.param(request_body(data=["%"]), "`images[0]` in base64", id="no-base64"),
        pytest.param(request_body(data=None), "data of images, got None", id="no-data"),
        pytest.param(request_body(data=[b64(b"")]), "images[0]: expected a picture, got 0 bytes", id="empty-picture"),
        pytest.param(request_body(data=[b64(b"x")]), "expected JPEG", id="no-picture"),
        pytest.param(request_body(shape=[0], data=[]), "at least one picture, got none", id="no-pictures"),
        pytest.param(
            request_body(shape=[33], data=[b64(PICTURE)] * 33), "at most 32 pictures, got 33", id="too-many-pictures"
        ),
        pytest.param(request_body(**UINT8 | {"shape": [16, 12, 3]}), "shape [-1, 16, 12, 3], got [16, 12, 3]", id="3d"),
        pytest.param(request_body(**UINT8 | {"shape": []}), "got []", id="scalar"),
        pytest.param(request_body(**UINT8 | {"shape": [0, 16, 12, 3], "data": []}), "got [0, 16", id="no-rows"),
        pytest.param(request_body(**UINT8 | {"shape": [10**12, 16, 12, 3]}), "at most 32 pictures", id="too-many-rows"),
        pytest.param(request_body(**UINT8 | {"data": [0] * 575}), "of shape [576], got [575]", id="too-few-numbers"),
        pytest.param(request_body(**UINT8 | {"data": [256] * 576}), "0 to 255 in `images`, got 256", id="256"),
        pytest.param(request_body(**UINT8 | {"data": [0.5] * 576}), "0 to 255 in `images`, got 0.5", id="fraction"),
        pytest.param(request_body(**UINT8 | {"data": 7}), "of shape [576], got []", id="no-list"),
        pytest.param(request_body(**UINT8 | {"data": [[[[0]], [0]]]}), "different lengths", id="ragged"),
        pytest.param(request_body(**UINT8 | {"data": [0] * 40_000}), "at most 32 pictures of 16", id="too-many-values"),
        pytest.param(request_body() | {"outputs": [{"name": "heatmap"}]}, "got ['heatmap']", id="unknown-output"),
        pytest.param(request_body() | {"outputs": [{"name": "logits"}] * 2}, "each output once", id="output-twice"),
        pytest.param(
            request_body() | {"outputs": [{"name": "recognition", "parameters": {"classification": 1}}]},
            "of probabilities or logits",
            id="classes-of-recognition",
        ),
        pytest.param(
            request_body() | {"outputs": [{"name": "logits", "parameters": {"classification": 0}}]},
            "greater than or equal to 1, got 0",
            id="no-classes",
        ),
        pytest.param(
            request_body() | {"outputs": [{"name": "logits", "parameters": {"shared_memory_region": "r"}}]},
            "shared memory: not supported",
            id="output-in-shared-memory",
        ),
        pytest.param(
            request_body(parameters={"shared_memory_region": "r", "shared_memory_byte_size": 1}),
            "shared memory: not supported",
            id="input-in-shared-memory",
        ),
        pytest.param(
            request_body(parameters={"binary_data_size": 9}), "expected 9 bytes behind the JSON, got 0", id="no-binary"
        ),
        pytest.param(request_body() | {"id": 7}, "id: Input should be a valid string, got 7", id="id-of-number"),
    ],
)
def test_a_wrong_request_is_a_400_in_the_protocol_s_form(live: httpx.Client, body: object, text: str) -> None:
    assert text in error(live.post(INFER, json=body), 400)


def binary_body(datatype: str, shape: list[int], data: bytes, size: int | None = None) -> tuple[bytes, dict[str, str]]:
    parameters = {"binary_data_size": len(data) if size is None else size}
    sent = {"name": "images", "datatype": datatype, "shape": shape, "parameters": parameters}
    header = json.dumps({"inputs": [sent]}).encode()
    return header + data, {"inference-header-content-length": str(len(header))}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(binary_body("UINT8", [1, 16, 12, 3], bytes(575)), "expected 576 bytes", id="too-few"),
        pytest.param(binary_body("UINT8", [1, 16, 12, 3], bytes(577)), "expected 576 bytes", id="too-many"),
        pytest.param(
            binary_body("UINT8", [1, 16, 12, 3], bytes(576), 9), "9 bytes behind the JSON, got 576", id="size"
        ),
        pytest.param(binary_body("UINT8", [1, 16, 12, 3], b"", -1), "greater than or equal to 0", id="negative"),
        pytest.param(binary_body("BYTES", [1], b"abc"), "each behind its length", id="length-cut-off"),
        pytest.param(
            binary_body("BYTES", [1], struct.pack("<I", 4) + b"abc"), "each behind its length", id="element-cut-off"
        ),
        pytest.param(binary_body("BYTES", [2], struct.pack("<I", 3) + b"abc"), "2 elements", id="too-few-elements"),
        pytest.param(binary_body("BYTES", [1], b"\xff" * 4), "each behind its length", id="endless-element"),
        pytest.param(binary_body("BYTES", [1], bytes(8)), "1 elements of BYTES", id="too-many-elements"),
        # Refused before an element is read.
        pytest.param(binary_body("BYTES", [99_999], b"x"), "at most 32 pictures, got 99999", id="too-many-pictures"),
        pytest.param((b"{}", {"inference-header-content-length": "3"}), "at most 2, got '3'", id="length-behind-end"),
        pytest.param((b"{}", {"inference-header-content-length": "x"}), "at most 2, got 'x'", id="length-no-number"),
        pytest.param((b"{}", {"inference-header-content-length": "-1"}), "at most 2, got '-1'", id="length-negative"),
        pytest.param((b"{}", {"inference-header-content-length": "9" * 5000}), "at most 2", id="length-endless"),
        pytest.param((b"{} ", {"inference-header-content-length": "0"}), "the body", id="no-json"),
    ],
)
def test_wrong_binary_data_is_refused(live: httpx.Client, body: tuple[bytes, dict[str, str]], text: str) -> None:
    content, headers = body
    assert text in error(live.post(INFER, content=content, headers=headers), 400)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(live: httpx.Client, content: bytes) -> None:
    error(live.post(INFER, content=content), 400)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/cats", 404),
        ("GET", "/v2/models/cats/ready", 404),
        ("GET", "/v2/models/cats/stats", 404),
        ("POST", "/v2/models/cats/infer", 404),
        ("GET", "/v2/models/shapes/versions/9", 404),
        ("GET", "/v2/models/shapes/versions/x", 404),
        ("GET", "/v2/models/shapes/versions/9/stats", 404),
        ("POST", "/v2/models/shapes/versions/9/infer", 404),
        ("GET", "/v2/nowhere", 404),
        ("GET", "/v2/models/shapes/config", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("GET", "/v2/models/shapes/infer", 405),
        ("DELETE", "/v2", 405),
        ("POST", "/v2/repository/index", 400),
    ],
)
def test_what_is_not_there_is_an_error_in_the_protocol_s_form(
    live: httpx.Client, method: str, path: str, status: int
) -> None:
    error(live.request(method, path, content=b"?" if method == "POST" else None), status)


def test_triton_s_client_raises_what_the_service_says(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="expected one of shapes, got 'cats'") as unknown:
        client.get_model_metadata("cats")
    assert unknown.value.status() == "404"
    with pytest.raises(InferenceServerException, match=r"images\[1\]: the picture is truncated or damaged") as broken:
        client.infer("shapes", pictures(PICTURE, PICTURE[:99]))
    assert broken.value.status() == "400"


def test_overload_and_lateness_keep_the_protocol_s_form(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(models=shapes_models, engine="openvino", max_queue=1, max_batch=1, timeout=0.5)
    app = create_app(settings)
    http = serve(app)
    gate = threading.Event()
    batcher = app.state.classifier.repository.find("shapes", 1).batcher
    run = batcher._run
    monkeypatch.setattr(batcher, "_run", lambda images: run(images) if gate.wait(10) else None)
    refused = http.post(INFER, json=request_body(shape=[3], data=[b64(PICTURE)] * 3))
    assert "wait" in error(refused, 429)
    assert refused.headers["retry-after"] == "1"
    late = http.post(INFER, json=request_body())
    gate.set()
    assert "no answer within 0.5 s" in error(late, 504)


def test_a_draining_service_is_not_ready(shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino"))
    client = connect(serve(app))
    app.state.classifier.draining = True
    assert client.is_server_live()
    assert not client.is_server_ready()
    assert not client.is_model_ready("shapes")
    client.close()


def test_a_model_that_fails_and_a_bug_are_a_500_each_with_one_traceback(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino"))
    http = serve(app)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    batcher = app.state.classifier.repository.find("shapes", 1).batcher
    monkeypatch.setattr(batcher, "_run", broken)
    with capture_logs() as logs:
        text = error(http.post(INFER, json=request_body()), 500)
    assert text == "the model failed on the batch that held this picture"
    assert [entry["event"] for entry in logs] == ["inference_failed", "request"]
    monkeypatch.setattr(app.state.classifier, "infer", broken)
    with capture_logs() as logs:
        text = error(http.post(INFER, json=request_body()), 500)
    assert text == "the request could not be answered"
    assert [entry["event"] for entry in logs] == ["bug", "request"]
    (stats,) = http.get("/v2/models/stats").json()["model_stats"]
    assert (stats["inference_stats"]["fail"]["count"], stats["execution_count"]) == (1, 0)


def test_nothing_is_kept_of_pictures_that_come_this_way(live: httpx.Client) -> None:
    picture = encode(draw("circle", 5002))
    live.post(INFER, json=request_body(data=[b64(picture)]))
    image_id = live.post("/predict?store=false", files={"file": picture}).json()["images"][0]["image_id"]
    assert image_id is None
    assert live.get(f"/images/{hashlib.sha256(picture).hexdigest()}").status_code == 404


def test_requests_are_counted_by_template(shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]) -> None:
    http = serve(create_app(Settings(models=shapes_models, engine="openvino")))
    http.post(INFER, json=request_body())
    http.get("/v2/models/attack-1234")
    http.get("/v2/attack-1234")
    exposed = http.get("/metrics").text
    assert 'route="/v2/models/{model}/infer",status="200"} 1.0' in exposed
    assert 'route="/v2/models/{model}",status="404"} 1.0' in exposed
    assert "attack" not in exposed


def test_a_compressed_body_that_grows_beyond_the_limit_is_refused(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    http = serve(create_app(Settings(models=shapes_models, engine="openvino", max_body_bytes=100_000)))
    bomb = gzip.compress(bytes(10**7))
    assert len(bomb) < 100_000
    answer = http.post(INFER, content=bomb, headers={"content-encoding": "gzip"})
    assert "at most 100000 bytes, got more" in error(answer, 413)
