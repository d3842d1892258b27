"""The examples are those of TensorFlow Serving's document, with pictures for numbers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from structlog.testing import capture_logs

from service.app import create_app
from service.decode import decode, fit
from service.engines.base import Outputs
from service.manifest import Input
from service.settings import Settings
from tests.conftest import SHAPES, draw, encode

TARGET = Input(height=16, width=12, resize="crop")
PICTURE = encode(draw("circle", 4000))
OTHER = encode(draw("square", 4001), "JPEG")
CALL = "/v1/models/shapes"


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


def numbers(data: bytes) -> Any:
    return fit(decode(data, max_pixels=10**6), TARGET).tolist()


def error(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    text: str = body["error"]
    return text


def probabilities(client: httpx.Client, data: bytes) -> list[float]:
    """As `/predict` gives them, in the order of the labels."""
    answer = client.post("/predict", params={"store": "false"}, files={"file": data}).json()
    by_index = {p["index"]: p["probability"] for p in answer["images"][0]["predictions"]}
    return [by_index[index] for index in range(len(by_index))]


ROWS = [
    pytest.param({"instances": [b64(PICTURE)]}, id="encoded"),
    pytest.param({"instances": [{"images": b64(PICTURE)}]}, id="encoded-by-name"),
    pytest.param({"instances": [numbers(PICTURE)]}, id="numbers"),
    pytest.param({"instances": [{"images": numbers(PICTURE)}]}, id="numbers-by-name"),
    pytest.param({"instances": [b64(PICTURE)], "signature_name": "serving_default"}, id="signature"),
    pytest.param({"instances": [b64(PICTURE)], "signature_name": ""}, id="signature-unset"),
]
COLUMNS = [
    pytest.param({"inputs": [b64(PICTURE)]}, id="encoded"),
    pytest.param({"inputs": b64(PICTURE)}, id="encoded-alone"),
    pytest.param({"inputs": {"images": [b64(PICTURE)]}}, id="encoded-by-name"),
    pytest.param({"inputs": [numbers(PICTURE)]}, id="numbers"),
    pytest.param({"inputs": {"images": [numbers(PICTURE)]}}, id="numbers-by-name"),
]


@pytest.mark.parametrize("body", ROWS)
def test_instances_get_predictions_that_are_predict_s_to_the_bit(live: httpx.Client, body: dict[str, Any]) -> None:
    answer = live.post(f"{CALL}:predict", json=body)
    assert answer.status_code == 200, answer.text
    (prediction,) = answer.json()["predictions"]
    assert set(prediction) == {"probabilities", "logits", "recognition"}
    assert prediction["probabilities"] == probabilities(live, PICTURE)
    assert np.argmax(prediction["logits"]) == SHAPES.index("circle")
    assert isinstance(prediction["recognition"], float)


@pytest.mark.parametrize("body", COLUMNS)
def test_inputs_get_outputs_in_columns(live: httpx.Client, body: dict[str, Any]) -> None:
    outputs = live.post(f"{CALL}:predict", json=body).json()["outputs"]
    assert outputs["probabilities"] == [probabilities(live, PICTURE)]
    assert np.shape(outputs["logits"]) == (1, 3)
    assert np.shape(outputs["recognition"]) == (1,)


def test_several_instances_of_either_kind_are_answered_in_their_order(live: httpx.Client) -> None:
    body = {"instances": [b64(OTHER), numbers(PICTURE), b64(PICTURE)]}
    first, second, third = live.post(f"{CALL}:predict", json=body).json()["predictions"]
    assert [int(np.argmax(each["probabilities"])) for each in (first, second, third)] == [1, 0, 0]
    assert second == third


def test_exif_turns_a_picture_as_in_predict(live: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(draw("square", 4002, (60, 40)), "JPEG", exif=exif)
    (prediction,) = live.post(f"{CALL}:predict", json={"instances": [b64(turned)]}).json()["predictions"]
    assert prediction["probabilities"] == probabilities(live, turned)
    assert prediction["probabilities"] != probabilities(live, encode(draw("square", 4002, (60, 40)), "JPEG"))


@pytest.mark.parametrize(
    "path",
    ["/v1/models/shapes/versions/1:predict", "/V1/Models/shapes:PREDICT", "/v1/MODELS/shapes/VERSIONS/1:Predict"],
)
def test_a_version_may_be_named_and_paths_know_no_case(live: httpx.Client, path: str) -> None:
    assert live.post(path, json={"instances": [b64(PICTURE)]}).status_code == 200


def test_a_body_of_whatever_type_is_json(live: httpx.Client) -> None:
    # curl -d says that it sends a form.
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = json.dumps({"instances": [b64(PICTURE)]})
    assert live.post(f"{CALL}:predict", content=body, headers=form).status_code == 200


@pytest.mark.parametrize("feature", ["image", "images", "image/encoded"])
def test_classify_answers_pairs_of_label_and_score(live: httpx.Client, feature: str) -> None:
    body = {
        "context": {"camera": "left"},
        "examples": [{feature: b64(PICTURE), "caption": "seaside"}, {feature: [b64(OTHER)], "caption": "mountains"}],
    }
    answer = live.post(f"{CALL}:classify", json=body)
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["results"]
    assert first[0][0] == "circle"
    assert second[0][0] == "square"
    assert sorted(label for label, _ in first) == sorted(SHAPES)
    assert sorted((score for _, score in first), reverse=True) == [score for _, score in first]


def test_status_lists_versions_as_the_document_shows(live: httpx.Client) -> None:
    shown = {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    assert live.get(CALL).json() == shown
    assert live.get(f"{CALL}/versions/1").json() == shown
    assert live.get("/V1/MODELS/shapes").json() == shown


def test_status_tells_of_a_version_that_is_not_whole(
    own_models: Path, serve: Callable[[FastAPI], httpx.Client]
) -> None:
    (own_models / "shapes" / "2").mkdir()
    client = serve(create_app(Settings(models=own_models, engine="openvino")))
    newest, _ = client.get(CALL).json()["model_version_status"]
    assert newest == {
        "version": "2",
        "state": "START",
        "status": {"error_code": "OK", "error_message": "no manifest.json"},
    }
    assert client.get(f"{CALL}/versions/2").json() == {"model_version_status": [newest]}
    assert "which is incomplete: no manifest.json" in error(client.post(f"{CALL}/versions/2:predict", json={}), 404)


def test_metadata_is_the_signature_that_can_be_called(live: httpx.Client) -> None:
    answer = live.get(f"{CALL}/metadata").json()
    assert live.get(f"{CALL}/versions/1/metadata").json() == answer
    assert answer["model_spec"] == {"name": "shapes", "signature_name": "", "version": "1"}
    (signature,) = answer["metadata"]["signature_def"]["signature_def"].values()
    image = signature["inputs"]["images"]
    assert image["dtype"] == "DT_UINT8"
    assert image["tensor_shape"] == {
        "dim": [{"size": size, "name": ""} for size in ("-1", "16", "12", "3")],
        "unknown_rank": False,
    }
    assert {name: len(tensor["tensor_shape"]["dim"]) for name, tensor in signature["outputs"].items()} == {
        "probabilities": 2,
        "logits": 2,
        "recognition": 1,
    }
    assert signature["method_name"] == "tensorflow/serving/predict"


def test_nan_is_legal_in_an_answer(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino"))
    client = serve(app)
    logits = np.array([np.nan, np.inf, -np.inf], np.float32)
    overflown = Outputs(np.full(3, 0.5, np.float32), logits, np.float32(0))
    monkeypatch.setattr(app.state.classifier.repository.find("shapes", 1).batcher, "_run", lambda _: [overflown])
    answer = client.post(f"{CALL}:predict", json={"instances": [b64(PICTURE)]})
    assert '"logits":[NaN,Infinity,-Infinity]' in answer.text


def test_nan_is_legal_in_a_request(live: httpx.Client) -> None:
    body = '{"examples": [{"image": %s, "sensor_readings": [1.0, -3.14, NaN, Infinity, -Infinity]}]}'
    answer = live.post(f"{CALL}:classify", content=body % json.dumps(b64(PICTURE)))
    assert answer.status_code == 200, answer.text


BAD_NUMBERS = [
    pytest.param(lambda rows: rows[0][0].__setitem__(0, 256), "whole numbers from 0 to 255", "got 256", id="256"),
    pytest.param(lambda rows: rows[0][0].__setitem__(0, -1), "whole numbers from 0 to 255", "got -1", id="minus-1"),
    pytest.param(lambda rows: rows[0][0].__setitem__(0, 7.5), "whole numbers from 0 to 255", "got 7.5", id="fraction"),
    pytest.param(lambda rows: rows[0][0].__setitem__(0, True), "whole numbers from 0 to 255", "got True", id="bool"),
    pytest.param(lambda rows: rows[0][0].__setitem__(0, "7"), "whole numbers from 0 to 255", "got '7'", id="text"),
    pytest.param(lambda rows: rows[0][0].__setitem__(0, None), "whole numbers from 0 to 255", "got None", id="null"),
    pytest.param(lambda rows: rows[0][0].__setitem__(0, 10**30), "whole numbers from 0 to 255", "got 1", id="huge"),
    pytest.param(lambda rows: rows[0][0].__setitem__(0, {}), "whole numbers from 0 to 255", "got {}", id="object"),
    pytest.param(lambda rows: rows[3].pop(), "of shape [16, 12, 3]", "different lengths", id="ragged-row"),
    pytest.param(lambda rows: rows[3][4].pop(), "of shape [16, 12, 3]", "different lengths", id="ragged-pixel"),
    pytest.param(lambda rows: rows.pop(), "of shape [16, 12, 3]", "got [15, 12, 3]", id="too-few-rows"),
    pytest.param(lambda rows: rows.clear(), "of shape [16, 12, 3]", "got [0]", id="empty"),
]


@pytest.mark.parametrize(("spoil", "expected", "got"), BAD_NUMBERS)
@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_wrong_numbers_are_refused_with_what_came(
    live: httpx.Client, key: str, spoil: Callable[[Any], object], expected: str, got: str
) -> None:
    rows = numbers(PICTURE)
    spoil(rows)
    text = error(live.post(f"{CALL}:predict", json={key: [numbers(PICTURE), rows]}), 400)
    assert expected in text
    assert got in text
    assert f"`{key}[1]`" in text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param({}, "either instances or inputs, got neither", id="neither"),
        pytest.param({"instances": [], "inputs": []}, "got instances and inputs", id="both"),
        pytest.param({"instances": []}, "at least one picture", id="no-instance"),
        pytest.param({"inputs": []}, "at least one picture", id="no-input"),
        pytest.param({"instances": b64(PICTURE)}, "expected a list as instances", id="no-list"),
        pytest.param({"instances": [7]}, "16 x 12 x 3 numbers as `instances[0]`, got 7", id="number"),
        pytest.param({"instances": ["x"]}, "got 'x'", id="text"),
        pytest.param({"instances": [{"pixels": b64(PICTURE)}]}, "the input images, got ['pixels']", id="other-name"),
        pytest.param({"instances": [{"b64": 7}]}, "`instances[0]` in base64, got 7", id="b64-number"),
        pytest.param({"instances": [{"b64": "%"}]}, "`instances[0]` in base64", id="no-base64"),
        pytest.param(
            {"instances": [b64(PICTURE) | {"x": 1}]}, "numbers as `instances[0]`, got {'b64'", id="b64-and-more"
        ),
        pytest.param({"instances": [{"images": b64(PICTURE), "x": 1}]}, "got ['images', 'x']", id="name-and-more"),
        pytest.param({"instances": [b64(PICTURE), b64(b"")]}, "instances[1]: expected a picture, got 0", id="empty"),
        pytest.param({"instances": [b64(b"text")]}, "expected JPEG", id="no-picture"),
        pytest.param({"instances": [b64(PICTURE[:99])]}, "truncated or damaged", id="truncated"),
        pytest.param({"instances": [b64(PICTURE)] * 33}, "at most 32 pictures, got 33", id="too-many"),
        pytest.param({"instances": [0] * 40_000}, "3 numbers, got 39999 values", id="too-many-values"),
        pytest.param({"instances": [{}] * 11_000}, "3 numbers, got 11001 objects", id="too-many-objects"),
        pytest.param(
            {"instances": [b64(PICTURE)], "signature_name": "gradcam"},
            "Serving signature name: 'gradcam' not found in signature def",
            id="other-signature",
        ),
        pytest.param({"instances": [b64(PICTURE)], "signature_name": 7}, "not found", id="signature-number"),
        pytest.param([], "expected a JSON object", id="list"),
    ],
)
def test_a_wrong_body_is_a_400_in_the_protocol_s_form(live: httpx.Client, body: object, text: str) -> None:
    assert text in error(live.post(f"{CALL}:predict", json=body), 400)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"instances": [[' + b"9" * 5000 + b"]]}"])
def test_what_is_no_json_is_refused(live: httpx.Client, content: bytes) -> None:
    error(live.post(f"{CALL}:predict", content=content), 400)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param({}, "objects of features", id="no-examples"),
        pytest.param({"examples": [7]}, "objects of features", id="no-object"),
        pytest.param({"examples": [], "context": 7}, "objects of features", id="context"),
        pytest.param({"examples": []}, "at least one picture", id="none"),
        pytest.param({"examples": [{"caption": "x"}]}, "one of the features image, images", id="other-feature"),
        pytest.param({"examples": [{"image": "x"}]}, "got 'x'", id="text"),
    ],
)
def test_wrong_examples_are_refused(live: httpx.Client, body: object, text: str) -> None:
    assert text in error(live.post(f"{CALL}:classify", json=body), 400)


def test_nothing_here_regresses(live: httpx.Client) -> None:
    body = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}
    assert "expected predict or classify, got regress" in error(live.post(f"{CALL}:regress", json=body), 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/half:predict"),
        ("POST", "/v1/models/shapes/versions/9:predict"),
        ("POST", "/v1/models/shapes/versions/0:predict"),
        ("POST", f"/v1/models/shapes/versions/{'9' * 5000}:predict"),
        ("POST", "/v1/models/shapes/labels/stable:predict"),
        ("GET", "/v1/models/half"),
        ("GET", "/v1/models/half/metadata"),
        ("GET", "/v1/models/shapes/versions/9"),
        ("GET", "/v1/models/shapes/versions/9/metadata"),
        ("GET", "/v1/models/shapes/labels/stable"),
        ("GET", "/v1/models/shapes/labels/stable/metadata"),
    ],
)
def test_what_is_not_served_is_a_404(live: httpx.Client, method: str, path: str) -> None:
    assert "expected" in error(live.request(method, path, json={"instances": [1.0, 5.0]}), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/xyz"),
        ("GET", "/v1/"),
        ("GET", "/v1"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/shapes:predict"),
        ("POST", "/v1/models/shapes"),
        ("DELETE", "/v1/models/shapes"),
        ("POST", "/v1/models/shapes:explain"),
        ("POST", "/v1/models/shapes/versions/first:predict"),
        ("PATCH", "/v1/xyz"),
    ],
)
def test_every_other_path_and_method_is_malformed(live: httpx.Client, method: str, path: str) -> None:
    assert error(live.request(method, path), 400) == f"Malformed request: {method} {path}"


def test_limits_and_bugs_keep_the_protocol_s_form(
    shapes_models: Path, serve: Callable[[FastAPI], httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(Settings(models=shapes_models, engine="openvino", max_body_bytes=10_000))
    client = serve(app)
    assert "at most 10000 bytes" in error(client.post(f"{CALL}:predict", content=b"x" * 10_001), 413)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(app.state.classifier, "infer", broken)
    with capture_logs() as logs:
        text = error(client.post(f"{CALL}:predict", json={"instances": [b64(PICTURE)]}), 500)
    assert text == "the request could not be answered"
    assert [entry["event"] for entry in logs] == ["bug", "request"]


def test_requests_are_counted_by_template(shapes_models: Path, serve: Callable[[FastAPI], httpx.Client]) -> None:
    client = serve(create_app(Settings(models=shapes_models, engine="openvino")))
    client.post(f"{CALL}:predict", json={"instances": [b64(PICTURE)]})
    client.get("/v1/models/attack-1234")
    client.get("/v1/attack-1234")
    exposed = client.get("/metrics").text
    assert 'route="/v1/models/{model}:predict",status="200"} 1.0' in exposed
    assert 'route="/v1{rest}",status="400"} 1.0' in exposed
    assert 'sichtbar_predictions_total{model="shapes",version="1"} 1.0' in exposed
    assert "attack" not in exposed
